import { SiteError } from "../../errors.ts";
import type { DecoderConfig } from "../checkpoint/config/decoder-config.ts";
import {
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

/** Why a block lacks a site. */
const ABSENT = {
  resid_mid: "attention and MLP both read resid_pre",
  q_norm: "nothing norms its queries, q",
  k_norm: "nothing norms its keys, k",
};

/** A site outside the blocks. */
interface OuterShape {
  readonly site: OuterSite;
  /** Of a row. */
  readonly features: number;
  /** Rows of an image, where all images have as many. */
  readonly rows?: number | undefined;
}

/** What there is to tap and edit in a stack. */
export interface StackSites extends BlockSizes {
  /** What its rows belong to: the tokens of prompts, or images. */
  readonly sequences: "prompts" | "images";
  /** Rows of an image, where all images have as many. */
  readonly rows?: number | undefined;
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
  /**
   * When it comes by in a forward pass: the layer of the language model, -1 for its embedding, the number of layers for
   * its head, -2 for all that happens in stacks before it.
   */
  readonly order: number;
}

export function siteMapOf(config: DecoderConfig): SiteMap {
  const { vision } = config;
  const text: StackSites = {
    ...sizesOf(config),
    sites: blockSites(config),
    sequences: "prompts",
    before: [{ site: "embed", features: config.width }],
    after: [
      { site: "final_norm", features: config.width },
      { site: "logits", features: config.vocab },
    ],
  };
  if (!vision) return { text };
  const { tower, fixed, postNorm, tiled } = vision;
  const rows = fixed?.towerRows;
  const after: OuterShape[] = [
    ...(postNorm ? [{ site: "vision.post_norm", features: tower.width, rows } as const] : []),
    ...(tiled ? [{ site: "tile_features", features: config.width } as const] : []),
    { site: "projector", features: config.width, rows: fixed?.tokens },
  ];
  return { text, vision: towerSites(tower, { rows, after }) };
}

/** The sites of a vision tower. */
export function towerSites(
  tower: Omit<BlockSizes, "kvHeads" | "headDim">,
  { rows, after }: Pick<StackSites, "rows" | "after">,
): StackSites {
  return {
    ...sizesOf({ ...tower, kvHeads: tower.heads, headDim: tower.width / tower.heads }),
    sequences: "images",
    rows,
    before: [{ site: "vision.embed", features: tower.width, rows }],
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
  const { layers, sites = LAYER_SITES, sequences } = found;
  const shared = { ...address, layout: layoutOf(site), sequences };
  if (layer === undefined) {
    const shape = [...found.before, ...found.after].find((outer) => outer.site === site);
    if (!shape) throw new SiteError(`${name}: this model has no such site`);
    const order = stack !== "text" ? -2 : found.before.includes(shape) ? -1 : layers;
    return { ...shared, features: shape.features, heads: undefined, imageRows: shape.rows, order };
  }
  if (layer >= layers) throw new SiteError(`${name}: there are ${layers} layers, 0 to ${layers - 1}`);
  if (!sites.includes(site as LayerSite)) {
    const why = Object.hasOwn(ABSENT, site) ? ` (${ABSENT[site as keyof typeof ABSENT]})` : "";
    throw new SiteError(
      `${name}: the blocks of this model have no ${site}${why}; they have ${sites.join(", ")}`,
    );
  }
  const order = stack === "text" ? layer : -2;
  return { ...shared, ...featuresOf(found, site as LayerSite), imageRows: found.rows, order };
}

/** What messages call a stack. */
const NAMES: Readonly<Record<StackName, string>> = { text: "language model", vision: "vision tower" };

function featuresOf(
  { width, heads, kvHeads, headDim, mlpWidth }: BlockSizes,
  site: LayerSite,
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
    default:
      return { features: width, heads: undefined };
  }
}

/** The stacks in the order of the forward pass. */
const STACK_ORDER: readonly StackName[] = ["vision", "text"];

/** Every site of a model, in the order of the forward pass. */
export function siteNames(map: SiteMap): SiteName[] {
  return STACK_ORDER.flatMap((name) => {
    const stack = map[name];
    if (!stack) return [];
    const { layers, sites = LAYER_SITES, before, after } = stack;
    const blocks = Array.from({ length: layers }, (_, layer) =>
      sites.map((site): SiteName => `${STACKS[name]}${site}.${layer}`),
    );
    return [...before.map(({ site }) => site), ...blocks.flat(), ...after.map(({ site }) => site)];
  });
}
