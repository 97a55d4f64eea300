import { SiteError } from "../../errors.ts";
import { nearest } from "../../nearest.ts";
import { siteFromElsewhere } from "./site-translation.ts";

/** Activations of a transformer block that nearly all families have, in the order in which they are born. */
export const LAYER_SITES = [
  "resid_pre",
  "attn_in",
  "q",
  "k",
  "v",
  "scores",
  "pattern",
  "z",
  "attn_out",
  "resid_mid",
  "mlp_in",
  "mlp_pre",
  "mlp_act",
  "mlp_out",
  "resid_post",
] as const;

/** Those that some families have beside. */
const FURTHER_LAYER_SITES = ["q_norm", "k_norm", "deepstack"] as const;

/**
 * Those of cross-attention to the rows of another stack, and of an MLP that goes with it, in the order in which they are born.
 * With its MLP it stands in front of the layer whose number it has (Flamingo's gated blocks); without one in the middle of that
 * layer, behind resid_mid (the decoder of an encoder-decoder, a Q-Former).
 */
export const CROSS_SITES = [
  "xattn_in",
  "xattn_q",
  "xattn_q_norm",
  "xattn_k",
  "xattn_k_norm",
  "xattn_v",
  "xattn_scores",
  "xattn_pattern",
  "xattn_z",
  "xattn_gate",
  "xattn_out",
  "xresid_mid",
  "xmlp_in",
  "xmlp_pre",
  "xmlp_act",
  "xmlp_gate",
  "xmlp_out",
] as const;

/** A site of cross-attention, or of the MLP that goes with it: `xattn_q`, `xattn_pattern`, `xmlp_out`, … */
export type CrossSite = (typeof CROSS_SITES)[number];

/** What those names have before the name that the same has elsewhere. */
export type SiteMark = "x" | "xattn_";

/** A site of a layer without the layer's number: `resid_post`, `q`, `pattern`, … docs/sites.md lists them. */
export type LayerSite = (typeof LAYER_SITES)[number] | (typeof FURTHER_LAYER_SITES)[number] | CrossSite;

/** Everything that may be born in a block. */
export const ALL_LAYER_SITES = [...LAYER_SITES, ...FURTHER_LAYER_SITES, ...CROSS_SITES] as const;

/**
 * The stacks of blocks that a model may have, with what goes in front of their sites' names. `text` is what chooses the next
 * token (or the text tower of a dual encoder).
 */
export const STACKS = {
  text: "",
  vision: "vision.",
  global: "vision.global.",
  resampler: "resampler.",
  qformer: "qformer.",
  encoder: "encoder.",
} as const;

/** A stack of blocks: `text`, `vision`, `global`, `resampler`, `qformer` or `encoder`. */
export type StackName = keyof typeof STACKS;

/** Goes in front of the names of a stack's sites. */
export type SitePrefix = (typeof STACKS)[StackName];

/** Activations outside the blocks, by the stack whose sequences their rows are of. */
export const OUTER_SITES = {
  text: ["embed", "final_norm", "logits"],
  vision: [
    "vision.embed",
    "vision.post_norm",
    "vision.features",
    "pixel_shuffle",
    "pooled",
    "projector_norm",
    "tile_features",
    "projector",
  ],
  global: [],
  resampler: ["resampler.in", "resampler.out"],
  qformer: [],
  encoder: ["encoder.embed", "encoder.final_norm"],
} as const satisfies Record<StackName, readonly string[]>;

/** A site outside the layers: `embed`, `final_norm`, `logits`, `vision.features`, `projector`, … */
export type OuterSite = (typeof OUTER_SITES)[StackName][number];

/**
 * The name of an activation: `resid_post.15`, `pattern.3`, `logits`; in the vision tower `vision.resid_post.3`.
 * Layers count from 0. docs/sites.md says what each one is and what it is called elsewhere.
 */
export type SiteName = `${SitePrefix}${LayerSite}.${number}` | OuterSite;

/**
 * The activations that task vectors are made of: those of the layers of what chooses the next token, or of an encoder's
 * (`encoder.resid_post`).
 */
export const VECTOR_SITES = [
  ...ALL_LAYER_SITES,
  ...LAYER_SITES.map((site) => `${STACKS.encoder}${site}` as const),
] as const;

export type VectorSite = (typeof VECTOR_SITES)[number];

/** The stack whose layers they are of. */
export function stackOfVectors(site: VectorSite): "text" | "encoder" {
  return site.startsWith(STACKS.encoder) ? "encoder" : "text";
}

/** What the rows of a site's value stand for. */
export type SiteLayout =
  /** `[rows, features]`: a row a token (or image patch). */
  | "rows"
  /** `[heads, rows, keys]`: a row a query token, for each head. */
  | "attention";

export function layoutOf(site: LayerSite | OuterSite): SiteLayout {
  return /^(xattn_)?(scores|pattern)$/.test(site) ? "attention" : "rows";
}

/** A site name taken apart. */
export interface SiteAddress {
  readonly stack: StackName;
  readonly site: LayerSite | OuterSite;
  /** Absent for sites outside the blocks. */
  readonly layer?: number;
}

const STACK_NAMES = Object.keys(STACKS) as StackName[];
/** The stack of each site outside the blocks. */
const OUTER: ReadonlyMap<string, StackName> = new Map(
  STACK_NAMES.flatMap((stack) => OUTER_SITES[stack].map((site) => [site, stack] as const)),
);
/** The stack of each prefix. */
const PREFIXED: ReadonlyMap<string, StackName> = new Map(STACK_NAMES.map((stack) => [STACKS[stack], stack]));
const LAYERED: ReadonlySet<string> = new Set(ALL_LAYER_SITES);

/** Takes a site name apart. Throws SiteError for anything that is none, with the nearest site and what there is. */
export function parseSite(name: string): SiteAddress {
  const outer = OUTER.get(name);
  if (outer) return { stack: outer, site: name as OuterSite };
  const [, prefix = "", site, layer] = /^([a-z.]+\.)?([a-z_]+)\.(0|[1-9]\d*)$/.exec(name) ?? [];
  const stack = PREFIXED.get(prefix);
  if (stack && site !== undefined && LAYERED.has(site)) {
    return { stack, site: site as LayerSite, layer: Number(layer) };
  }
  throw new SiteError(
    `there is no site ${JSON.stringify(name)}${hint(name)}; expected ${LAYER_SITES.join(", ")} with a layer ("resid_post.3"), ` +
      `${OUTER_SITES.text.join(", ")}, or one of the vision tower ("vision.resid_post.3", ${OUTER_SITES.vision.join(", ")}) ` +
      `of a resampler ("resampler.resid_post.1", ${OUTER_SITES.resampler.join(", ")}), of a Q-Former ` +
      `("qformer.resid_post.1"), or of an encoder of text ` +
      `("encoder.resid_post.3", ${OUTER_SITES.encoder.join(", ")})`,
  );
}

/** What was probably meant. */
function hint(name: string): string {
  const elsewhere = siteFromElsewhere(name);
  if (elsewhere !== undefined) return `; it is called ${elsewhere}`;
  const prefix = Object.values(STACKS).find((each) => each !== "" && name.startsWith(each)) ?? "";
  if (LAYERED.has(name.slice(prefix.length))) return `, a layer is missing, as in "${name}.3"`;
  const [layer = "0"] = /\d+/.exec(name) ?? [];
  const candidates = ALL_LAYER_SITES.map((site) => `${prefix}${site}.${Number(layer)}`);
  return `; the nearest is "${nearest(name, [...candidates, ...OUTER.keys()])}"`;
}
