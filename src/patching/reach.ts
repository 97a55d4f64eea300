import type { LanguageModel } from "../model/language-model.ts";
import { placesByImage } from "../model/prompt/image-places.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import type { Target } from "./site-targets.ts";

/** What a patched run has to compute anew. */
export interface Reach {
  /** First layer to run; the number of layers means the head alone. */
  readonly layer: number;
  /** First position whose rows may differ from the unpatched run. */
  readonly position: number;
  /** Whether the vision side changes, so that images have to be computed anew. */
  readonly vision: boolean;
}

/**
 * The earliest layer and position that edits of one prompt can change. Below that layer, and before that position,
 * every activation is what it was: layers read only the layer before, and a query reads only the positions that the
 * model's attention rule lets it see. What changes in an image enters with its first token.
 *
 * @param firstImage number in the batch of the prompt's first image
 */
export function reachOf(
  model: LanguageModel,
  prompt: Prompt,
  targets: readonly Target[],
  firstImage: number,
): Reach {
  const { layers, vision: setup } = model.config;
  let layer = layers;
  let position = prompt.length - 1;
  for (const { info, positions } of targets) {
    if (info.sequences === "images") {
      const places = placesByImage(prompt, setup!);
      for (const image of positions.keys()) position = Math.min(position, ...places[image - firstImage]!);
      layer = 0;
      continue;
    }
    // An edit of a layer's output leaves that layer alone: the run starts from the edited output.
    const first = info.site === "embed" ? 0 : info.site === "resid_post" ? info.order + 1 : info.order;
    layer = Math.min(layer, first);
    for (const list of positions.values()) position = Math.min(position, ...list);
  }
  const vision = targets.some((target) => target.info.sequences === "images");
  return { layer, position: earliestReached(model, prompt, layer, position), vision };
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
