import { SiteError } from "../tensor/errors.ts";
import type { DecoderConfig } from "./decoder-config.ts";
import { LAYER_SITES, type LayerSite, type ModelSite, parseSite, type SiteName } from "./sites.ts";

/** What the values of a site look like, a row each. */
export interface SiteShape {
  /** Features of a row; for scores and pattern it depends on the run (its keys). */
  readonly features: number | "keys";
  /** Heads that the features divide into, where they do. */
  readonly heads?: number;
}

/** Shape of a site of the language model. */
export function siteShape(config: DecoderConfig, site: LayerSite | ModelSite): SiteShape {
  const { width, heads, kvHeads, headDim, mlpWidth, vocab } = config;
  switch (site) {
    case "q":
    case "z":
      return { features: heads * headDim, heads };
    case "k":
    case "v":
      return { features: kvHeads * headDim, heads: kvHeads };
    case "scores":
    case "pattern":
      return { features: "keys", heads };
    case "mlp_pre":
    case "mlp_act":
      return { features: mlpWidth };
    case "logits":
      return { features: vocab };
    default:
      return { features: width };
  }
}

/** Every site of the language model, in the order of the forward pass. */
export function siteNames(config: DecoderConfig): SiteName[] {
  const names: SiteName[] = ["embed"];
  for (let layer = 0; layer < config.layers; layer++) {
    for (const site of LAYER_SITES) names.push(`${site}.${layer}`);
  }
  return [...names, "final_norm", "logits"];
}

/** Where in the forward pass a site of the language model lies. */
export interface SitePlace {
  readonly site: LayerSite | ModelSite;
  /** −1 for the embedding, the number of layers for the final norm and the logits. */
  readonly layer: number;
}

/** Throws SiteError for a name that is no site, or that this model does not have. */
export function placeOf(config: DecoderConfig, name: SiteName): SitePlace {
  const { tower, site, layer } = parseSite(name);
  if (tower === "vision" || site === "projector") {
    throw new SiteError(`${name}: this model has no vision tower`);
  }
  if (layer !== undefined && layer >= config.layers) {
    throw new SiteError(`${name}: this model has ${config.layers} layers, 0 to ${config.layers - 1}`);
  }
  const place = layer ?? (site === "embed" ? -1 : config.layers);
  return { site: site as LayerSite | ModelSite, layer: place };
}
