import { INSPECT } from "../../inspect.ts";
import type { Setting } from "../../patching/setting.ts";
import { textTable } from "../text-table.ts";
import { number } from "./patch-map-result.ts";

/** What cutting attention around one layer does. */
export interface KnockoutLayer {
  readonly layer: number;
  /** The layers that were cut, both counted in. */
  readonly cut: { readonly first: number; readonly last: number };
  /** The metric. */
  readonly value: number;
  /** What it is more than without a cut. */
  readonly change: number;
}

/** What a {@link KnockoutSweep} holds. */
export interface KnockoutSweepFields {
  /** Of which model, in which dtypes, on which adapter. */
  readonly setting?: Setting;
  /** Which tokens did not attend to which, in words. */
  readonly from: string;
  readonly to: string;
  /** Layers that were cut at once. */
  readonly window: number;
  /** What was measured, in words, and its value without a cut. */
  readonly metric: string;
  readonly value: number;
  readonly layers: readonly KnockoutLayer[];
}

/** What cutting attention does to a metric, layer by layer. Plain data, and text where it is printed. */
export class KnockoutSweep implements KnockoutSweepFields {
  declare readonly setting?: Setting;
  declare readonly from: string;
  declare readonly to: string;
  declare readonly window: number;
  declare readonly metric: string;
  declare readonly value: number;
  declare readonly layers: readonly KnockoutLayer[];

  constructor(fields: KnockoutSweepFields) {
    Object.assign(this, fields);
  }

  /** The metric without a cut, and layer by layer, as a table. */
  toString(): string {
    const { metric, value, from, to, window, layers } = this;
    const rows = layers.map(({ layer, cut: { first, last }, value, change }) => [
      `${layer}`,
      first === last ? `${first}` : `${first} to ${last}`,
      number(value),
      `${change > 0 ? "+" : ""}${number(change)}`,
    ]);
    return [
      `${metric}: ${number(value)} without a knockout`,
      `attention from ${from} to ${to} cut in ${window} ${window === 1 ? "layer" : "layers"} at once`,
      textTable([["layer", "cut", "value", "change"], ...rows]),
    ].join("\n");
  }

  [INSPECT](): string {
    return this.toString();
  }
}
