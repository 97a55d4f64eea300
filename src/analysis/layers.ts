import { SiteError } from "../errors.ts";
import type { ModelOutline } from "../model/language-model.ts";
import { siteInfo } from "../model/walk/site-info.ts";
import {
  ALL_LAYER_SITES,
  type LayerSite,
  type SiteName,
  stackOfVectors,
  type VectorSite,
} from "../model/walk/sites.ts";

/** Wrong layers that a message names. */
const SHOWN = 3;

/**
 * All layers of a model, from 0; of the stack that `site` is of. Throws SiteError, led by `what`, where that is an encoder and
 * the model has none.
 */
export function allLayers(model: ModelOutline, site: VectorSite = "resid_post", what?: string): number[] {
  return Array.from({ length: layersOf(model, site, what) }, (_, layer) => layer);
}

/** Throws SiteError, led by `what`, when there are no layers or one of them is not the model's, in the stack that `site` is of. */
export function checkLayers(
  model: ModelOutline,
  layers: readonly number[],
  what: string,
  site: VectorSite = "resid_post",
): void {
  const count = layersOf(model, site, what);
  const wrong = layers.filter((layer) => !(Number.isInteger(layer) && layer >= 0 && layer < count));
  if (layers.length > 0 && wrong.length === 0) return;
  const found = layers.length === 0 ? "none" : wrong.slice(0, SHOWN).join(", ");
  const more = wrong.length > SHOWN ? ", …" : "";
  const owner = stackOfVectors(site) === "encoder" ? "encoder" : "model";
  throw new SiteError(
    `${what}: expected layers from 0 to ${count - 1} (the ${owner} has ${count}), found ${found}${more}`,
  );
}

/** How many layers the stack has that `site` is of. */
function layersOf({ config, name }: ModelOutline, site: VectorSite, what?: string): number {
  if (stackOfVectors(site) === "text") return config.layers;
  if (config.encoder) return config.encoder.layers;
  const lead = what === undefined ? "" : `${what}: `;
  throw new SiteError(`${lead}${name} has no encoder of text, found the site ${site}`);
}

/** A site of the text model's layers that holds a vector a token. Throws SiteError, led by `call`, for others. */
export function vectorSite(
  call: string,
  model: ModelOutline,
  name: SiteName,
): { site: LayerSite; layer: number; features: number } {
  const { stack, site, layer, layout, features } = siteInfo(model.sites, name);
  const layerSite = ALL_LAYER_SITES.find((one) => one === site);
  if (stack === "text" && layerSite && layer !== undefined && layout === "rows" && features !== undefined) {
    return { site: layerSite, layer, features };
  }
  throw new SiteError(
    `${call}: expected a site of the text model's layers that holds a vector a token, as resid_post.3, found ${name}`,
  );
}
