import { INSPECT } from "../../inspect.ts";
import type { Setting } from "../../patching/setting.ts";
import { foldedTable, shortToken } from "../text-table.ts";

/** A token that a cell of a lens names: its id, its text, and its probability from 0 to 1. */
export interface LensToken {
  readonly id: number;
  readonly text: string;
  readonly probability: number;
}

/** What one position of one layer reads as: the most probable tokens first. */
export interface LensCell {
  /** From 0. */
  readonly layer: number;
  /** In the expanded sequence, from 0. */
  readonly position: number;
  /** The most probable tokens, the most probable first. */
  readonly tokens: readonly LensToken[];
}

/** A list of lens cells, by layer and position, that prints as a table. */
export class LensCells extends Array<LensCell> {
  #tokens: readonly string[] = [];
  #setting: Setting | undefined;

  /** @param tokens texts of all tokens of the sequence that was read, by position */
  static over(tokens: readonly string[], setting?: Setting): LensCells {
    const cells = new LensCells();
    cells.#tokens = tokens;
    cells.#setting = setting;
    return cells;
  }

  /** Texts of the tokens that were read, by position: of an encoder-decoder those of its decoder. Empty where unknown. */
  get tokens(): readonly string[] {
    return this.#tokens;
  }

  /** Of which model, in which dtypes, on which adapter. */
  get setting(): Setting | undefined {
    return this.#setting;
  }

  /** What is mapped or filtered is a plain array. */
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }

  /**
   * As text, a line a layer: with one position its tokens, the most probable first; with several the most probable token of each
   * position, and below each other what does not fit on a line. Probabilities are in percent.
   */
  table(): string {
    const positions = [...new Set(Array.from(this, ({ position }) => position))];
    const layers = [...new Set(Array.from(this, ({ layer }) => layer))];
    const shown = ({ text, probability }: LensToken) =>
      `${shortToken(text, 12)} ${(100 * probability).toFixed(1)} %`;
    const named = (position: number) => {
      const token = this.#tokens[position];
      return token === undefined ? `${position}` : `${position} ${shortToken(token, 12)}`;
    };
    const head = positions.length > 1 ? positions.map(named) : [];
    const body = layers.map((layer) => {
      const cells = Array.from(this).filter((cell) => cell.layer === layer);
      const tokens = positions.length > 1 ? cells.map((cell) => cell.tokens.slice(0, 1)) : [cells[0]!.tokens];
      return [`${layer}`, ...tokens.flat().map(shown)];
    });
    return foldedTable([["layer", ...head], ...body]);
  }

  [INSPECT](): string {
    return this.table();
  }
}
