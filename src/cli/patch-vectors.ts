import { chooseLayer } from "../patching/layer-choice.ts";
import type { PatchableModel } from "../patching/model.ts";
import {
  askerIn,
  itemsIn,
  type Modality,
  type TaskSourceOptions,
  taskSource,
} from "../patching/specification.ts";
import type { Split, Task } from "../patching/task.ts";
import type { TaskVectors } from "../patching/task-vectors.ts";
import { XpatchError } from "../tensor/errors.ts";
import { extractVectors } from "./extraction.ts";
import { withProgress } from "./output.ts";
import { type VectorFile, vectorsOf } from "./vector-files.ts";

/** Prompts that a task's vectors come from, and validation items that a layer is chosen by. */
const EXTRACTION_ITEMS = 16;
const SWEEP_ITEMS = 24;

/** Where the vector of a patch comes from. */
export type PatchSource =
  | { readonly kind: "file"; readonly file: VectorFile }
  | { readonly kind: "task"; readonly task: Task; readonly split: Split; readonly given: TaskSourceOptions };

/** Who chose the layer: an argument, the checkpoint's config, or a sweep over validation items. */
export type LayerOrigin =
  | { readonly by: "argument" }
  | { readonly by: "model" }
  | { readonly by: "validation"; readonly query: Modality; readonly correct: number; readonly total: number };

export interface ChosenVectors {
  readonly vectors: TaskVectors;
  readonly layer: number;
  readonly layerOrigin: LayerOrigin;
}

/** Vectors and the layer to patch: the one asked for, else the model's own, else the best on questions like `query`. */
export async function vectorsFor(
  model: PatchableModel,
  source: PatchSource,
  asked: number | undefined,
  query: Modality,
): Promise<ChosenVectors> {
  const layer = asked ?? model.config.taskVectorLayer;
  const layerOrigin: LayerOrigin = asked === undefined ? { by: "model" } : { by: "argument" };
  if (source.kind === "file") {
    if (layer === undefined) {
      throw new XpatchError(`expected --layer, since ${model.name} names no layer for task vectors`);
    }
    return { vectors: await vectorsOf(source.file, model.device), layer, layerOrigin };
  }
  const { task, split, given } = source;
  const prompts = await taskSource(model, task, split, { ...given, items: EXTRACTION_ITEMS });
  const vectors = await extractVectors(model, prompts, { layers: layer === undefined ? undefined : [layer] });
  if (layer !== undefined) return { vectors, layer, layerOrigin };
  const items = itemsIn(query, task, "validation").slice(0, SWEEP_ITEMS);
  const byItem = await askerIn(query, model, items);
  const { best, layers } = await withProgress("choosing a layer", (onProgress) =>
    chooseLayer(model, items, byItem, vectors, { template: given.template, onProgress }),
  );
  const { correct, total } = layers.find((scored) => scored.layer === best)!;
  return { vectors, layer: best, layerOrigin: { by: "validation", query, correct, total } };
}

export function showLayerOrigin(origin: LayerOrigin): string {
  if (origin.by === "argument") return "as asked";
  if (origin.by === "model") return "named by the model";
  const { query, correct, total } = origin;
  return `best of a sweep over ${total} validation items by ${query}: ${correct}/${total}`;
}
