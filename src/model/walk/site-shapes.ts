import type { CrossConfig, DecoderConfig, EncoderSetup } from "../checkpoint/config/decoder-config.ts";
import {
  hasTileMap,
  type ImageRows,
  imageRowCount,
  type QFormerConfig,
  type VisionSetup,
} from "../checkpoint/config/vision-setup.ts";
import { CROSS_SITES, LAYER_SITES, type LayerSite, type OuterSite, type StackName } from "./sites.ts";

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

/** The sites of the cross-attention of a layer. */
function crossSites({ qkNorm, mlpWidth, gateWidth }: CrossConfig): readonly LayerSite[] {
  return CROSS_SITES.filter(
    (site) =>
      (qkNorm || !site.endsWith("_norm")) &&
      (mlpWidth !== undefined || !site.startsWith("xmlp_")) &&
      (gateWidth !== undefined || !site.endsWith("_gate")),
  );
}

/** Those of a layer that has cross-attention in place of self-attention. */
export function crossLayerSites(cross: CrossConfig): readonly LayerSite[] {
  const across = crossSites(cross).filter((site) => !/^xresid_mid$|^xmlp_/.test(site));
  const mlp = LAYER_SITES.slice(LAYER_SITES.indexOf("resid_mid"));
  const out = mlp.indexOf("mlp_out");
  return ["resid_pre", ...across, ...mlp.slice(0, out), "xmlp_gate", ...mlp.slice(out)];
}

/** The sites of a layer, in the order of the forward pass. */
export function sitesOfLayer(
  { sites = LAYER_SITES, cross, deepstack = 0 }: StackSites,
  layer: number,
): readonly LayerSite[] {
  if (layer < deepstack) return [...sites, "deepstack"];
  if (!cross?.layers.includes(layer)) return sites;
  if (cross.replaces) return crossLayerSites(cross);
  const place = cross.mlpWidth === undefined ? sites.indexOf("resid_mid") + 1 : 0;
  return [...sites.slice(0, place), ...crossSites(cross), ...sites.slice(place)];
}

/** A site outside the blocks. */
export interface OuterShape {
  readonly site: OuterSite;
  /** Of a row. */
  readonly features: number;
  /** Rows of an image, where all images have as many. */
  readonly rows?: number | undefined;
  /** Which of an image's rows; default those of the stack. */
  readonly rowsOf?: ImageRows;
  /** Set where it comes by behind another stack. */
  readonly behind?: StackName;
}

/** Which rows of images meet in cross-attention. */
export interface CrossRows {
  /** Those that keys and values are made of, and how many, where all images have as many. Default those of the resampler. */
  readonly keyRowsOf?: ImageRows;
  readonly keyRows?: number | undefined;
  /** Those that attend, where they are not all of the stack's. */
  readonly readers?: { readonly rowsOf: ImageRows; readonly rows?: number | undefined };
}

/** What there is to tap and edit in a stack. */
export interface StackSites extends BlockSizes {
  /**
   * What its rows belong to: the tokens of prompts (of what the decoder reads, where there is an encoder), those of the prompts
   * that an encoder reads, or images.
   */
  readonly sequences: "prompts" | "sources" | "images";
  /** Rows of an image, where all images have as many. */
  readonly rows?: number | undefined;
  /** Which of an image's rows, where it is of images. Default "tower". */
  readonly rowsOf?: ImageRows;
  /** The same of keys and values, where those are others. */
  readonly keyRows?: number | undefined;
  readonly keyRowsOf?: ImageRows;
  /** Behind how many of its blocks, from the first, features of pictures are added. Default 0. */
  readonly deepstack?: number | undefined;
  /** Cross-attention of some layers. */
  readonly cross?: CrossConfig & CrossRows;
  /** In the order of the forward pass. */
  readonly before: readonly OuterShape[];
  readonly after: readonly OuterShape[];
}

/** What there is to tap and edit in a model, by stack. */
export type SiteMap = { readonly text: StackSites } & { readonly [S in StackName]?: StackSites };

export function siteMapOf(config: DecoderConfig): SiteMap {
  const { vision, cross, encoder } = config;
  const { fixed } = vision ?? {};
  const latents = fixed && imageRowCount(fixed, "latents");
  const text: StackSites = {
    ...sizesOf(config),
    sites: blockSites(config),
    ...(cross && { cross: { ...cross, keyRows: latents } }),
    ...(vision?.deepstack && { deepstack: vision.deepstack }),
    sequences: "prompts",
    before: [{ site: "embed", features: config.width }],
    after: [
      { site: "final_norm", features: config.width },
      { site: "logits", features: config.vocab },
    ],
  };
  const own = { text, ...(encoder && { encoder: encoderSites(encoder) }) };
  if (!vision) return own;
  const { tower, resampler, qformer, postNorm, shuffle, pooled } = vision;
  const rows = fixed?.towerRows;
  const normed: OuterShape[] = postNorm ? [{ site: "vision.post_norm", features: tower.width, rows }] : [];
  if (resampler) {
    return { ...own, vision: towerSites(tower, { rows, after: normed }), resampler: resamplerSites(vision) };
  }
  if (vision.global) return { ...own, ...globalSites(vision, config) };
  const features = { rows: fixed?.tokens, rowsOf: "tokens" } as const;
  const after: OuterShape[] = [
    ...normed,
    ...(shuffle
      ? [{ site: "pixel_shuffle", features: tower.width * shuffle ** 2, ...features } as const]
      : []),
    ...(pooled
      ? (["pooled", "projector_norm"] as const).map((site) => ({ site, features: tower.width, ...features }))
      : []),
    ...(hasTileMap(vision)
      ? [{ site: "tile_features", features: config.width, rowsOf: "tile features" } as const]
      : []),
    { site: "projector", features: config.width, ...features, ...(qformer && { behind: "qformer" }) },
  ];
  const seen = { ...own, vision: towerSites(tower, { rows, after }) };
  return qformer ? { ...seen, qformer: qformerSites(qformer, rows) } : seen;
}

/** The sites of a tower with a second encoder on top, whose features cross-attention reads. */
function globalSites({ tower, global, featureWidth, fixed }: VisionSetup, { width }: DecoderConfig) {
  const { towerRows: rows, latents } = fixed!;
  const read = { rows: latents, rowsOf: "latents", behind: "global" } as const;
  const vision = towerSites(tower, {
    rows,
    after: [
      { site: "vision.post_norm", features: tower.width, rows },
      { site: "vision.features", features: featureWidth!, ...read },
      { site: "projector", features: width, ...read },
    ],
  });
  return { vision, global: { ...towerSites(global!, { rows, after: [] }), before: [] } };
}

/** The sites of an encoder of text. */
function encoderSites(encoder: EncoderSetup): StackSites {
  const { width } = encoder;
  return {
    ...sizesOf(encoder),
    sequences: "sources",
    before: [{ site: "encoder.embed", features: width }],
    after: [{ site: "encoder.final_norm", features: width }],
  };
}

/** The sites of a resampler, whose latents attend to the tower's rows and to each other. */
function resamplerSites({ resampler, fixed }: VisionSetup): StackSites {
  const { width, projects } = resampler!;
  const rows = fixed && imageRowCount(fixed, "latents");
  const read = { site: "resampler.in", features: width, rows: fixed?.towerRows, rowsOf: "tower" } as const;
  return {
    ...sizesOf(resampler!),
    sites: blockSites(resampler!),
    sequences: "images",
    rows,
    rowsOf: "latents",
    keyRows: fixed && imageRowCount(fixed, "tower and latents"),
    keyRowsOf: "tower and latents",
    before: projects ? [read] : [],
    after: [{ site: "resampler.out", features: width, rows }],
  };
}

/** The sites of a Q-Former, whose queries attend to each other (and to a text) and, in some layers, to the tower's rows. */
function qformerSites(qformer: QFormerConfig, towerRows: number | undefined): StackSites {
  const { width, heads, queries, crossLayers, text } = qformer;
  const shape = { heads, kvHeads: heads, headDim: width / heads };
  return {
    ...sizesOf({ ...qformer, ...shape }),
    sequences: "images",
    rows: text ? undefined : queries,
    rowsOf: text ? "latents and text" : "latents",
    cross: {
      ...shape,
      layers: crossLayers,
      qkNorm: false,
      keyRowsOf: "tower",
      keyRows: towerRows,
      readers: { rowsOf: "latents", rows: queries },
    },
    before: [],
    after: [],
  };
}

/** The sites of a vision tower. */
export function towerSites(
  tower: Omit<BlockSizes, "kvHeads" | "headDim"> & BlockKind,
  { rows, after }: Pick<StackSites, "rows" | "after">,
): StackSites {
  return {
    ...sizesOf({ ...tower, kvHeads: tower.heads, headDim: tower.width / tower.heads }),
    sites: blockSites(tower),
    sequences: "images",
    rows,
    before: tower.layers === 0 ? [] : [{ site: "vision.embed", features: tower.width, rows }],
    after,
  };
}

function sizesOf({ layers, width, heads, kvHeads, headDim, mlpWidth }: BlockSizes): BlockSizes {
  return { layers, width, heads, kvHeads, headDim, mlpWidth };
}
