import { scatterRowsInto } from "../../kernels/movement/scatter.ts";
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
    this.layers[layer] = this.#scope.enter(() => ({ k: computed.k.alias(), v: computed.v.alias() }));
    return computed;
  }
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

/**
 * The KV cache of generation: room for `capacities[i]` positions of sequence i. Each pass writes its rows at the
 * sequence's next free places. f32, as computed.
 */
export class KvCache implements KeyValueStore {
  own: RowMap;
  readonly #device: Device;
  readonly #slots: readonly number[];
  readonly #rows: number;
  readonly #layers: KeysAndValues[] = [];
  readonly #scope: Scope;
  #targets: Tensor | undefined;

  constructor(device: Device, capacities: readonly number[], scope: Scope) {
    this.#device = device;
    this.#scope = scope;
    let row = 0;
    this.#slots = capacities.map((capacity) => {
      const slot = row;
      row += capacity;
      return slot;
    });
    this.#rows = row;
    this.own = new RowMap([]);
  }

  /** Announces a pass: its rows are appended to what the cache holds. */
  extend(rows: RowMap): void {
    this.own = new RowMap(
      rows.spans.map(({ sequence, position, count }) => ({
        sequence,
        position: 0,
        row: this.#slots[sequence]!,
        count: position + count,
      })),
    );
    const targets = [...rows.entries()].map(({ sequence, position }) => this.#slots[sequence]! + position);
    this.#targets?.dispose();
    this.#targets = this.#scope.enter(() => this.#device.tensor(Uint32Array.from(targets), { dtype: "u32" }));
  }

  use(layer: number, { k, v }: KeysAndValues): KeysAndValues {
    this.#layers[layer] ??= this.#scope.enter(() => ({
      k: this.#device.empty([this.#rows, k.dim(1)], "f32", "KV cache"),
      v: this.#device.empty([this.#rows, v.dim(1)], "f32", "KV cache"),
    }));
    const cache = this.#layers[layer];
    scatterRowsInto(cache.k, this.#targets!, k);
    scatterRowsInto(cache.v, this.#targets!, v);
    return cache;
  }
}
