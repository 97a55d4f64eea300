import type { LanguageModel } from "../model/language-model.ts";
import type { Prompt } from "../model/prompt.ts";
import { parseSite } from "../model/sites.ts";
import type { Target } from "./site-targets.ts";

/** What a patched run has to compute anew. */
export interface Change {
  /** First layer to run; `layers` means the head alone. */
  readonly layer: number;
  /** First position whose rows may differ from the unpatched run. */
  readonly position: number;
}

/**
 * The earliest layer and position that edits of one prompt can change. Below that layer, and before that position,
 * every activation is what it was: layers read only the layer before, and a query reads only the positions that the
 * model's attention rule lets it see.
 */
export function changeOf(model: LanguageModel, prompt: Prompt, targets: readonly Target[]): Change {
  const { layers } = model.config;
  let layer = layers;
  let position = prompt.length - 1;
  for (const target of targets) {
    const [positions] = target.positions.values();
    const { site } = parseSite(target.site);
    // An edit of a layer's output leaves that layer alone: the run starts from the edited output.
    const first = site === "embed" ? 0 : site === "resid_post" ? target.layer + 1 : target.layer;
    layer = Math.min(layer, first);
    position = Math.min(position, ...positions!);
  }
  return { layer, position: earliestReached(model, prompt, layer, position) };
}

/**
 * The first position that a change at `position` can reach through the attention of `layer` and later ones. With causal
 * masks that is the position itself; masks that look ahead hand a change back to earlier queries, again and again.
 */
function earliestReached(model: LanguageModel, prompt: Prompt, layer: number, position: number): number {
  let earliest = position;
  for (let index = layer; index < model.config.layers; index++) {
    const rule = model.network.attention(index, [prompt]);
    for (let query = 0; query < earliest; query++) {
      const { start, end } = rule(0, query);
      if (start <= prompt.length - 1 && end > earliest) {
        earliest = query;
        break;
      }
    }
  }
  return earliest;
}
