import { copy } from "../../kernels/movement/copy.ts";
import { scatterPairInto, scatterRowsInto } from "../../kernels/movement/scatter.ts";
import type { Device } from "../../tensor/device.ts";
import type { Scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { RowMap } from "./row-map.ts";

/** Keys and values, each [rows, kvHeads * headDim], after RoPE. */
export interface KeysAndValues {
  readonly k: Tensor;
  readonly v: Tensor;
}

/** What a pass attends to. */
export type KeysToUse = KeysAndValues & { readonly prefix?: KeysAndValues };

/**
 * Where attention finds its keys and values. A pass hands over the ones that it has just computed and gets back the ones
 * to attend to: its own, and perhaps those of a prefix computed earlier.
 */
export interface KeyValueStore {
  /** Which rows of the own keys hold which positions. */
  readonly own: RowMap;
  /** Which rows of the prefix hold which positions that may be attended to. */
  readonly prefix?: RowMap;
  use(layer: number, computed: KeysAndValues): KeysToUse;
}

/** A pass over whole sequences: every key is computed in the pass itself. */
export class PassKeys implements KeyValueStore {
  readonly own: RowMap;

  constructor(own: RowMap) {
    this.own = own;
  }

  use(_layer: number, computed: KeysAndValues): KeysAndValues {
    return computed;
  }
}

/** Like {@link PassKeys}, and keeps all keys and values, to resume from later. */
export class RecordedKeys implements KeyValueStore {
  readonly own: RowMap;
  readonly layers: KeysAndValues[] = [];
  readonly #scope: Scope;

  constructor(own: RowMap, scope: Scope) {
    this.own = own;
    this.#scope = scope;
  }

  use(layer: number, computed: KeysAndValues): KeysAndValues {
    this.layers[layer] = this.#scope.enter(() => ({ k: kept(computed.k), v: kept(computed.v) }));
    return computed;
  }
}

/** A view to keep, or a copy where the view would keep more alive than itself. */
function kept(x: Tensor): Tensor {
  return x.storage.used > x.bytes ? copy(x) : x.alias();
}

/** A pass over changed rows only: what lies before them is found in a recorded run. */
export class ResumedKeys implements KeyValueStore {
  readonly own: RowMap;
  readonly prefix: RowMap;
  readonly #recorded: readonly KeysAndValues[];

  constructor(own: RowMap, prefix: RowMap, recorded: readonly KeysAndValues[]) {
    this.own = own;
    this.prefix = prefix;
    this.#recorded = recorded;
  }

  use(layer: number, computed: KeysAndValues): KeysToUse {
    return { ...computed, prefix: this.#recorded[layer]! };
  }
}

/** Rows of another stack, of which cross-attention makes keys and values. */
export interface Context {
  /** [rows, width of the other stack] */
  readonly x: Tensor;
  /** Which row is which among all that a sequence of the pass reads. */
  readonly rows: RowMap;
  /** The same rows as the other stack counts them (by image), where it counts otherwise: what their sites call them. */
  readonly named?: RowMap;
}

/** Keys and values that were made of a context earlier, by layer; a layer without cross-attention has none. */
export interface RecordedContext {
  readonly rows: RowMap;
  readonly layers: readonly (KeysAndValues | undefined)[];
}

/**
 * Where cross-attention finds its keys: those that it makes of the context that the pass was given, and those of a recorded
 * run. With `keep`, they are made once and stay for the passes that follow (generation).
 */
export class ContextKeys implements KeyValueStore {
  readonly layers: KeysAndValues[] = [];
  readonly #keep: Scope | undefined;
  readonly #recorded: RecordedContext | undefined;
  #source: Context | undefined;

  constructor({ keep, recorded }: { keep?: Scope; recorded?: RecordedContext | undefined } = {}) {
    this.#keep = keep;
    this.#recorded = recorded;
  }

  /** Before the blocks run. */
  fill(context: Context): void {
    this.#source = context;
  }

  get source(): Context | undefined {
    return this.#source;
  }

  get own(): RowMap {
    return this.#source?.rows ?? this.#recorded?.rows ?? NO_ROWS;
  }

  get prefix(): RowMap | undefined {
    return this.#source && this.#recorded?.rows;
  }

  /** Keys that are there already, so that none have to be computed. */
  kept(layer: number): KeysToUse | undefined {
    const recorded = this.#recorded?.layers[layer];
    if (!this.#source) return recorded;
    const own = this.layers[layer];
    return own && { ...own, ...(recorded && { prefix: recorded }) };
  }

  use(layer: number, computed: KeysAndValues): KeysToUse {
    const recorded = this.#recorded?.layers[layer];
    const { k, v } = computed;
    this.#keep?.enter(() => {
      this.layers[layer] = { k: kept(k), v: kept(v) };
    });
    return { ...computed, ...(recorded && { prefix: recorded }) };
  }
}

const NO_ROWS = new RowMap([]);

/** The part of keys and values that shared starts lie in, so that attention does not look through all for them. */
export class PrefixRows {
  /** The map, counted from the part's first row. */
  readonly rows: RowMap;
  readonly #start: number;
  readonly #end: number;

  constructor({ spans }: RowMap) {
    this.#start = Math.min(...spans.map(({ row }) => row));
    this.#end = Math.max(...spans.map(({ row, count }) => row + count));
    this.rows = new RowMap(spans.map((span) => ({ ...span, row: span.row - this.#start })));
  }

  of({ k, v }: KeysAndValues): KeysAndValues {
    return { k: k.rows(this.#start, this.#end), v: v.rows(this.#start, this.#end) };
  }
}

/** Starts of sequences that are those of others; see `SharedStarts`. */
export interface StartsOfOthers {
  /** The first position of a sequence that is its own. */
  first(sequence: number): number;
  /** Where the keys before that lie, if `rowOf` is where a sequence's position 0 does. */
  prefix(rowOf: (sequence: number) => number): RowMap;
}

/**
 * The KV cache of generation: room for `capacities[i]` positions of sequence i, but for a start that it shares. Each pass writes
 * its rows at the sequence's next free places. f32, as computed.
 */
export class KvCache implements KeyValueStore {
  own: RowMap;
  readonly prefix?: RowMap;
  readonly #device: Device;
  readonly #slots: readonly number[];
  readonly #rows: number;
  readonly #layers: Room[] = [];
  readonly #scope: Scope;
  readonly #starts: StartsOfOthers | undefined;
  readonly #prefixRows: PrefixRows | undefined;
  #targets: Tensor | undefined;

  constructor(device: Device, capacities: readonly number[], scope: Scope, starts?: StartsOfOthers) {
    this.#device = device;
    this.#scope = scope;
    let row = 0;
    this.#starts = starts;
    this.#slots = capacities.map((capacity, sequence) => {
      const slot = row;
      row += capacity - this.#first(sequence);
      return slot;
    });
    this.#rows = row;
    this.own = new RowMap([]);
    if (starts) {
      this.#prefixRows = new PrefixRows(starts.prefix((leader) => this.#slots[leader]!));
      this.prefix = this.#prefixRows.rows;
    }
  }

  /** Announces a pass: its rows are appended to what the cache holds. */
  extend(rows: RowMap): void {
    this.own = new RowMap(
      rows.spans.map(({ sequence, position, count }) => ({
        sequence,
        position: this.#first(sequence),
        row: this.#slots[sequence]!,
        count: position + count - this.#first(sequence),
      })),
    );
    const targets = [...rows.entries()].map(
      ({ sequence, position }) => this.#slots[sequence]! + position - this.#first(sequence),
    );
    this.#targets?.dispose();
    this.#targets = this.#scope.enter(() => this.#device.tensor(Uint32Array.from(targets), { dtype: "u32" }));
  }

  use(layer: number, { k, v }: KeysAndValues): KeysToUse {
    this.#layers[layer] ??= this.#scope.enter(() => this.#room(k, v));
    const cache = this.#layers[layer];
    if (cache.whole) {
      scatterPairInto(cache.whole, this.#targets!, [k, v]);
    } else {
      scatterRowsInto(cache.k, this.#targets!, k);
      scatterRowsInto(cache.v, this.#targets!, v);
    }
    return this.#prefixRows ? { ...cache, prefix: this.#prefixRows.of(cache) } : cache;
  }

  /** The first position that a sequence has a place for. */
  #first(sequence: number): number {
    return this.#starts?.first(sequence) ?? 0;
  }

  /** Keys and values one under the other, so that one kernel writes both, unless values are of another width. */
  #room(k: Tensor, v: Tensor): Room {
    const empty = (rows: number, width: number) => this.#device.empty([rows, width], "f32", "KV cache");
    const width = k.dim(1);
    if (v.dim(1) !== width) return { k: empty(this.#rows, width), v: empty(this.#rows, v.dim(1)) };
    const whole = empty(2 * this.#rows, width);
    return { whole, k: whole.rows(0, this.#rows), v: whole.rows(this.#rows) };
  }
}

/** The cache of a layer. */
interface Room extends KeysAndValues {
  readonly whole?: Tensor;
}
