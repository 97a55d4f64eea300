import type { Device } from "../../tensor/device.ts";
import type { Scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type KeyStore, PassKeys } from "./key-store.ts";
import { RowMap } from "./rows.ts";
import { type SiteFilter, type SitePrefix, Sites } from "./sites.ts";

/** Positions `start` up to but not including `end` that a query may attend to. */
export interface Reach {
  readonly start: number;
  readonly end: number;
}

/** The attention mask of a layer, as a rule: what a query at `position` of sequence `sequence` may attend to. */
export type AttentionRule = (sequence: number, position: number) => Reach;

/** Every position of the sequence: encoders. */
export const full: AttentionRule = () => ({ start: 0, end: Number.POSITIVE_INFINITY });

export const causal: AttentionRule = (_sequence, position) => ({ start: 0, end: position + 1 });

/** The `window` latest positions, the query's own included (Mistral's sliding window). */
export function slidingWindow(window: number): AttentionRule {
  return (_sequence, position) => ({ start: Math.max(0, position + 1 - window), end: position + 1 });
}

export interface PassOptions {
  /** The pass joins these; see {@link Pass.joined}. */
  parts?: readonly Pass[];
  /** The pass is over the first rows of this one and shares its tables. */
  parent?: Pass;
  /** Goes in front of its sites' names. */
  prefix?: SitePrefix;
  /** For each sequence, the number of images that the sequences before it have. */
  firstImages?: readonly number[];
}

/** What one call of a network needs to know about the rows that it computes. */
export class Pass {
  readonly device: Device;
  readonly rows: RowMap;
  readonly keys: KeyStore;
  readonly inUse: SiteFilter;
  /** The passes that this one joins, in the order of its rows, each with keys of its own; else only itself. */
  readonly parts: readonly Pass[];
  /** u32 [rows] */
  readonly positions: Tensor;
  readonly #scope: Scope;
  readonly #options: PassOptions;
  readonly #segments = new Map<AttentionRule, Tensor>();
  #keyColumns: RowMap | undefined;

  /** Its tables live as long as `scope`. */
  constructor(
    scope: Scope,
    device: Device,
    rows: RowMap,
    keys: KeyStore,
    inUse: SiteFilter,
    options: PassOptions = {},
  ) {
    this.device = device;
    this.rows = rows;
    this.keys = keys;
    this.inUse = inUse;
    this.parts = options.parts ?? [this];
    this.#scope = scope;
    this.#options = options;
    this.positions = scope.enter(
      () =>
        options.parent?.positions.rows(0, rows.length) ??
        device.tensor(
          Uint32Array.from([...rows.entries()], (e) => e.position),
          { dtype: "u32" },
        ),
    );
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
    return new Pass(scope, device, rows, new PassKeys(rows), inUse, { parts });
  }

  /** One more than the last position. */
  get extent(): number {
    return Math.max(0, ...this.rows.spans.map((span) => span.position + span.count));
  }

  /** The pass that computes only the first sequences of this one. */
  first(sequences: number): Pass {
    const rows = new RowMap(this.rows.spans.slice(0, sequences));
    return new Pass(this.#scope, this.device, rows, this.keys, this.inUse, {
      ...this.#options,
      parent: this,
    });
  }

  /**
   * The pass over the images of this pass's prompts, a sequence an image, each of so many rows: the vision tower's
   * patches, or the features that it hands on. Images are numbered through the whole batch.
   */
  images(perPrompt: readonly number[], rowsPerImage: number): Pass {
    const { firstImages } = this.#options;
    let row = 0;
    const spans = this.rows.spans.flatMap(({ sequence }, i) =>
      Array.from({ length: perPrompt[i]! }, (_, image) => {
        row += rowsPerImage;
        const first = firstImages?.[sequence] ?? 0;
        return { sequence: first + image, position: 0, row: row - rowsPerImage, count: rowsPerImage };
      }),
    );
    const rows = new RowMap(spans);
    return new Pass(this.#scope, this.device, rows, new PassKeys(rows), this.inUse, { prefix: "vision." });
  }

  /** The sites of one layer, or those outside the layers. */
  sites(layer?: number): Sites {
    const { prefix } = this.#options;
    return new Sites(this.inUse, this.rows, { prefix, layer, keys: this.#columns() });
  }

  /**
   * The rule as the table that the attention kernels read: u32 [rows, 4], the rows of the prefix and the rows of the
   * own keys that each query attends to, as start and end.
   */
  segments(rule: AttentionRule): Tensor {
    let table = this.#segments.get(rule);
    if (!table) {
      table = this.#scope.enter(
        () => this.#options.parent?.segments(rule).rows(0, this.rows.length) ?? this.#table(rule),
      );
      this.#segments.set(rule, table);
    }
    return table;
  }

  #table(rule: AttentionRule): Tensor {
    const { own, prefix } = this.keys;
    const values = new Uint32Array(this.rows.length * 4);
    for (const { row, sequence, position } of this.rows.entries()) {
      const reach = rule(sequence, position);
      values.set(rowsWithin(prefix, sequence, reach), row * 4);
      values.set(rowsWithin(own, sequence, reach), row * 4 + 2);
    }
    return this.device.tensor(values, { shape: [this.rows.length, 4], dtype: "u32" });
  }

  /** Columns of a materialised attention pattern: all rows of the prefix, then all own rows. */
  #columns(): RowMap {
    if (!this.#keyColumns) {
      const { own, prefix, prefixRows: shift = 0 } = this.keys;
      this.#keyColumns = new RowMap([
        ...(prefix?.spans ?? []),
        ...own.spans.map((span) => ({ ...span, row: span.row + shift })),
      ]);
    }
    return this.#keyColumns;
  }
}

function rowsWithin(map: RowMap | undefined, sequence: number, reach: Reach): [start: number, end: number] {
  const [span] = map?.of(sequence) ?? [];
  if (!span) return [0, 0];
  const start = Math.max(reach.start, span.position);
  const end = Math.min(reach.end, span.position + span.count);
  if (end <= start) return [0, 0];
  return [span.row + start - span.position, span.row + end - span.position];
}
