import { checkLayers } from "../../analysis/layers.ts";
import { chooseLayer } from "../../analysis/vectors/layer-choice.ts";
import type { StoredTaskVectors, TaskVectors } from "../../analysis/vectors/task-vectors.ts";
import { XpatchError } from "../../errors.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import { stackOfVectors, type VectorSite } from "../../model/walk/sites.ts";
import type { PatchableModel } from "../../patching/model.ts";
import {
  askerIn,
  itemsIn,
  type Modality,
  type TaskSourceOptions,
  taskSource,
  type VectorSource,
} from "../../tasks/specification.ts";
import type { Split, Task } from "../../tasks/task.ts";
import { checkWidth } from "../options/checks.ts";
import { withProgress } from "../terminal/progress.ts";
import { extractVectors } from "./extraction.ts";

/** Prompts that a task's vectors come from, and validation items that a layer is chosen by. */
const EXTRACTION_ITEMS = 16;
const SWEEP_ITEMS = 24;

/** Where the vector of a patch comes from. */
export type PatchSource =
  | { readonly kind: "file"; readonly file: StoredTaskVectors }
  | {
      readonly kind: "task";
      readonly task: Task;
      readonly split: Split;
      readonly given: TaskSourceOptions;
      readonly site: VectorSite;
    };

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

/** A source whose prompts have been made, and the layer as far as it is known without running the model. */
export type PreparedSource =
  | { readonly kind: "file"; readonly file: StoredTaskVectors; readonly layer: number }
  | {
      readonly kind: "task";
      readonly task: Task;
      readonly template: string | undefined;
      readonly prompts: VectorSource;
      readonly site: VectorSite;
      readonly layer: number | undefined;
    };

/** Where its vectors are of, and go. */
export function siteOf(source: PatchSource): VectorSite {
  return source.kind === "file" ? source.file.origin.site : source.site;
}

/** Throws XpatchError where there is no vector for the layer, or nothing to choose a layer by. */
export async function prepareSource(
  model: ModelOutline,
  source: PatchSource,
  asked: number | undefined,
  query: Modality,
): Promise<PreparedSource> {
  const site = siteOf(source);
  if (asked !== undefined) checkLayers(model, [asked], "--layer", site);
  // The one that a model names is the decoder's.
  const layer = asked ?? (stackOfVectors(site) === "text" ? model.config.taskVectorLayer : undefined);
  if (source.kind === "task") {
    const { task, split, given } = source;
    if (layer === undefined) itemsIn(query, task, "validation");
    const prompts = await taskSource(model, task, split, { ...given, items: EXTRACTION_ITEMS });
    return { kind: "task", task, template: given.template, prompts, site, layer };
  }
  const { file } = source;
  if (layer === undefined) {
    throw new XpatchError(`expected --layer, since ${model.name} names no layer for task vectors`);
  }
  file.at(layer);
  checkWidth(model, `${site}.${layer}`, file);
  return { kind: "file", file, layer };
}

/** Vectors and the layer to patch: the one asked for, else the model's own, else the best on questions like `query`. */
export async function vectorsFor(
  model: PatchableModel,
  source: PreparedSource,
  asked: number | undefined,
  query: Modality,
): Promise<ChosenVectors> {
  const { layer } = source;
  const layerOrigin: LayerOrigin = asked === undefined ? { by: "model" } : { by: "argument" };
  if (source.kind === "file") {
    return { vectors: source.file.on(model.device), layer: source.layer, layerOrigin };
  }
  const { task, template, prompts, site } = source;
  const layers = layer === undefined ? undefined : [layer];
  const vectors = await extractVectors(model, prompts, { site, layers });
  if (layer !== undefined) return { vectors, layer, layerOrigin };
  const items = itemsIn(query, task, "validation").slice(0, SWEEP_ITEMS);
  const byItem = await askerIn(query, model, items);
  const { best, layers: tried } = await withProgress("choosing a layer", (onProgress) =>
    chooseLayer(model, items, byItem, vectors, { template, onProgress }),
  );
  const { correct, total } = tried.find((scored) => scored.layer === best)!;
  return { vectors, layer: best, layerOrigin: { by: "validation", query, correct, total } };
}

export function showLayerOrigin(origin: LayerOrigin): string {
  if (origin.by === "argument") return "as asked";
  if (origin.by === "model") return "named by the model";
  const { query, correct, total } = origin;
  return `best of a sweep over ${total} validation items by ${query}: ${correct}/${total}`;
}
