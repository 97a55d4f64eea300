import type { Modality } from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { Scored } from "../framework/scored.ts";
import { patchAt, validationGrid } from "./layer-sweep.ts";
import { vectorsOf } from "./task-vectors.ts";

/** Most layers on a side: the patches are as many as its square. */
const MOST_LAYERS = 12;

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
    const targets = spread(lab.model.config.layers);
    const grid = sources.map((source) => targets.map((target) => patchAt(target, vectors[source]!)));
    const { patched } = await validationGrid(lab, task, query, grid);
    return { sources, targets, patched };
  },
);

/** All layers, or of a deep model so many at even distances, with the first and the last. */
export function spread(layers: number): number[] {
  const count = Math.min(layers, MOST_LAYERS);
  return Array.from({ length: count }, (_, i) => Math.round((i * (layers - 1)) / Math.max(1, count - 1)));
}
