import {
  aNumber,
  anArray,
  aString,
  checkArgument,
  checkOptions,
  either,
  type Options,
} from "../arguments.ts";
import { SiteError } from "../errors.ts";
import { imageRowCount } from "../model/checkpoint/config/vision-setup.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { picturesOf } from "../model/prompt/prompt-image.ts";
import { siteInfo, siteNames } from "../model/walk/site-info.ts";
import type { SiteName } from "../model/walk/sites.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { aModel, aPrompt, somePositions } from "./arguments.ts";
import type { Edit } from "./edit.ts";
import type { Positions } from "./positions.ts";
import { run } from "./run.ts";
import { matchSites, type SiteFilterLike, type SitePattern, type SitesOf } from "./site-patterns.ts";
import { type Batch, batchOf, resolveTarget, type Target } from "./site-targets.ts";
import type { Tap } from "./tap.ts";

/** Which part of each activation is cached, and how much memory that may take. */
export interface CacheOptions {
  /** Token positions. Default: all. Sites of images, whose rows are no tokens, come whole. */
  at?: Positions;
  edits?: readonly Edit[];
  /** Which image's activations; needed where a prompt has several and sites of the vision side are cached. */
  image?: number;
  /** The most memory that the activations may take. Default 1 GiB. */
  maxBytes?: number;
}

const OPTIONS: Options<CacheOptions> = {
  at: somePositions,
  edits: anArray,
  image: aNumber,
  maxBytes: aNumber,
};

const DEFAULT_MAX_BYTES = 2 ** 30;
/** Kinds of sites that a message about too much memory names. */
const SHOWN = 4;

/** Activations by site, in the order of the forward pass, in the shapes that {@link Tap} says. */
export type ActivationCache<Site extends SiteName = SiteName> = { [S in Site]: Tensor<"f32"> };

/**
 * Runs a prompt and keeps its activations: all, or those of the sites that `filter` names by patterns or lets through. Throws
 * like `run`, and SiteError when they would take more than `maxBytes`; {@link cacheBytes} says beforehand what they take.
 */
export function cacheAll<const Pattern extends SitePattern = "*">(
  model: LanguageModel,
  prompt: Prompt,
  filter?: SiteFilterLike<Pattern>,
  options: CacheOptions = {},
): ActivationCache<SitesOf<Pattern>> {
  const targets = cacheTargets("cacheAll", model, prompt, filter, options);
  const { maxBytes = DEFAULT_MAX_BYTES, edits = [] } = options;
  const bytes = sum(targets);
  if (bytes > maxBytes) {
    throw new SiteError(
      `cacheAll: ${targets.length} sites of ${prompt.length} tokens would take ${showBytes(bytes)} ` +
        `(${largest(targets)}); expected at most maxBytes = ${showBytes(maxBytes)}. Name fewer sites, as in ` +
        `cacheAll(prompt, "resid_post.*"), or positions (at), or raise maxBytes`,
    );
  }
  const { device } = model;
  return device.scope(() => {
    const taps = Object.fromEntries(targets.map(({ tap }, i) => [`${i}`, tap]));
    const last = Math.max(0, ...targets.map(({ order }) => order));
    const stop = edits.length === 0 && last < model.config.layers ? { stopAfter: last } : {};
    const result: Readonly<Record<string, Tensor<"f32"> | undefined>> = run(model, prompt, {
      taps,
      edits,
      ...stop,
    });
    return Object.fromEntries(targets.map(({ tap }, i) => [tap.site, result[`${i}`]]));
  }) as ActivationCache<SitesOf<Pattern>>;
}

/** The bytes that `cacheAll` with the same arguments would take. Computes nothing. */
export function cacheBytes(
  model: LanguageModel,
  prompt: Prompt,
  filter?: SiteFilterLike,
  options: CacheOptions = {},
): number {
  return sum(cacheTargets("cacheBytes", model, prompt, filter, options));
}

interface CacheTarget {
  readonly tap: Tap;
  readonly bytes: number;
  /** Of its site in the forward pass; see `SiteInfo`. */
  readonly order: number;
}

function cacheTargets(
  call: string,
  model: LanguageModel,
  prompt: Prompt,
  filter: SiteFilterLike | undefined,
  options: CacheOptions,
): CacheTarget[] {
  checkArgument(call, "model", model, aModel);
  checkArgument(call, "prompt", prompt, aPrompt);
  if (filter !== undefined) checkArgument(call, "filter", filter, aFilter);
  checkOptions(call, options, OPTIONS);
  const { at = "all", image } = options;
  const batch = batchOf([prompt], model.config.vision);
  return sitesOf(model, prompt, filter).map((site) => {
    const ofImages = siteInfo(model.sites, site).sequences === "images";
    const tap: Tap = {
      kind: "tap",
      site,
      at: ofImages ? "all" : at,
      ...(ofImages && image !== undefined && { image }),
    };
    const target = resolveTarget("cache", tap, model.sites, batch, { members: [0], oneImage: true });
    return { tap, bytes: 4 * elementsOf(target, batch), order: target.info.order };
  });
}

const aFilter = either(aString, anArray, { words: "a function", holds: (x) => typeof x === "function" });

function sitesOf(
  { sites, config }: LanguageModel,
  prompt: Prompt,
  filter: SiteFilterLike | undefined,
): SiteName[] {
  if (typeof filter === "string") return matchSites(sites, [filter]);
  if (Array.isArray(filter)) return matchSites(sites, filter as readonly SitePattern[]);
  const hasImages = config.vision !== undefined && picturesOf(prompt).length > 0;
  const computed = siteNames(sites).filter(
    (site) => hasImages || siteInfo(sites, site).sequences !== "images",
  );
  const chosen = filter ? computed.filter(filter as (site: SiteName) => boolean) : computed;
  if (chosen.length > 0) return chosen;
  throw new SiteError(`cacheAll: expected filter to let at least one of ${computed.length} sites through`);
}

function elementsOf({ info, positions, heads, width, layout }: Target, { prompts, images }: Batch): number {
  let elements = 0;
  for (const [sequence, { length }] of positions) {
    if (layout === "rows") elements += length * width!;
    else {
      const keys = keysOf(info, sequence, { prompts, images });
      elements += heads.length * length * keys;
    }
  }
  return elements;
}

/** Columns of scores or a pattern of a sequence. */
function keysOf(
  { sequences, keyRowsOf, keySequences }: Target["info"],
  sequence: number,
  { prompts, images }: Batch,
): number {
  if (sequences === "images") return imageRowCount(images.flat()[sequence]!, keyRowsOf ?? "tower");
  if (keySequences) return prompts[sequence]!.source!.length;
  if (!keyRowsOf) return prompts[sequence]!.length;
  return images[sequence]!.reduce((sum, image) => sum + imageRowCount(image, keyRowsOf), 0);
}

function sum(targets: readonly CacheTarget[]): number {
  return targets.reduce((total, { bytes }) => total + bytes, 0);
}

/** What takes most, by kind of site. */
function largest(targets: readonly CacheTarget[]): string {
  const byKind = new Map<string, number>();
  for (const { tap, bytes } of targets) {
    const kind = tap.site.replace(/\.\d+$/, ".*");
    byKind.set(kind, (byKind.get(kind) ?? 0) + bytes);
  }
  const most = [...byKind].sort((a, b) => b[1] - a[1]).slice(0, SHOWN);
  return `most of it ${most.map(([kind, bytes]) => `${kind} ${showBytes(bytes)}`).join(", ")}`;
}

function showBytes(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const step = Math.min(Math.floor(Math.log2(Math.max(1, bytes)) / 10), units.length - 1);
  const scaled = bytes / 2 ** (10 * step);
  return `${step === 0 ? scaled : Number(scaled.toPrecision(3))} ${units[step]}`;
}
