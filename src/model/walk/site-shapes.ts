import { SiteError } from "../../errors.ts";
import type { DecoderConfig } from "../checkpoint/config/decoder-config.ts";
import {
  LAYER_SITES,
  type LayerSite,
  layoutOf,
  type ModelSite,
  parseSite,
  type SiteAddress,
  type SiteLayout,
  type SiteName,
  type VisionSite,
} from "./sites.ts";

/** Sizes of a stack of transformer blocks. */
export interface BlockSizes {
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly mlpWidth: number;
  /** The sites of a block, in the order of the forward pass. Default {@link LAYER_SITES}. */
  readonly sites?: readonly LayerSite[];
}

/** What makes the sites of a block others than the usual ones. */
type BlockKind = Pick<DecoderConfig, "qkNorm" | "parallel">;

/** The sites of blocks that have norms on queries and keys, or whose halves run beside each other. */
export function blockSites({ qkNorm = false, parallel = false }: BlockKind): readonly LayerSite[] {
  return LAYER_SITES.filter((site) => !(parallel && site === "resid_mid")).flatMap((site) =>
    qkNorm && (site === "q" || site === "k") ? [site, `${site}_norm` as const] : [site],
  );
}

/** What there is to tap and edit in a model. */
export interface SiteMap {
  /** The language model, or the text tower; with the width of its logits if it has any. */
  readonly text: BlockSizes & { readonly vocab?: number };
  /** The vision tower, with the rows that it has for an image, and what it hands to the language model. */
  readonly vision?: BlockSizes & {
    /** Undefined where it depends on the image. */
    readonly rows: number | undefined;
    /** Whether the norm after the last block is applied to all rows. */
    readonly postNorm?: boolean;
    readonly projector?: { readonly width: number; readonly rows: number | undefined };
  };
}

/** A site of a certain model. */
export interface SiteInfo extends SiteAddress {
  readonly layout: SiteLayout;
  /** Number of features of a row; undefined for scores and patterns, whose features are keys. */
  readonly features: number | undefined;
  /** Heads that the features divide into (or that scores and patterns have), where there are heads. */
  readonly heads: number | undefined;
  /**
   * When it comes by in a forward pass: the layer of the language model, -1 for its embedding, the number of layers for
   * its head, -2 for all that happens in the vision tower.
   */
  readonly order: number;
}

export function siteMapOf(config: DecoderConfig): SiteMap {
  const { vision } = config;
  const text = { ...config, sites: blockSites(config) };
  if (!vision) return { text };
  const { tower, fixed } = vision;
  return {
    text,
    vision: {
      ...tower,
      kvHeads: tower.heads,
      headDim: tower.width / tower.heads,
      rows: fixed?.towerRows,
      projector: { width: config.width, rows: fixed?.tokens },
    },
  };
}

/** What a site is in a model. Throws SiteError for a name that is none, or that this model does not have. */
export function siteInfo(map: SiteMap, name: SiteName): SiteInfo {
  const address = parseSite(name);
  const { tower, site, layer } = address;
  const blocks = tower === "vision" ? map.vision : map.text;
  if (!blocks) throw new SiteError(`${name}: this model has no vision tower`);
  if (layer !== undefined && layer >= blocks.layers) {
    throw new SiteError(`${name}: there are ${blocks.layers} layers, 0 to ${blocks.layers - 1}`);
  }
  const inBlock = blocks.sites ?? LAYER_SITES;
  if (layer !== undefined && !inBlock.includes(site as LayerSite)) {
    throw new SiteError(`${name}: the blocks of this model have no ${site}; they have ${inBlock.join(", ")}`);
  }
  const absent =
    (site === "logits" && map.text.vocab === undefined) ||
    (site === "projector" && !map.vision?.projector) ||
    (site === "vision.post_norm" && !map.vision?.postNorm);
  if (absent) throw new SiteError(`${name}: this model has no such site`);
  const text = layer ?? (site === "embed" ? -1 : map.text.layers);
  return {
    ...address,
    layout: layoutOf(site),
    order: tower === "vision" ? -2 : text,
    ...featuresOf(map, blocks, site),
  };
}

function featuresOf(
  map: SiteMap,
  { width, heads, kvHeads, headDim, mlpWidth }: BlockSizes,
  site: LayerSite | ModelSite | VisionSite,
): Pick<SiteInfo, "features" | "heads"> {
  switch (site) {
    case "q":
    case "q_norm":
    case "z":
      return { features: heads * headDim, heads };
    case "k":
    case "k_norm":
    case "v":
      return { features: kvHeads * headDim, heads: kvHeads };
    case "scores":
    case "pattern":
      return { features: undefined, heads };
    case "mlp_pre":
    case "mlp_act":
      return { features: mlpWidth, heads: undefined };
    case "logits":
      return { features: map.text.vocab, heads: undefined };
    case "projector":
      return { features: map.vision?.projector?.width, heads: undefined };
    default:
      return { features: width, heads: undefined };
  }
}

/** Every site of a model, in the order of the forward pass. */
export function siteNames(map: SiteMap): SiteName[] {
  const names: SiteName[] = [];
  if (map.vision) {
    names.push("vision.embed");
    for (let layer = 0; layer < map.vision.layers; layer++) {
      for (const site of map.vision.sites ?? LAYER_SITES) names.push(`vision.${site}.${layer}`);
    }
    if (map.vision.postNorm) names.push("vision.post_norm");
    if (map.vision.projector) names.push("projector");
  }
  names.push("embed");
  for (let layer = 0; layer < map.text.layers; layer++) {
    for (const site of map.text.sites ?? LAYER_SITES) names.push(`${site}.${layer}`);
  }
  names.push("final_norm");
  if (map.text.vocab !== undefined) names.push("logits");
  return names;
}
