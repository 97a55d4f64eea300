import { SiteError } from "../../errors.ts";
import type { ImageRows } from "../checkpoint/config/vision-setup.ts";
import { type SiteMap, type StackSites, sitesOfLayer } from "./site-shapes.ts";
import {
  CROSS_SITES,
  type LayerSite,
  layoutOf,
  parseSite,
  type SiteAddress,
  type SiteLayout,
  type SiteName,
  STACKS,
  type StackName,
} from "./sites.ts";

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
