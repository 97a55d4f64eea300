import type { Modality } from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { Scored } from "../framework/scored.ts";
import { patchAt, validationGrid } from "./layer-sweep.ts";
import { spread } from "./spread.ts";
import { vectorsOf } from "./task-vectors.ts";

export interface LayerPairsResult {
  readonly sources: readonly number[];
  readonly targets: readonly number[];
  /** `patched[source][target]` */
  readonly patched: readonly (readonly Scored[])[];
}

/** Accuracy on validation items, by the language model's layer that the text vector is from and the layer patched. */
export const layerPairs = defineCell(
  "layer-pairs",
  async (lab, { task, query }: { task: string; query: Modality }): Promise<LayerPairsResult> => {
    const vectors = await vectorsOf(lab, { source: "llm", task, specification: "text", seed: 0 });
    const sources = spread(vectors.length);
    const targets = spread(lab.layers);
    const grid = sources.map((source) => targets.map((target) => patchAt(lab, target, vectors[source]!)));
    const { patched } = await validationGrid(lab, task, query, grid);
    return { sources, targets, patched };
  },
);
