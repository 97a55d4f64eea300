import { SiteError } from "../errors.ts";
import type { ModelOutline } from "../model/language-model.ts";

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
