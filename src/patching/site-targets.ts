import type { DecoderConfig } from "../model/decoder-config.ts";
import type { Prompt } from "../model/prompt.ts";
import { placeOf, siteShape } from "../model/site-shapes.ts";
import { layoutOf, type SiteLayout, type SiteName } from "../model/sites.ts";
import { SiteError } from "../tensor/errors.ts";
import { type Positions, resolvePositions, showPositions } from "./positions.ts";
import type { Part } from "./tap.ts";

/** Columns `start` up to but not including `end`. */
export interface FeatureRange {
  readonly start: number;
  readonly end: number;
}

/** Where a tap or an edit acts, worked out for the prompts of a run. */
export interface Target {
  readonly site: SiteName;
  readonly layout: SiteLayout;
  /** Layer for ordering: -1 is the embedding, the number of layers the head. */
  readonly layer: number;
  /** What to call it in messages. */
  readonly label: string;
  /** Positions by sequence. */
  readonly positions: ReadonlyMap<number, readonly number[]>;
  /** Heads of scores and patterns that it covers. */
  readonly heads: readonly number[];
  /** Columns, for sites whose rows are tokens; undefined for whole rows. */
  readonly features: FeatureRange | undefined;
  /** Number of those columns, or undefined where they are keys. */
  readonly width: number | undefined;
}

/**
 * Checks the site, head, features and positions of a tap or edit against a model and its prompts, `sequences` being the
 * indices of those that it concerns. Throws SiteError or PromptError before anything is computed.
 */
export function resolveTarget(
  verb: string,
  { site, at, head, features }: { site: SiteName; at: Positions } & Part,
  config: DecoderConfig,
  prompts: readonly Prompt[],
  sequences: Iterable<number>,
  newTokens = 0,
): Target {
  const place = placeOf(config, site);
  const layout = layoutOf(place.site);
  const label = `${verb} at ${site}, ${showPositions(at)}`;
  const positions = new Map([...sequences].map((s) => [s, resolvePositions(at, prompts[s]!, newTokens)]));
  const { heads = 0, features: total } = siteShape(config, place.site);
  if (head !== undefined && !(Number.isInteger(head) && head >= 0 && head < heads)) {
    throw new SiteError(
      `${label}: ${heads ? `expected a head from 0 to ${heads - 1}` : "this site has no heads"}, found head ${head}`,
    );
  }
  const shared = { site, layout, layer: place.layer, label, positions };
  if (total === "keys") {
    if (features) throw new SiteError(`${label}: the features of ${place.site} are keys; name no features`);
    const all = Array.from({ length: heads }, (_, h) => h);
    return { ...shared, heads: head === undefined ? all : [head], features: undefined, width: undefined };
  }
  const range = featureRange(
    label,
    head === undefined ? undefined : { head, size: total / heads },
    features,
    total,
  );
  return { ...shared, heads: [], features: range, width: range ? range.end - range.start : total };
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
