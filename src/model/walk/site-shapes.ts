import { SiteError } from "../../errors.ts";
import type { CrossConfig, DecoderConfig, EncoderSetup } from "../checkpoint/config/decoder-config.ts";
import {
  hasTileMap,
  type ImageRows,
  imageRowCount,
  type QFormerConfig,
  type VisionSetup,
} from "../checkpoint/config/vision-setup.ts";
import {
  CROSS_SITES,
  LAYER_SITES,
  type LayerSite,
  layoutOf,
  type OuterSite,
  parseSite,
  type SiteAddress,
  type SiteLayout,
  type SiteName,
  STACKS,
  type StackName,
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
function sitesOfLayer(
  { sites = LAYER_SITES, cross, deepstack = 0 }: StackSites,
  layer: number,
): readonly LayerSite[] {
  if (layer < deepstack) return [...sites, "deepstack"];
  if (!cross?.layers.includes(layer)) return sites;
  if (cross.replaces) return crossLayerSites(cross);
  const place = cross.mlpWidth === undefined ? sites.indexOf("resid_mid") + 1 : 0;
  return [...sites.slice(0, place), ...crossSites(cross), ...sites.slice(place)];
}

/** Why a block lacks a site. */
const ABSENT: Partial<Record<string, string>> = {
  resid_mid: "attention and MLP both read resid_pre",
  q_norm: "nothing norms its queries, q",
  k_norm: "nothing norms its keys, k",
  xattn_q_norm: "nothing norms its queries, xattn_q",
  xattn_k_norm: "nothing norms its keys, xattn_k",
  xattn_gate: "its cross-attention has no gate",
  deepstack: "no features of pictures are added behind them",
  xmlp_gate: "its cross-attention has no MLP of its own",
};
const IS_CROSS: ReadonlySet<string> = new Set(CROSS_SITES);

/** A site outside the blocks. */
interface OuterShape {
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
interface CrossRows {
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

/** A site of a certain model. */
export interface SiteInfo extends SiteAddress {
  readonly layout: SiteLayout;
  /** What its rows belong to. */
  readonly sequences: StackSites["sequences"];
  /** Number of features of a row; undefined for scores and patterns, whose features are keys. */
  readonly features: number | undefined;
  /** Heads that the features divide into (or that scores and patterns have), where there are heads. */
  readonly heads: number | undefined;
  /** Rows of an image, where the site is of images and all have as many. */
  readonly imageRows: number | undefined;
  /** Which rows of an image those are, where the site is of images. */
  readonly rowsOf: ImageRows | undefined;
  /** Of scores and patterns: which rows of images the keys are, where they are not tokens, and how many each image has. */
  readonly keyRowsOf: ImageRows | undefined;
  /** Of scores and patterns: set where the keys are tokens that an encoder has read. */
  readonly keySequences?: "sources";
  readonly imageKeys: number | undefined;
  /**
   * When it comes by in a forward pass: the layer of the language model, -1 for its embedding, the number of layers for
   * its head, -2 for all that happens in stacks before it.
   */
  readonly order: number;
}

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

/** What a site is in a model. Throws SiteError for a name that is none, or that this model does not have. */
export function siteInfo(map: SiteMap, name: SiteName): SiteInfo {
  const address = parseSite(name);
  const { stack, site, layer } = address;
  const found = map[stack];
  if (!found) throw new SiteError(`${name}: this model has no ${NAMES[stack]}`);
  const { layers } = found;
  if (layer === undefined) {
    const shape = [...found.before, ...found.after].find((outer) => outer.site === site);
    if (!shape) {
      const instead =
        name === "projector" && map.resampler ? "; what its pictures become is resampler.out" : "";
      throw new SiteError(`${name}: this model has no such site${instead}`);
    }
    const order = stack !== "text" ? -2 : found.before.includes(shape) ? -1 : layers;
    const { features, rows, rowsOf } = shape;
    const shared = { ...address, layout: layoutOf(site), ...rowsOfSite(found, site) };
    const own = { imageRows: rows, ...(rowsOf && { rowsOf }) };
    return { ...shared, features, heads: undefined, order, ...own };
  }
  if (layers === 0) throw new SiteError(`${name}: this model has no ${NAMES[stack]}`);
  if (layer >= layers) throw new SiteError(`${name}: there are ${layers} layers, 0 to ${layers - 1}`);
  const sites = sitesOfLayer(found, layer);
  if (!sites.includes(site as LayerSite)) {
    if (found.cross?.replaces && found.cross.layers.includes(layer) && !IS_CROSS.has(site)) {
      throw new SiteError(
        `${name}: layer ${layer} has cross-attention in place of self-attention, and no ${site}; it has ${sites.join(", ")}`,
      );
    }
    if (IS_CROSS.has(site) && found.cross && !found.cross.layers.includes(layer)) {
      const have = found.cross.layers.join(", ");
      const place = found.cross.replaces || found.cross.mlpWidth === undefined ? "in" : "in front of";
      throw new SiteError(`${name}: there is no cross-attention ${place} layer ${layer}; it is in ${have}`);
    }
    const why = ABSENT[site] === undefined ? "" : ` (${ABSENT[site]})`;
    throw new SiteError(
      `${name}: the blocks of this model have no ${site}${why}; they have ${sites.join(", ")}`,
    );
  }
  // What is added behind a layer is added, and seen, by the next one.
  const own = site === "deepstack" ? layer + 1 : layer;
  const order = stack === "text" ? own : -2;
  const shared = { ...address, layout: layoutOf(site), ...rowsOfSite(found, site) };
  return { ...shared, ...featuresOf(found, site as LayerSite), order };
}

/** What the rows of a site are. */
function rowsOfSite(
  { sequences, rows, rowsOf = "tower", keyRows = rows, keyRowsOf = rowsOf, cross }: StackSites,
  site: string,
): Pick<SiteInfo, "sequences" | "imageRows" | "rowsOf" | "keyRowsOf" | "keySequences" | "imageKeys"> {
  const ofImages = sequences === "images";
  const all = { sequences, imageRows: rows, rowsOf: ofImages ? rowsOf : undefined };
  const reading = cross?.readers && IS_CROSS.has(site) ? cross.readers : undefined;
  const own = reading ? { sequences, imageRows: reading.rows, rowsOf: reading.rowsOf } : all;
  const crossKeys = cross?.keyRowsOf ?? "latents";
  const noKeys = { keyRowsOf: undefined, imageKeys: undefined };
  const tokens = { imageRows: undefined, rowsOf: undefined, ...noKeys };
  if (cross?.reads === "sources" && /^xattn_(k|v|k_norm)$/.test(site))
    return { sequences: "sources", ...tokens };
  if (cross?.reads === "sources" && /^xattn_(scores|pattern)$/.test(site)) {
    return { sequences, ...tokens, keySequences: "sources" };
  }
  switch (site) {
    case "xattn_k":
    case "xattn_k_norm":
    case "xattn_v":
      return { sequences: "images", imageRows: cross?.keyRows, rowsOf: crossKeys, ...noKeys };
    case "deepstack":
      return { sequences: "images", imageRows: undefined, rowsOf: "tokens", ...noKeys };
    case "xattn_scores":
    case "xattn_pattern":
      return { ...own, keyRowsOf: crossKeys, imageKeys: cross?.keyRows };
    case "k":
    case "k_norm":
    case "v":
      return { ...own, imageRows: keyRows, rowsOf: ofImages ? keyRowsOf : undefined, ...noKeys };
    case "scores":
    case "pattern":
      return ofImages ? { ...own, keyRowsOf, imageKeys: keyRows } : { ...own, ...noKeys };
    default:
      return { ...own, ...noKeys };
  }
}

/** The layers of a site's stack that have it, from the first. */
export function layersWith(map: SiteMap, { stack, site }: SiteAddress): readonly number[] {
  const found = map[stack]!;
  return Array.from({ length: found.layers }, (_, layer) => layer).filter((layer) =>
    sitesOfLayer(found, layer).includes(site as LayerSite),
  );
}

/** What messages call a stack. */
const NAMES: Readonly<Record<StackName, string>> = {
  text: "language model",
  vision: "vision tower",
  global: "second encoder of a vision tower",
  resampler: "resampler",
  qformer: "Q-Former",
  encoder: "encoder of text",
};

function featuresOf(stack: StackSites, site: LayerSite): Pick<SiteInfo, "features" | "heads"> {
  const { width, cross } = stack;
  const [, mark, own = site] = /^(xattn_|x)(.*)$/.exec(site) ?? [];
  const { heads, kvHeads, headDim, mlpWidth = 0 } = mark ? cross! : stack;
  switch (own) {
    case "gate":
    case "mlp_gate":
      return { features: cross!.gateWidth, heads: undefined };
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
    default:
      return { features: width, heads: undefined };
  }
}

/** The stacks in the order of the forward pass. */
const STACK_ORDER: readonly StackName[] = ["vision", "global", "resampler", "qformer", "encoder", "text"];

/** Every site of a model, in the order of the forward pass. */
export function siteNames(map: SiteMap): SiteName[] {
  return STACK_ORDER.flatMap((name) => {
    const stack = map[name];
    if (!stack) return [];
    const { layers, before } = stack;
    const blocks = Array.from({ length: layers }, (_, layer) =>
      sitesOfLayer(stack, layer).map((site): SiteName => `${STACKS[name]}${site}.${layer}`),
    );
    const behind = STACK_ORDER.flatMap((other) =>
      (map[other]?.after ?? []).filter(({ behind = other }) => behind === name),
    );
    return [...before.map(({ site }) => site), ...blocks.flat(), ...behind.map(({ site }) => site)];
  });
}
