import type { Tensor } from "../../tensor/tensor.ts";
import type { KeysToUse } from "./key-value-store.ts";
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
  readonly #own: RowSpan;
  readonly #prefix: RowSpan | undefined;

  /** Where its rows lie in the activations of the pass, and its keys in those of the key store. */
  constructor(row: RowSpan, own: RowSpan, prefix: RowSpan | undefined) {
    this.#row = row;
    this.#own = own;
    this.#prefix = prefix;
    this.rows = new RowMap([{ ...row, row: 0 }]);
    this.own = new RowMap([{ ...own, row: 0 }]);
    this.prefix = new RowMap(prefix ? [{ ...prefix, row: 0 }] : []);
  }

  /** Columns of a materialised pattern: the rows of the prefix, then the own rows. */
  get columns(): RowMap {
    const own = { ...this.#own, row: this.prefix.length };
    return new RowMap([...this.prefix.spans, own]);
  }

  /** Of an activation of the whole pass. */
  rowsOf(x: Tensor): Tensor {
    return cut(x, this.#row);
  }

  /** Of what the key store gave. */
  keysOf({ k, v, prefix }: KeysToUse): KeysToUse {
    const own = { k: cut(k, this.#own), v: cut(v, this.#own) };
    const span = this.#prefix;
    return prefix && span ? { ...own, prefix: { k: cut(prefix.k, span), v: cut(prefix.v, span) } } : own;
  }
}

function cut(x: Tensor, { row, count }: RowSpan): Tensor {
  return x.rows(row, row + count);
}
