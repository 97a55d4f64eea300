import { aCount, aNumber, checkArgument } from "../../arguments.ts";
import { INSPECT } from "../../inspect.ts";
import { resolvePosition } from "../../model/prompt/prompt.ts";
import type { Setting } from "../../patching/setting.ts";
import { shortToken, textTable } from "../text-table.ts";

/** What a {@link HeadPattern} holds. */
export interface HeadPatternFields {
  /** Of which model, in which dtypes, on which adapter. */
  readonly setting?: Setting;
  /** The text of each token. */
  readonly tokens: readonly string[];
  readonly layer: number;
  /** Absent for the mean of all heads. */
  readonly head?: number;
  /** `[tokens, tokens]`: from the token of the row to that of the column. A row sums to 1; what it may not see is 0. */
  readonly weights: readonly (readonly number[])[];
}

/** A token that another looks at. */
export interface AttendedToken {
  readonly position: number;
  readonly token: string;
  readonly weight: number;
}

/** Tokens that a line of text shows. */
const SHOWN_TOKENS = 4;
/** Lines that text shows. */
const SHOWN_LINES = 40;

/** Where a head looks. Plain data, and text where it is printed. */
export class HeadPattern implements HeadPatternFields {
  declare readonly setting?: Setting;
  declare readonly tokens: readonly string[];
  declare readonly layer: number;
  declare readonly head?: number;
  declare readonly weights: readonly (readonly number[])[];

  constructor(fields: HeadPatternFields) {
    Object.assign(this, fields);
  }

  /** The tokens that the one at `position` (negative: from the end) looks at, the most first. Throws PromptError. */
  top(position: number, count: number = Number.POSITIVE_INFINITY): AttendedToken[] {
    checkArgument("top", "position", position, aNumber);
    checkArgument("top", "count", count, aCount);
    const row = this.weights[resolvePosition(position, this.tokens.length)]!;
    return row
      .map((weight, i) => ({ position: i, token: this.tokens[i]!, weight }))
      .sort((a, b) => b.weight - a.weight)
      .slice(0, count);
  }

  /** A line a token, with those that it looks at most, in percent; of a long prompt the last lines. */
  toString(): string {
    const length = this.tokens.length;
    const first = Math.max(0, length - SHOWN_LINES);
    const rows = this.tokens.slice(first).map((token, i) => {
      const looked = this.top(first + i, SHOWN_TOKENS).filter(({ weight }) => weight >= 0.0005);
      return [
        `${named(first + i, token)} →`,
        ...looked.map((to) => `${named(to.position, to.token)} ${(100 * to.weight).toFixed(1)} %`),
      ];
    });
    const whose = this.head === undefined ? "the mean of the heads" : `head ${this.head}`;
    const part = first > 0 ? `, the last ${SHOWN_LINES} of ${length}` : "";
    return `layer ${this.layer}, ${whose}: what each token looks at most${part}\n${textTable(rows)}`;
  }

  [INSPECT](): string {
    return this.toString();
  }
}

function named(position: number, token: string): string {
  return `${position} ${shortToken(token, 12)}`;
}
