import type { SiteName } from "../model/walk/sites.ts";
import { INSPECT, shortToken, textTable } from "./text-table.ts";

/** A column of a patch map: a position of the patched prompt, or a head. */
export type PatchColumn = { readonly position: number; readonly token: string } | { readonly head: number };

/** One patch and what it did. */
export type PatchCell = PatchColumn & {
  readonly site: SiteName;
  /** Absent for `embed`. */
  readonly layer?: number;
  /** The metric under the patch. */
  readonly value: number;
  /** See {@link PatchMap.effects}. */
  readonly effect: number;
};

interface PatchMapFields {
  readonly rows: readonly SiteName[];
  readonly columns: readonly PatchColumn[];
  /** The metric by row and column. */
  readonly values: readonly (readonly number[])[];
  /** The metric of both prompts without patches. */
  readonly clean: number;
  readonly corrupted: number;
  readonly direction: "denoising" | "noising";
  /** What was measured, in words. */
  readonly metric: string;
  /** Rows times layers that were computed, and those that full passes would have taken. */
  readonly rowLayers: number;
  readonly plainRowLayers: number;
}

/** What single patches do to a metric. Plain data, and text where it is printed. */
export class PatchMap implements PatchMapFields {
  declare readonly rows: readonly SiteName[];
  declare readonly columns: readonly PatchColumn[];
  declare readonly values: readonly (readonly number[])[];
  declare readonly clean: number;
  declare readonly corrupted: number;
  declare readonly direction: "denoising" | "noising";
  declare readonly metric: string;
  declare readonly rowLayers: number;
  declare readonly plainRowLayers: number;

  constructor(fields: PatchMapFields) {
    Object.assign(this, fields);
  }

  /**
   * How far each patch takes the metric from the patched prompt's own to that of the other one: 0 where it does nothing, 1 where
   * it does as much as all of the other prompt. By row and column; NaN where the metric does not tell the prompts apart.
   */
  get effects(): readonly (readonly number[])[] {
    const [from, to] =
      this.direction === "denoising" ? [this.corrupted, this.clean] : [this.clean, this.corrupted];
    return this.values.map((row) => row.map((value) => (value - from) / (to - from)));
  }

  /** Single patches, the strongest effect first, whether it is for or against. */
  top(count: number = Number.POSITIVE_INFINITY): PatchCell[] {
    const { effects } = this;
    const cells = this.rows.flatMap((site, r) => {
      const layer = /\.(\d+)$/.exec(site)?.[1];
      return this.columns.map((column, c) => ({
        site,
        ...(layer !== undefined && { layer: Number(layer) }),
        ...column,
        value: this.values[r]![c]!,
        effect: effects[r]![c]!,
      }));
    });
    return cells.sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect)).slice(0, count);
  }

  /** The map in percent of the effect of the whole other prompt. */
  toString(): string {
    const heads = this.columns.map((column) =>
      "position" in column ? `${column.position}` : `head ${column.head}`,
    );
    const tokens = this.columns.map((column) => ("token" in column ? shortToken(column.token, 6) : ""));
    const body = this.effects.map((row, r) => [this.rows[r]!, ...row.map(percent)]);
    const [from, into] = this.direction === "denoising" ? ["clean", "corrupted"] : ["corrupted", "clean"];
    return [
      `${this.metric}: ${number(this.clean)} clean, ${number(this.corrupted)} corrupted`,
      `effect in % of ${from} activations in the ${into} prompt (${this.direction})`,
      textTable([["", ...heads], ...(tokens.some(Boolean) ? [["", ...tokens]] : []), ...body]),
    ].join("\n");
  }

  [INSPECT](): string {
    return this.toString();
  }
}

function percent(effect: number): string {
  const rounded = Math.round(100 * effect);
  return Number.isFinite(rounded) ? `${rounded || 0}` : `${effect}`;
}

/** Four significant digits. */
export function number(value: number): string {
  return `${Number(value.toPrecision(4))}`;
}
