import type { Tensor } from "../../tensor/tensor.ts";
import type { KeysAndValues, KeysToUse } from "./key-value-store.ts";
import { RowMap, type RowSpan } from "./row-map.ts";

/**
 * One sequence's share of a pass, with its rows, its keys and those of its prefix counted from 0. A pattern of it has no
 * columns for what belongs to other sequences.
 */
export class SequencePart {
  readonly rows: RowMap;
  readonly own: RowMap;
  readonly prefix: RowMap;
  readonly #row: RowSpan;
  readonly #own: RowSpan | undefined;
  readonly #prefix: RowSpan | undefined;

  /**
   * Where its rows lie in the activations of the pass, and its keys in those of the key store: as own ones, in the prefix, in
   * both, or (where it has nothing to read in another stack) in neither.
   */
  constructor(row: RowSpan, own: RowSpan | undefined, prefix: RowSpan | undefined) {
    this.#row = row;
    this.#own = own;
    this.#prefix = prefix;
    this.rows = new RowMap([{ ...row, row: 0 }]);
    const alone = own ?? prefix;
    this.own = new RowMap(alone ? [{ ...alone, row: 0 }] : []);
    this.prefix = new RowMap(own && prefix ? [{ ...prefix, row: 0 }] : []);
  }

  /** Whether there is anything that its queries might attend to. */
  get hasKeys(): boolean {
    return this.own.length > 0;
  }

  /** Columns of a materialised pattern: the rows of the prefix, then the own rows. */
  get columns(): RowMap {
    const own = this.own.spans.map((span) => ({ ...span, row: this.prefix.length }));
    return new RowMap([...this.prefix.spans, ...own]);
  }

  /** Of an activation of the whole pass. */
  rowsOf(x: Tensor): Tensor {
    return cut(x, this.#row);
  }

  /** Of what the key store gave. */
  keysOf({ k, v, prefix }: KeysToUse): KeysToUse {
    const earlier = prefix && this.#prefix && cutBoth(prefix, this.#prefix);
    if (!this.#own) return earlier!;
    return { ...cutBoth({ k, v }, this.#own), ...(earlier && { prefix: earlier }) };
  }
}

function cutBoth({ k, v }: KeysAndValues, span: RowSpan): KeysAndValues {
  return { k: cut(k, span), v: cut(v, span) };
}

function cut(x: Tensor, { row, count }: RowSpan): Tensor {
  return x.rows(row, row + count);
}
