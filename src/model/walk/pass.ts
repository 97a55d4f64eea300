import type { Device } from "../../tensor/device.ts";
import type { Scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Picture } from "../checkpoint/config/vision-setup.ts";
import type { Prompt } from "../prompt/prompt.ts";
import type { Addition } from "./additions.ts";
import { type KeyRowMaps, segmentTable, shiftTable, type Visible } from "./key-tables.ts";
import { ContextKeys, type KeyValueStore, PassKeys } from "./key-value-store.ts";
import type { AttentionRule } from "./masks.ts";
import { RowMap } from "./row-map.ts";
import { SequencePart } from "./sequence-part.ts";
import { NO_VISITOR, type SiteFilter, Sites } from "./site-events.ts";
import type { SiteMark, SitePrefix } from "./sites.ts";

interface PassOptions {
  /** By number of the sequence; none in a vision tower. */
  readonly prompts: readonly Prompt[];
  /** In a vision tower, by number of the sequence. */
  readonly images?: readonly Picture[];
  readonly rows: RowMap;
  /** Default: every key is computed in the pass itself. */
  readonly keys?: KeyValueStore;
  /** Keys of cross-attention. Default: those of the context that it is given. */
  readonly context?: ContextKeys;
  /** What is added to the stream between blocks. Default: what it is told. */
  readonly additions?: Addition[];
  /** Default: none. */
  readonly inUse?: SiteFilter;
  /** Told of the pixel values that the vision side reads: [tiles, 3, size, size], or [patches, values of one]. */
  readonly onPixels?: (pixels: Tensor) => void;
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
  /** What cross-attention reads: rows of another stack, by sequence. */
  readonly context: ContextKeys;
  /** What is added to the stream between blocks, at the places of pictures. */
  readonly additions: readonly Addition[];
  readonly inUse: SiteFilter;
  /** The passes that this one joins, in the order of its rows, each with keys of its own; else only itself. */
  readonly parts: readonly Pass[];
  readonly #scope: Scope;
  readonly #options: PassOptions & Required<Pick<PassOptions, "additions">>;
  readonly #tables = new Map<object, Tensor>();
  readonly #partTables = new Map<SequencePart, Map<object, Tensor>>();
  #sequences: readonly SequencePart[] | undefined;
  #across: Pass | undefined;

  private constructor(scope: Scope, device: Device, options: PassOptions) {
    const { rows, keys = new PassKeys(rows), inUse = NO_VISITOR.uses, parts = [this] } = options;
    const { additions = [] } = options;
    this.device = device;
    this.rows = rows;
    this.keys = keys;
    this.context = options.context ?? new ContextKeys();
    this.additions = additions;
    this.inUse = inUse;
    this.parts = parts;
    this.#scope = scope;
    this.#options = { ...options, additions };
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
    }: Partial<Omit<PassOptions, "prompts" | "parts" | "parent">> = {},
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

  /** What goes in front of its sites' names: which stack its rows go through. */
  get prefix(): SitePrefix {
    return this.#options.prefix ?? "";
  }

  /** By number of the sequence; none in a vision tower. */
  get prompts(): readonly Prompt[] {
    return this.#options.prompts;
  }

  /** Has these rows added to the stream. Their memory is kept as long as the pass's tables. */
  add({ layers, ...rest }: Addition): void {
    this.#options.additions.push({ ...rest, layers: this.#scope.enter(() => layers.map((x) => x.alias())) });
  }

  /** Shows the pixel values that the vision side reads to whoever wants them, and hands them on. */
  pixels(values: Tensor): Tensor {
    this.#options.onPixels?.(values);
    return values;
  }

  /** The prompt of a sequence; undefined in a vision tower. */
  prompt(sequence: number): Prompt | undefined {
    return this.prompts[sequence];
  }

  /** u32 [rows] */
  get positions(): Tensor {
    return this.table(Pass, ({ rows, device }) =>
      device.tensor(
        Uint32Array.from([...rows.entries()], (e) => e.position),
        { dtype: "u32" },
      ),
    );
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
    const { keys, context } = this;
    return new Pass(this.#scope, this.device, { ...this.#options, rows, keys, context, parent: this });
  }

  /** The pass over these of its positions alone, whose rows are numbered anew; what it attends to in the context is the same. */
  ofRows(rows: RowMap): Pass {
    const { keys, context } = this;
    const { parent: _, ...options } = this.#options;
    return new Pass(this.#scope, this.device, { ...options, rows, keys, context });
  }

  /** The same rows as they attend to the context: its keys are those of another stack. */
  get across(): Pass {
    const { context } = this;
    const { parent } = this.#options;
    this.#across ??= new Pass(this.#scope, this.device, {
      ...this.#options,
      keys: context,
      context,
      ...(this.parts.length > 1 && { parts: this.parts.map((part) => part.across) }),
      ...(parent && { parent: parent.across }),
    });
    return this.#across;
  }

  /** Its sequences one by one, for what takes memory for every pair of rows. */
  get sequences(): readonly SequencePart[] {
    const { own, prefix } = this.keys;
    this.#sequences ??=
      this.#options.parent?.sequences.slice(0, this.rows.spans.length) ??
      this.rows.spans.map(
        (span) => new SequencePart(span, own.of(span.sequence)[0], prefix?.of(span.sequence)[0]),
      );
    return this.#sequences;
  }

  /**
   * The sites of one layer, or those outside the layers; of all sequences, or of one. `rows`: where they are not the pass's own;
   * `mark`: what their names begin with in the layer.
   */
  sites(
    layer?: number,
    {
      part,
      rows = part?.rows ?? this.rows,
      mark,
    }: { part?: SequencePart; rows?: RowMap; mark?: SiteMark } = {},
  ): Sites {
    const { prefix } = this.#options;
    return new Sites(this.inUse, rows, { prefix, mark, layer, keys: part?.columns });
  }

  /**
   * The rule as the table that the attention kernels read: u32 [rows, 4], the rows of the prefix and the rows of the
   * own keys that each query attends to, as start and end. Of all sequences, or of one by itself.
   */
  segments(rule: AttentionRule, part?: SequencePart): Tensor {
    const visible: Visible = (sequence, position) =>
      rule(position, { prompt: this.prompt(sequence), image: this.image(sequence) });
    return this.#ofKeys(rule, part, (rows, keys) => segmentTable(this.device, rows, keys, visible));
  }

  /**
   * i32 [rows, 2]: what makes the row of a key in the prefix, and among the own keys, its distance from each query; see
   * `AttentionBias`. Of all sequences, or of one by itself.
   */
  shifts(part?: SequencePart): Tensor {
    return this.#ofKeys(SequencePart, part, (rows, keys) => shiftTable(this.device, rows, keys));
  }

  /** A table of the rows and their keys, of all sequences or of one by itself, made once. */
  #ofKeys(
    key: object,
    part: SequencePart | undefined,
    make: (rows: RowMap, keys: KeyRowMaps) => Tensor,
  ): Tensor {
    if (!part) return this.table(key, (pass) => make(pass.rows, pass.keys));
    const { parent } = this.#options;
    if (parent) return parent.#ofKeys(key, part, make);
    let tables = this.#partTables.get(part);
    if (!tables) {
      tables = new Map();
      this.#partTables.set(part, tables);
    }
    let table = tables.get(key);
    if (!table) {
      table = this.#scope.enter(() => make(part.rows, part));
      tables.set(key, table);
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
}
