import type { Device } from "../../tensor/device.ts";
import type { Scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Picture } from "../checkpoint/config/vision-setup.ts";
import { firstImages } from "../prompt/image-places.ts";
import type { Prompt } from "../prompt/prompt.ts";
import { picturesOf } from "../prompt/prompt-image.ts";
import { type KeyValueStore, PassKeys } from "./key-value-store.ts";
import { RowMap } from "./row-map.ts";
import { SequencePart } from "./sequence-part.ts";
import { NO_VISITOR, type SiteFilter, type SitePrefix, Sites } from "./sites.ts";

/** Positions `start` up to but not including `end` that a query may attend to. */
export interface KeyRange {
  readonly start: number;
  readonly end: number;
}

/** What a mask may depend on beside the position. */
export interface Sequence {
  /** Absent in a vision tower, whose sequences are images. */
  readonly prompt?: Prompt | undefined;
  /** In a vision tower: what the sequence is. */
  readonly image?: Picture | undefined;
}

/** The attention mask of a layer, as a rule: what a query at `position` of a sequence may attend to. */
export type AttentionRule = (position: number, sequence: Sequence) => KeyRange;

/** Every position of the sequence: encoders. */
export const full: AttentionRule = () => ({ start: 0, end: Number.POSITIVE_INFINITY });

export const causal: AttentionRule = (position) => ({ start: 0, end: position + 1 });

/** The `window` latest positions, the query's own included (Mistral's sliding window). */
export function slidingWindow(window: number): AttentionRule {
  return (position) => ({ start: Math.max(0, position + 1 - window), end: position + 1 });
}

/** All of the prompt for its own positions, causal behind it (PaliGemma's prefix). */
export const promptPrefix: AttentionRule = (position, { prompt }) => ({
  start: 0,
  end: Math.max(position + 1, prompt?.length ?? 0),
});

interface PassOptions {
  /** By number of the sequence; none in a vision tower. */
  readonly prompts: readonly Prompt[];
  /** In a vision tower, by number of the sequence. */
  readonly images?: readonly Picture[];
  readonly rows: RowMap;
  /** Default: every key is computed in the pass itself. */
  readonly keys?: KeyValueStore;
  /** Default: none. */
  readonly inUse?: SiteFilter;
  /** The pass joins these; see {@link Pass.joined}. */
  readonly parts?: readonly Pass[];
  /** The pass is over the first rows of this one and shares its tables. */
  readonly parent?: Pass;
  /** Goes in front of its sites' names. */
  readonly prefix?: SitePrefix;
}

/** What one call of a network needs to know about the rows that it computes. */
export class Pass {
  readonly device: Device;
  readonly rows: RowMap;
  readonly keys: KeyValueStore;
  readonly inUse: SiteFilter;
  /** The passes that this one joins, in the order of its rows, each with keys of its own; else only itself. */
  readonly parts: readonly Pass[];
  /** u32 [rows] */
  readonly positions: Tensor;
  readonly #scope: Scope;
  readonly #options: PassOptions;
  readonly #tables = new Map<object, Tensor>();
  readonly #partTables = new Map<SequencePart, Map<AttentionRule, Tensor>>();
  #sequences: readonly SequencePart[] | undefined;

  private constructor(scope: Scope, device: Device, options: PassOptions) {
    const { rows, keys = new PassKeys(rows), inUse = NO_VISITOR.uses, parts = [this] } = options;
    this.device = device;
    this.rows = rows;
    this.keys = keys;
    this.inUse = inUse;
    this.parts = parts;
    this.#scope = scope;
    this.#options = options;
    this.positions = this.table(Pass, (pass) =>
      device.tensor(
        Uint32Array.from([...pass.rows.entries()], (e) => e.position),
        { dtype: "u32" },
      ),
    );
  }

  /**
   * A pass over prompts (or, where there are none, over the sequences that `rows` has). By default it computes all of their
   * rows and all keys, and none of its sites is in use. Its tables live as long as the current scope.
   */
  static over(
    device: Device,
    prompts: readonly Prompt[],
    {
      rows = RowMap.packed(prompts.map((p) => p.length)),
      ...options
    }: Partial<Pick<PassOptions, "rows" | "keys" | "inUse" | "prefix">> = {},
  ): Pass {
    return new Pass(device.currentScope!, device, { ...options, prompts, rows });
  }

  /**
   * One pass over the rows of several, none of which has sites in use. Attention goes through each by itself, so every row
   * attends to what it would have attended to alone, and all else is computed together.
   */
  static joined(parts: readonly Pass[]): Pass {
    let row = 0;
    let sequence = 0;
    const spans = parts.flatMap(({ rows }) => {
      const moved = rows.spans.map((span) => ({ ...span, sequence: sequence++, row: row + span.row }));
      row += rows.length;
      return moved;
    });
    const rows = new RowMap(spans);
    const [{ device, inUse }, scope] = [parts[0]!, parts[0]!.#scope];
    const prompts = parts.flatMap((part) => part.rows.spans.map((span) => part.prompt(span.sequence)!));
    return new Pass(scope, device, { prompts, rows, inUse, parts });
  }

  /** The prompt of a sequence; undefined in a vision tower. */
  prompt(sequence: number): Prompt | undefined {
    return this.#options.prompts[sequence];
  }

  /** The picture of a sequence; undefined but in a vision tower. */
  image(sequence: number): Picture | undefined {
    return this.#options.images?.[sequence];
  }

  /** u32 [rows]: 0, 1, 2, … */
  get rowNumbers(): Tensor {
    return this.table(RowMap, ({ rows, device }) =>
      device.tensor(
        Uint32Array.from({ length: rows.length }, (_, row) => row),
        { dtype: "u32" },
      ),
    );
  }

  /** One more than the last position. */
  get extent(): number {
    return Math.max(0, ...this.rows.spans.map((span) => span.position + span.count));
  }

  /** The pass that computes only the first sequences of this one. */
  first(sequences: number): Pass {
    const rows = new RowMap(this.rows.spans.slice(0, sequences));
    return new Pass(this.#scope, this.device, { ...this.#options, rows, keys: this.keys, parent: this });
  }

  /**
   * The pass over the images of this pass's prompts, a sequence an image, each of as many rows as `rowsOf` says: the vision
   * tower's patches, or the features that it hands on. Images are numbered through the whole batch.
   */
  images(rowsOf: (image: Picture) => number): Pass {
    const { prompts } = this.#options;
    const images = prompts.flatMap(picturesOf);
    const first = firstImages(prompts);
    let row = 0;
    const spans = this.rows.spans.flatMap(({ sequence }) =>
      picturesOf(prompts[sequence]!).map((image, i) => {
        const count = rowsOf(image);
        row += count;
        return { sequence: first[sequence]! + i, position: 0, row: row - count, count };
      }),
    );
    const rows = new RowMap(spans);
    const options = { prompts: [], images, rows, inUse: this.inUse, prefix: "vision." as const };
    // Its tables are for whoever computes the images, and go with that.
    return new Pass(this.device.currentScope ?? this.#scope, this.device, options);
  }

  /** Its sequences one by one, for what takes memory for every pair of rows. */
  get sequences(): readonly SequencePart[] {
    const { own, prefix } = this.keys;
    this.#sequences ??=
      this.#options.parent?.sequences.slice(0, this.rows.spans.length) ??
      this.rows.spans.map(
        (span) => new SequencePart(span, own.of(span.sequence)[0]!, prefix?.of(span.sequence)[0]),
      );
    return this.#sequences;
  }

  /** The sites of one layer, or those outside the layers; of all sequences, or of one. */
  sites(layer?: number, part?: SequencePart): Sites {
    const { prefix } = this.#options;
    return new Sites(this.inUse, part?.rows ?? this.rows, { prefix, layer, keys: part?.columns });
  }

  /**
   * The rule as the table that the attention kernels read: u32 [rows, 4], the rows of the prefix and the rows of the
   * own keys that each query attends to, as start and end. Of all sequences, or of one by itself.
   */
  segments(rule: AttentionRule, part?: SequencePart): Tensor {
    if (!part) return this.table(rule, (pass) => pass.#segments(rule, pass.rows, pass.keys));
    const { parent } = this.#options;
    if (parent) return parent.segments(rule, part);
    let tables = this.#partTables.get(part);
    if (!tables) {
      tables = new Map();
      this.#partTables.set(part, tables);
    }
    let table = tables.get(rule);
    if (!table) {
      table = this.#scope.enter(() => this.#segments(rule, part.rows, part));
      tables.set(rule, table);
    }
    return table;
  }

  /**
   * What is made once for a pass: a tensor of a row for each of its rows, known by `key`. `make` is called for the pass over
   * all rows, of which those of {@link first} are a part.
   */
  table(key: object, make: (pass: Pass) => Tensor): Tensor {
    let table = this.#tables.get(key);
    if (!table) {
      const { parent } = this.#options;
      table = this.#scope.enter(() => parent?.table(key, make).rows(0, this.rows.length) ?? make(this));
      this.#tables.set(key, table);
    }
    return table;
  }

  #segments(
    rule: AttentionRule,
    rows: RowMap,
    { own, prefix }: Pick<KeyValueStore, "own" | "prefix">,
  ): Tensor {
    const values = new Uint32Array(rows.length * 4);
    for (const { row, sequence, position } of rows.entries()) {
      const visible = rule(position, { prompt: this.prompt(sequence), image: this.image(sequence) });
      values.set(rowsWithin(prefix, sequence, visible), row * 4);
      values.set(rowsWithin(own, sequence, visible), row * 4 + 2);
    }
    return this.device.tensor(values, { shape: [rows.length, 4], dtype: "u32" });
  }
}

function rowsWithin(
  map: RowMap | undefined,
  sequence: number,
  visible: KeyRange,
): [start: number, end: number] {
  const [span] = map?.of(sequence) ?? [];
  if (!span) return [0, 0];
  const start = Math.max(visible.start, span.position);
  const end = Math.min(visible.end, span.position + span.count);
  if (end <= start) return [0, 0];
  return [span.row + start - span.position, span.row + end - span.position];
}
