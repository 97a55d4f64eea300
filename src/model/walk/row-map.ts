/** Consecutive rows of an activation that hold consecutive positions of one sequence. */
export interface RowSpan {
  /** Index of the sequence within the batch. */
  readonly sequence: number;
  /** Position of the first row within the sequence; positions count from 0. */
  readonly position: number;
  /** Index of the first row within the activation. */
  readonly row: number;
  readonly count: number;
}

/**
 * Which sequence and position each row of an activation belongs to. Sequences of a batch lie one after the other
 * without padding; a pass may hold only some positions of each (one new token, the changed tail of a resumed run).
 */
export class RowMap {
  readonly spans: readonly RowSpan[];
  readonly #bySequence = new Map<number, RowSpan[]>();

  constructor(spans: readonly RowSpan[]) {
    this.spans = spans;
    for (const span of spans) {
      const others = this.#bySequence.get(span.sequence);
      if (others) others.push(span);
      else this.#bySequence.set(span.sequence, [span]);
    }
  }

  /** Sequences of these lengths one after the other, each from the given position on. */
  static packed(lengths: readonly number[], positions: readonly number[] = lengths.map(() => 0)): RowMap {
    let row = 0;
    return new RowMap(
      lengths.map((count, sequence) => {
        const span = { sequence, position: positions[sequence]!, row, count };
        row += count;
        return span;
      }),
    );
  }

  /** Number of rows. */
  get length(): number {
    return this.spans.reduce((sum, span) => sum + span.count, 0);
  }

  /** The spans of one sequence, by position. */
  of(sequence: number): readonly RowSpan[] {
    return this.#bySequence.get(sequence) ?? [];
  }

  /** The row of a sequence's position, or undefined when this pass does not compute it. */
  row(sequence: number, position: number): number | undefined {
    for (const span of this.of(sequence)) {
      if (position >= span.position && position < span.position + span.count) {
        return span.row + position - span.position;
      }
    }
    return undefined;
  }

  /** The row of the last position of each span. */
  lastRows(): number[] {
    return this.spans.map((span) => span.row + span.count - 1);
  }

  /** Sequence and position of every row, in row order. */
  *entries(): Generator<{ row: number; sequence: number; position: number }> {
    for (const { sequence, position, row, count } of this.spans) {
      for (let i = 0; i < count; i++) yield { row: row + i, sequence, position: position + i };
    }
  }
}
