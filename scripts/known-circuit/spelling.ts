import { STEMS } from "./facts.ts";

/** Coordinates of the residual stream with factors: a direction to read along. */
export type Direction = readonly (readonly [coordinate: number, factor: number])[];

/** Words in the residual stream, each by its parts: a stem and an ending, or the word as a whole. */
export class Spelt {
  /** The coordinates of the parts. */
  readonly all: readonly number[];
  readonly words: readonly string[];
  readonly #parts: readonly string[];

  constructor(words: readonly string[], parts: readonly string[], take: (count: number) => number[]) {
    this.words = words;
    this.#parts = parts;
    this.all = take(parts.length);
  }

  partsOf(word: string): number[] {
    const at = (part: string) => this.#parts.indexOf(part);
    const whole = at(word);
    if (whole >= 0) return [this.all[whole]!];
    const stem = STEMS.find((one) => word.startsWith(one)) ?? "";
    return [stem, word.slice(stem.length)].map((part) => this.all[at(part)]!);
  }

  /** Reads 1 times `factor` of the word, half of it of one that shares a part. */
  whole(word: string, factor = 1): Direction {
    const parts = this.partsOf(word);
    return parts.map((coordinate) => [coordinate, factor / parts.length]);
  }

  /** Reads 1 of any word. */
  get any(): Direction {
    return [...new Set(this.words.map((word) => this.partsOf(word)[0]!))].map((coordinate) => [
      coordinate,
      1,
    ]);
  }
}
