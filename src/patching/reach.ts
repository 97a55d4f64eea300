import { imageRowCount, type VisionSetup } from "../model/checkpoint/config/vision-setup.ts";
import type { LanguageModel } from "../model/language-model.ts";
import { placesByImage } from "../model/prompt/image-places.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { picturesOf } from "../model/prompt/prompt-image.ts";
import type { KeyRange } from "../model/walk/masks.ts";
import type { Target } from "./site-targets.ts";

/** What a patched run has to compute anew. */
export interface Reach {
  /** First layer to run; the number of layers means the head alone. */
  readonly layer: number;
  /** First position whose rows may differ from the unpatched run. */
  readonly position: number;
  /** Whether the vision side changes, so that images have to be computed anew. */
  readonly vision: boolean;
  /** Whether an encoder changes, so that it has to read the prompt anew. */
  readonly encoder: boolean;
  /** Whether what cross-attention reads changes, or its keys and values, so that these have to be computed anew. */
  readonly context: boolean;
}

/**
 * The earliest layer and position that edits of one prompt can change. Below that layer, and before that position,
 * every activation is what it was: layers read only the layer before, and a query reads only the positions that the
 * model's attention rule lets it see. What changes in an image enters with its first token where it takes places in the
 * embedding, and with the first token that sees it in the layers that have cross-attention; what changes in an encoder like the
 * latter.
 *
 * @param firstImage number in the batch of the prompt's first image
 */
export function reachOf(
  model: LanguageModel,
  prompt: Prompt,
  targets: readonly Target[],
  firstImage: number,
): Reach {
  const { layers } = model.config;
  let layer = layers;
  let position = prompt.length - 1;
  for (const { info, positions } of targets) {
    if (info.sequences === "images") {
      // Keys and values of a cross-attention are of one layer; what lies before them is read by all.
      const from = info.stack === "text" ? info.order : 0;
      if (info.stack === "text") layer = Math.min(layer, info.order); // where it has to fire
      for (const image of positions.keys()) {
        // An encoder hands what changes in a picture on to all that it reads.
        const ways = model.config.encoder
          ? waysAcross(model, prompt, from, { start: 0, end: prompt.source!.length })
          : waysIn(model, prompt, image - firstImage, from);
        layer = Math.min(layer, ...ways.map((way) => way.layer));
        position = Math.min(position, ...ways.map((way) => way.position));
      }
      continue;
    }
    if (info.sequences === "sources") {
      const from = info.stack === "text" ? info.order : 0;
      if (info.stack === "text") layer = Math.min(layer, info.order);
      for (const way of waysAcross(model, prompt, from, { start: 0, end: prompt.source!.length })) {
        layer = Math.min(layer, way.layer);
        position = Math.min(position, way.position);
      }
      continue;
    }
    // An edit of a layer's output leaves that layer alone: the run starts from the edited output.
    const first = info.site === "embed" ? 0 : info.site === "resid_post" ? info.order + 1 : info.order;
    layer = Math.min(layer, first);
    for (const list of positions.values()) position = Math.min(position, ...list);
  }
  const ofImages = targets.filter(({ info }) => info.sequences === "images");
  const vision = ofImages.some(({ info }) => info.stack !== "text");
  const ofSources = targets.filter(({ info }) => info.sequences === "sources");
  const encoder = ofSources.some(({ info }) => info.stack !== "text");
  const context = ofImages.length + ofSources.length > 0 && model.network.context !== undefined;
  return { layer, position: earliestReached(model, prompt, layer, position), vision, encoder, context };
}

/** A layer in which something enters the language model, with the first position that reads it there. */
interface WayIn {
  readonly layer: number;
  readonly position: number;
}

/** Where an image enters the language model, from a layer on: the first position in each layer that reads it. */
function waysIn(model: LanguageModel, prompt: Prompt, image: number, from: number): WayIn[] {
  const setup = model.config.vision!;
  const ways: WayIn[] = [];
  if (from === 0 && setup.embeds !== false) {
    ways.push({ layer: 0, position: Math.min(...placesByImage(prompt, setup)[image]!) });
  }
  for (const [layer, { takesPictures }] of model.network.stack.blocks.entries()) {
    if (!takesPictures || layer < from) continue;
    ways.push({ layer, position: Math.min(...placesByImage(prompt, setup)[image]!) });
  }
  const ranges = contextRows(prompt, image, setup);
  return [...ways, ...ranges.flatMap((rows) => waysAcross(model, prompt, from, rows))];
}

/** Where an image's rows lie among those that cross-attention reads. */
export function contextRows(prompt: Prompt, image: number, setup: VisionSetup): readonly KeyRange[] {
  const layouts = picturesOf(prompt).map((picture) => setup.layout(picture));
  if (setup.contextRows) return setup.contextRows(layouts)[image]!;
  const [start, end] = [image, image + 1].map((end) =>
    layouts.slice(0, end).reduce((sum, layout) => sum + imageRowCount(layout, "latents"), 0),
  );
  return [{ start: start!, end: end! }];
}

/** Where some rows of what cross-attention reads enter the language model, from a layer on. */
function waysAcross({ network }: LanguageModel, prompt: Prompt, from: number, rows: KeyRange): WayIn[] {
  const ways: WayIn[] = [];
  for (const [layer, { crossRule }] of network.stack.blocks.entries()) {
    if (!crossRule || layer < from) continue;
    const sees = (position: number) => {
      const { start, end } = crossRule(position, { prompt });
      return start < end && start < rows.end && end > rows.start;
    };
    const position = Array.from({ length: prompt.length }, (_, i) => i).find(sees);
    if (position !== undefined) ways.push({ layer, position });
  }
  return ways;
}

/**
 * The first position that a change at `position` can reach through the attention of `layer` and later ones. With causal
 * masks that is the position itself; masks that look ahead hand a change back to earlier queries, again and again.
 */
function earliestReached(model: LanguageModel, prompt: Prompt, layer: number, position: number): number {
  let earliest = position;
  for (let index = layer; index < model.config.layers; index++) {
    const rule = model.network.stack.rule(index);
    for (let query = 0; query < earliest; query++) {
      const { start, end } = rule(query, { prompt });
      if (start < prompt.length && end > earliest) {
        earliest = query;
        break;
      }
    }
  }
  return earliest;
}
