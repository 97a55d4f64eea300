import { concat } from "../kernels/movement/concat.ts";
import { contiguous, copy } from "../kernels/movement/copy.ts";
import { gatherRows } from "../kernels/movement/gather.ts";
import type { RowMap } from "../model/walk/row-map.ts";
import type { SiteEvent } from "../model/walk/site-events.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Target } from "./site-targets.ts";

/** How a result is handed over. */
interface TapForm {
  /** One prompt was given, not a list. */
  readonly single: boolean;
  /** One position was named, so its dimension goes. */
  readonly onePosition: boolean;
  /** One head was named, so its dimension goes. */
  readonly oneHead: boolean;
}

/** Collects the copies that a tap asks for. */
export class TapResult {
  /** What it collects: the activation, or a gradient with respect to it. */
  readonly kind: "tap" | "gradient";
  readonly target: Target;
  readonly #form: TapForm;
  /** Rows of all sequences in one tensor, for sites whose rows are tokens. */
  #rows: Tensor | undefined;
  /** A tensor a sequence, where they do not come in one. */
  readonly #bySequence = new Map<number, Tensor>();

  constructor(kind: "tap" | "gradient", target: Target, form: TapForm) {
    this.kind = kind;
    this.target = target;
    this.#form = form;
  }

  /** Copies what an event holds of the positions in question. */
  take(event: SiteEvent): void {
    if (event.layout === "attention") this.#takeAttention(event);
    else this.#takeRows(event);
  }

  #takeRows(event: SiteEvent): void {
    const { positions } = this.target;
    const all = rowsOf(positions.keys(), positions, event.rows);
    if (all) {
      this.#rows = this.#copyRows(event, all);
      return;
    }
    // Part of a resumed batch; the other sequences come by in events of their own.
    for (const sequence of positions.keys()) {
      const rows = rowsOf([sequence], positions, event.rows);
      if (rows) this.#bySequence.set(sequence, this.#copyRows(event, rows));
    }
  }

  /** Number of positions that have not come by. */
  missing(): number {
    let count = 0;
    for (const [sequence, positions] of this.target.positions) {
      if (!this.#rows && !this.#bySequence.has(sequence)) count += positions.length;
    }
    return count;
  }

  /** The tapped value in the form that `Tap` promises. */
  value(): Tensor | Tensor[] {
    const { single, onePosition } = this.#form;
    const bySequence = this.#rows ? this.#split(this.#rows) : this.#inOrder();
    if (single) return this.#squeeze(bySequence[0]!);
    if (onePosition && this.target.layout === "rows") return this.#rows ?? concat(bySequence); // [prompts, features]
    return bySequence.map((t) => this.#squeeze(t));
  }

  #copyRows({ value }: SiteEvent, rows: readonly number[]): Tensor {
    const { features } = this.target;
    // Views go at once, or they would keep the whole value in memory.
    return value.device.scope(() => {
      const part = features ? value.slice(1, features.start, features.end) : value;
      const first = rows[0]!;
      if (rows.every((row, i) => row === first + i)) return copy(part.rows(first, first + rows.length));
      return gatherRows(part, value.device.tensor(Uint32Array.from(rows), { dtype: "u32" }));
    });
  }

  /** value: [heads, rows, keys] → [heads, positions, keys of the sequence], the keys by position. */
  #takeAttention({ rows, keys, value }: SiteEvent): void {
    for (const [sequence, positions] of this.target.positions) {
      const wanted = positions.map((position) => rows.row(sequence, position));
      if (wanted.includes(undefined)) continue;
      const taken = value.device.scope(() => {
        const heads = value.slice(0, this.target.heads[0]!, this.target.heads.at(-1)! + 1);
        const columns = keys!.of(sequence).map((span) => heads.slice(2, span.row, span.row + span.count));
        const ofSequence = columns.length === 1 ? columns[0]! : concat(columns, 2);
        const picked = wanted.map((row) => ofSequence.slice(1, row!, row! + 1));
        return picked.length === 1 ? copy(picked[0]!) : concat(picked, 1);
      });
      this.#bySequence.set(sequence, taken);
    }
  }

  #split(rows: Tensor): Tensor[] {
    let row = 0;
    return [...this.target.positions.values()].map(({ length }) => {
      row += length;
      return rows.rows(row - length, row);
    });
  }

  #inOrder(): Tensor[] {
    return [...this.target.positions.keys()].map((sequence) => this.#bySequence.get(sequence)!);
  }

  #squeeze(t: Tensor): Tensor {
    const { onePosition, oneHead } = this.#form;
    if (t.rank === 2) return onePosition ? t.at(0) : t;
    const [heads, positions, keys] = t.shape as [number, number, number];
    const shape = [...(oneHead ? [] : [heads]), ...(onePosition ? [] : [positions]), keys];
    return contiguous(t).reshape(shape);
  }
}

/** The rows of all positions of these sequences, or undefined when one of them is not among them. */
function rowsOf(
  sequences: Iterable<number>,
  positions: Target["positions"],
  rows: RowMap,
): number[] | undefined {
  const found: number[] = [];
  for (const sequence of sequences) {
    for (const position of positions.get(sequence)!) {
      const row = rows.row(sequence, position);
      if (row === undefined) return undefined;
      found.push(row);
    }
  }
  return found;
}
