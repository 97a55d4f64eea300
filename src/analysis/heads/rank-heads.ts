import { checkOptions } from "../../arguments.ts";
import { ArgumentError } from "../../errors.ts";
import { INSPECT } from "../../inspect.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { PATCH_MAP_OPTIONS, type PatchMapOptions, patchMap } from "../maps/patch-map.ts";
import { number, type PatchMap } from "../maps/patch-map-result.ts";
import { checkPair } from "../maps/patch-pairs.ts";
import { textTable } from "../text-table.ts";

/** A head with what patching it does to the metric. */
export interface RankedHead {
  readonly layer: number;
  readonly head: number;
  /** The metric with this head patched, or its estimate. */
  readonly value: number;
  /** Of the way from the patched prompt's metric to the other's, 0 to 1; see `PatchMap.effects`. */
  readonly effect: number;
}

/** Heads that text shows. */
const SHOWN = 20;

/** The heads of a model by what patching each does. */
export class HeadRanking {
  /** The strongest effect first, whether it is for or against. */
  readonly heads: readonly RankedHead[];
  /** The same as a map, a row a layer. */
  readonly map: PatchMap;

  /** Of a map by head. Throws ArgumentError for one by position. */
  constructor(map: PatchMap) {
    if (map.columns.some((column) => !("head" in column))) {
      throw new ArgumentError("HeadRanking: expected a map by head (heads: true), found one by position");
    }
    this.map = map;
    this.heads = map.top().map((cell) => ({
      layer: cell.layer!,
      head: "head" in cell ? cell.head : 0,
      value: cell.value,
      effect: cell.effect,
    }));
  }

  /** The heads, the strongest effect first. */
  [Symbol.iterator](): IterableIterator<RankedHead> {
    return this.heads[Symbol.iterator]();
  }

  /** The first of them, with their effects in percent. */
  toString(): string {
    const { metric, clean, corrupted, estimated } = this.map;
    const rows = this.heads
      .slice(0, SHOWN)
      .map(({ layer, head, value, effect }) => [
        `${layer}.${head}`,
        `${number(value)}`,
        `${(100 * effect).toFixed(1)} %`,
      ]);
    const more = this.heads.length > SHOWN ? `\nand ${this.heads.length - SHOWN} more` : "";
    return (
      `${metric}: ${number(clean)} clean, ${number(corrupted)} corrupted${estimated && `; effects ${estimated}`}\n` +
      textTable([["layer.head", "patched", "effect"], ...rows]) +
      more
    );
  }

  [INSPECT](): string {
    return this.toString();
  }
}

/**
 * Ranks heads by patching each by itself, at all positions at which the prompts may differ: a `patchMap` over `z.*` (or
 * another site that has heads) by head. Throws like `patchMap`.
 *
 * @example console.log(await rankHeads(model, clean, corrupted));
 */
export async function rankHeads(
  model: LanguageModel,
  clean: Prompt,
  corrupted: Prompt,
  options: Omit<PatchMapOptions, "heads"> = {},
): Promise<HeadRanking> {
  checkPair("rankHeads", model, clean, corrupted);
  const { heads: _, ...known } = PATCH_MAP_OPTIONS;
  checkOptions("rankHeads", options, known);
  return new HeadRanking(await patchMap(model, clean, corrupted, { ...options, heads: true }));
}
