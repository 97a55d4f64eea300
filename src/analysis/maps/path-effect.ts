import { INSPECT } from "../../inspect.ts";
import type { Setting } from "../../patching/setting.ts";
import { number } from "./patch-map-result.ts";

/** What a {@link PathEffect} holds. */
export interface PathEffectFields {
  /** Of which model, in which dtypes, on which adapter. */
  readonly setting?: Setting;
  /** Sender and receivers, in words. */
  readonly from: string;
  readonly to: readonly string[];
  /** What passed nothing on between them. */
  readonly freeze: "all" | "attention";
  /** The metric with the path patched. */
  readonly value: number;
  /** The metric of both prompts without patches. */
  readonly clean: number;
  readonly corrupted: number;
  readonly direction: "denoising" | "noising";
  /** What was measured, in words. */
  readonly metric: string;
}

/** What patching a path does to a metric. Plain data, and text where it is printed. */
export class PathEffect implements PathEffectFields {
  declare readonly setting?: Setting;
  declare readonly from: string;
  declare readonly to: readonly string[];
  declare readonly freeze: "all" | "attention";
  declare readonly value: number;
  declare readonly clean: number;
  declare readonly corrupted: number;
  declare readonly direction: "denoising" | "noising";
  declare readonly metric: string;

  constructor(fields: PathEffectFields) {
    Object.assign(this, fields);
  }

  /**
   * How far the patch takes the metric from the patched prompt's own to that of the other one, as in a patch map: 0 to 1. Not
   * finite where the metric does not tell the prompts apart.
   */
  get effect(): number {
    const [from, to] =
      this.direction === "denoising" ? [this.corrupted, this.clean] : [this.clean, this.corrupted];
    return (this.value - from) / (to - from);
  }

  /** Path and effect, as text. */
  toString(): string {
    const { metric, clean, corrupted, from, to, value, effect, direction, freeze } = this;
    return [
      `${metric}: ${number(clean)} clean, ${number(corrupted)} corrupted`,
      `${from} → ${to.join("; ")} (${direction}${freeze === "attention" ? ", through MLPs" : ""}): ${number(value)}, effect ${(100 * effect).toFixed(1)} %`,
    ].join("\n");
  }

  [INSPECT](): string {
    return this.toString();
  }
}
