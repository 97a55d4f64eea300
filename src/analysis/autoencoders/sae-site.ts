import { CheckpointError } from "../../errors.ts";
import { siteFromElsewhere } from "../../model/walk/site-translation.ts";
import type { LayerSite, SiteName } from "../../model/walk/sites.ts";

/** Hooks of TransformerLens and the sites that hold the same numbers, of unprocessed weights. `$` is the layer. */
const HOOKS: readonly (readonly [hook: string, site: LayerSite])[] = [
  ["blocks.$.hook_resid_pre", "resid_pre"],
  ["blocks.$.hook_resid_mid", "resid_mid"],
  ["blocks.$.hook_resid_post", "resid_post"],
  ["blocks.$.hook_attn_out", "attn_out"],
  ["blocks.$.hook_mlp_out", "mlp_out"],
  ["blocks.$.attn.hook_q", "q"],
  ["blocks.$.attn.hook_k", "k"],
  ["blocks.$.attn.hook_v", "v"],
  ["blocks.$.attn.hook_z", "z"],
  ["blocks.$.mlp.hook_pre", "mlp_pre"],
  ["blocks.$.mlp.hook_post", "mlp_act"],
];

/** Why a hook is none of those though there is a site by its name. */
const DIFFERENT: readonly (readonly [hook: RegExp, why: string])[] = [
  [/\.hook_normalized$/, "is the norm before its weight, and the site is behind it"],
  [/^hook_embed$/, "lacks the positions that some models learn, and the site has them"],
  [/\.hook_mlp_in$/, "is read by the MLP alone, and the site by all that follows"],
];

/** The site that holds what TransformerLens has at a hook. Throws CheckpointError for hooks without one. */
export function siteOfHook(hook: string, where: string): SiteName {
  const [, layer] = /^blocks\.(\d+)\./.exec(hook) ?? [];
  const plain = layer === undefined ? hook : hook.replace(layer, "$");
  const found = HOOKS.find(([name]) => name === plain);
  if (found && layer !== undefined) return `${found[1]}.${Number(layer)}`;
  const [, why] = DIFFERENT.find(([pattern]) => pattern.test(hook)) ?? [];
  const near = siteFromElsewhere(hook);
  const hint = why ? ` (it ${why})` : near ? ` (for ${near} no autoencoders are read)` : "";
  throw new CheckpointError(
    `${where}: expected hook_name to be one of ${HOOKS.map(([name]) => name.replace("$", "N")).join(", ")}, ` +
      `found ${JSON.stringify(hook)}${hint}`,
  );
}
