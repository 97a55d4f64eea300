import { SiteError } from "../errors.ts";
import type { ModelOutline } from "../model/language-model.ts";
import { siteInfo } from "../model/walk/site-shapes.ts";
import { ALL_LAYER_SITES, type LayerSite, type SiteName } from "../model/walk/sites.ts";

/** Wrong layers that a message names. */
const SHOWN = 3;

/** All layers of a model, from 0. */
export function allLayers({ config }: ModelOutline): number[] {
  return Array.from({ length: config.layers }, (_, layer) => layer);
}

/** Throws SiteError, led by `what`, when there are no layers or one of them is not the model's. */
export function checkLayers({ config }: ModelOutline, layers: readonly number[], what: string): void {
  const wrong = layers.filter((layer) => !(Number.isInteger(layer) && layer >= 0 && layer < config.layers));
  if (layers.length > 0 && wrong.length === 0) return;
  const found = layers.length === 0 ? "none" : wrong.slice(0, SHOWN).join(", ");
  const more = wrong.length > SHOWN ? ", …" : "";
  throw new SiteError(
    `${what}: expected layers from 0 to ${config.layers - 1} (the model has ${config.layers}), found ${found}${more}`,
  );
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
