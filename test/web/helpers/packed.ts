// @ts-expect-error: plain JavaScript
import { ensurePackedModel } from "../../../scripts/pack-model.mjs";
import type { SiteOptions } from "./site.ts";

/** The shipped model in 8 bits, as `npm run build:web` offers it. */
export async function shipped(): Promise<SiteOptions> {
  return { models: { "xpatch:vlm": await ensurePackedModel() } };
}
