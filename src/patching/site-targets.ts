import { SiteError } from "../errors.ts";
import {
  type ImageRowCounts,
  imageRowCount,
  imageRowCounts,
  type VisionSetup,
} from "../model/checkpoint/config/vision-setup.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { type SiteInfo, siteInfo } from "../model/walk/site-info.ts";
import type { SiteMap } from "../model/walk/site-shapes.ts";
import type { SiteLayout, SiteName } from "../model/walk/sites.ts";
import { type Positions, resolveImageRows, resolvePositions, showPositions } from "./positions.ts";
import type { Part } from "./tap.ts";

/** Columns `start` up to but not including `end`. */
export interface FeatureRange {
  readonly start: number;
  readonly end: number;
}

/** What a run is over. */
export interface Batch {
  /** Empty for a run of a vision tower alone. */
  readonly prompts: readonly Prompt[];
  /** Images of each prompt, or of each member of a run of a vision tower; they are numbered through the batch. */
  readonly images: readonly (readonly ImageRowCounts[])[];
}

export function batchOf(prompts: readonly Prompt[], vision: VisionSetup | undefined): Batch {
  return {
    prompts,
    images: prompts.map((p) => (vision ? imageRowCounts(vision, p) : [])),
  };
}

/** Where a tap or an edit acts, worked out for the prompts of a run. */
export interface Target {
  readonly site: SiteName;
  readonly info: SiteInfo;
  readonly layout: SiteLayout;
  /** What to call it in messages. */
  readonly label: string;
  /** Positions by sequence: prompts, or at vision sites images. */
  readonly positions: ReadonlyMap<number, readonly number[]>;
  /** Heads of scores and patterns that it covers. */
  readonly heads: readonly number[];
  /** Columns, for sites whose rows are tokens; undefined for whole rows. */
  readonly features: FeatureRange | undefined;
  /** Number of those columns, or undefined where they are keys. */
  readonly width: number | undefined;
}

/** Whom a tap or edit concerns. */
export interface TargetOptions {
  /** Indices of prompts. */
  readonly members: Iterable<number>;
  /** Tokens that the prompts may grow by. */
  readonly newTokens?: number;
  /** A tap: needs to know which image it means where there are several. */
  readonly oneImage?: boolean;
}

/**
 * Checks the site, head, features, image and positions of a tap or edit against a model and its inputs. Throws SiteError
 * or PromptError before anything is computed.
 */
export function resolveTarget(
  verb: string,
  spec: { site: SiteName; at: Positions } & Part,
  map: SiteMap,
  batch: Batch,
  options: TargetOptions,
): Target {
  const { site, at, head, features, image } = spec;
  const info = siteInfo(map, site);
  const label = `${verb} at ${site}, ${showPositions(at)}`;
  const { heads = 0, features: total, layout } = info;
  if (head !== undefined && !(Number.isInteger(head) && head >= 0 && head < heads)) {
    throw new SiteError(
      `${label}: ${heads ? `expected a head from 0 to ${heads - 1}` : "this site has no heads"}, found head ${head}`,
    );
  }
  if (image !== undefined && info.sequences !== "images") {
    throw new SiteError(`${label}: only sites of the vision side take an image`);
  }
  const positions =
    info.sequences === "images"
      ? imagePositions(label, spec, info, batch, options)
      : textPositions(at, info, batch, options);
  if (info.sequences !== "images" && info.keyRowsOf) checkImages(label, batch, positions.keys());
  const shared = { site, info, layout, label, positions };
  if (total === undefined) {
    if (features) throw new SiteError(`${label}: the features of ${info.site} are keys; name no features`);
    const all = Array.from({ length: heads }, (_, h) => h);
    return { ...shared, heads: head === undefined ? all : [head], features: undefined, width: undefined };
  }
  const ofHead = head === undefined ? undefined : { head, size: total / heads };
  const range = featureRange(label, ofHead, features, total);
  return { ...shared, heads: [], features: range, width: range ? range.end - range.start : total };
}

function textPositions(
  at: Positions,
  { sequences }: SiteInfo,
  { prompts }: Batch,
  { members, newTokens }: TargetOptions,
): Map<number, readonly number[]> {
  const positionsOf = (prompt: Prompt) =>
    sequences === "sources" ? resolvePositions(at, prompt.source!) : resolvePositions(at, prompt, newTokens);
  return new Map([...members].map((s) => [s, positionsOf(prompts[s]!)]));
}

/** Throws SiteError where the keys of scores or a pattern are rows of images, and there are none. */
function checkImages(label: string, { images }: Batch, members: Iterable<number>): void {
  for (const member of members) {
    if (images[member]!.length === 0) throw new SiteError(`${label}: prompt ${member} has no image`);
  }
}

/** Rows of images, by the image's number in the batch. */
function imagePositions(
  label: string,
  { at, image }: { at: Positions } & Part,
  { rowsOf }: SiteInfo,
  { images }: Batch,
  { members, oneImage }: TargetOptions,
): Map<number, readonly number[]> {
  const positions = new Map<number, readonly number[]>();
  for (const member of members) {
    const own = images[member]!;
    const count = own.length;
    const first = images.slice(0, member).reduce((sum, { length }) => sum + length, 0);
    if (count === 0) throw new SiteError(`${label}: prompt ${member} has no image`);
    if (image !== undefined && !(Number.isInteger(image) && image >= 0 && image < count)) {
      throw new SiteError(`${label}: prompt ${member} has ${count} image(s), there is no image ${image}`);
    }
    if (oneImage && image === undefined && count > 1) {
      throw new SiteError(`${label}: prompt ${member} has ${count} images; name one, as in { image: 0 }`);
    }
    const wanted = image === undefined ? Array.from({ length: count }, (_, i) => i) : [image];
    for (const i of wanted) {
      positions.set(first + i, resolveImageRows(at, imageRowCount(own[i]!, rowsOf!)));
    }
  }
  return positions;
}

function featureRange(
  label: string,
  head: { head: number; size: number } | undefined,
  features: FeatureRange | undefined,
  total: number,
): FeatureRange | undefined {
  const width = head ? head.size : total;
  if (features && !(0 <= features.start && features.start < features.end && features.end <= width)) {
    throw new SiteError(
      `${label}: expected features within 0 to ${width}, found ${features.start} to ${features.end}`,
    );
  }
  if (!head) return features;
  const base = head.head * head.size;
  return features
    ? { start: base + features.start, end: base + features.end }
    : { start: base, end: base + head.size };
}
