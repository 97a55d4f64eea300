import { aCount, checkArgument } from "../../arguments.ts";
import { INSPECT } from "../../inspect.ts";
import type { SiteName } from "../../model/walk/sites.ts";
import type { Setting } from "../../patching/setting.ts";
import { shortToken, textTable } from "../text-table.ts";

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

/**
 * How a map came about: `exact`, a run for each cell; or an estimate to first order, by the gradient at the patched prompt
 * (`attribution`) or by its mean on the way to the other one (`integrated gradients`).
 */
export type PatchMethod = "exact" | "attribution" | "integrated gradients";

/** What a {@link PatchMap} holds. */
export interface PatchMapFields {
  /** Of which model, in which dtypes, on which adapter. */
  readonly setting?: Setting;
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
  /** Default `exact`. */
  readonly method?: PatchMethod;
  /** Of integrated gradients: the points over which the gradient was averaged. */
  readonly steps?: number;
  /** Rows times layers that were computed, and those that full passes would have taken. */
  readonly rowLayers: number;
  readonly plainRowLayers: number;
}

/** Columns that text shows. */
const SHOWN_COLUMNS = 16;

/** What single patches do to a metric, or are estimated to do. Plain data, and text where it is printed. */
export class PatchMap implements PatchMapFields {
  declare readonly setting?: Setting;
  declare readonly rows: readonly SiteName[];
  declare readonly columns: readonly PatchColumn[];
  declare readonly values: readonly (readonly number[])[];
  declare readonly clean: number;
  declare readonly corrupted: number;
  declare readonly direction: "denoising" | "noising";
  declare readonly metric: string;
  readonly method: PatchMethod = "exact";
  declare readonly steps?: number;
  declare readonly rowLayers: number;
  declare readonly plainRowLayers: number;

  constructor(fields: PatchMapFields) {
    Object.assign(this, fields);
  }

  /** How its effects were estimated, in words; empty where they are exact. */
  get estimated(): string {
    if (this.method === "exact") return "";
    const { steps } = this;
    const how = this.method === "attribution" ? "attribution patching" : this.method;
    return `estimated by ${how}${steps === undefined ? "" : ` in ${steps} ${steps === 1 ? "step" : "steps"}`}`;
  }

  /** The metric of the patched prompt without a patch, and that of the other. */
  get #ends(): [from: number, to: number] {
    return this.direction === "denoising" ? [this.corrupted, this.clean] : [this.clean, this.corrupted];
  }

  /**
   * How far each patch takes the metric from the patched prompt's own to that of the other one: 0 where it does nothing, 1 where
   * it does as much as all of the other prompt. By row and column; not finite where the metric does not tell the prompts apart.
   */
  get effects(): readonly (readonly number[])[] {
    const [from, to] = this.#ends;
    return this.values.map((row) => row.map((value) => (value - from) / (to - from)));
  }

  /** Single patches, those first that move the metric most, whether towards the other prompt or away. */
  top(count: number = Number.POSITIVE_INFINITY): PatchCell[] {
    checkArgument("top", "count", count, aCount);
    const { effects } = this;
    const [from] = this.#ends;
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
    return cells.sort((a, b) => Math.abs(b.value - from) - Math.abs(a.value - from)).slice(0, count);
  }

  /** The map in percent of the effect of the whole other prompt; of many columns those with the largest effects. */
  toString(): string {
    const { effects, columns } = this;
    const largest = columns.map((_, c) => Math.max(...effects.map((row) => Math.abs(row[c]!))));
    const byEffect = [...columns.keys()].sort((a, b) => largest[b]! - largest[a]!);
    const shown = byEffect.slice(0, SHOWN_COLUMNS).sort((a, b) => a - b);
    const head = shown.map((c) => {
      const column = columns[c]!;
      return "position" in column ? `${column.position}` : `head ${column.head}`;
    });
    const tokens = shown.map((c) => {
      const column = columns[c]!;
      return "token" in column ? [shortToken(column.token, 6)] : [];
    });
    const body = effects.map((row, r) => [this.rows[r]!, ...shown.map((c) => percent(row[c]!))]);
    const [from, into] = this.direction === "denoising" ? ["clean", "corrupted"] : ["corrupted", "clean"];
    const hidden = byEffect.slice(SHOWN_COLUMNS);
    return [
      `${this.metric}: ${number(this.clean)} clean, ${number(this.corrupted)} corrupted`,
      `effect in % of ${from} activations in the ${into} prompt (${this.direction})${this.estimated && `, ${this.estimated}`}`,
      textTable([["", ...head], ...(tokens[0]!.length > 0 ? [["", ...tokens.flat()]] : []), ...body]),
      ...(hidden.length > 0
        ? [`and ${hidden.length} more columns, with effects of at most ${percent(largest[hidden[0]!]!)} %`]
        : []),
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
