import { checkOptions } from "../arguments.ts";
import type { SiteName } from "../model/walk/sites.ts";
import { checkTap, TAP_OPTIONS } from "./arguments.ts";
import type { Positions } from "./positions.ts";
import type { SitePattern } from "./site-patterns.ts";

/** Part of a site's rows: a head of q, k, v, z, scores or pattern, or a range of features (columns). */
export interface Part {
  readonly head?: number;
  readonly features?: { readonly start: number; readonly end: number };
  /** At vision sites: which image of the prompt. Taps need it where there are several; edits mean all unless given. */
  readonly image?: number;
}

/**
 * Asks a run for a copy of an activation. A value that any number of runs can use; without a function for `at` it is plain
 * data, which can be stored and sent.
 *
 * At one position the result is [features]; at a span, a list or all positions it is [positions, features]. Scores and
 * patterns have the heads in front and the keys as features: [heads, keys] and [heads, positions, keys], without the
 * heads if one is named. For a list of prompts, single positions come stacked as [prompts, features], the others as an
 * array with a tensor a prompt (as do scores and patterns, whose keys differ in number).
 *
 * At vision sites positions are rows of one image: its patches row by row, after the class token where there is one.
 */
export interface Tap<At extends Positions = Positions, Site extends SiteName = SiteName> extends Part {
  readonly kind: "tap" | "gradient";
  readonly site: Site;
  readonly at: At;
}

/**
 * The same of several sites at once, by patterns; see {@link SitePattern}. Its result is a record: what a tap of each site by
 * itself would give, by the site's name, in the order of the forward pass. An `image` is for those of its sites that are of
 * images.
 */
export interface TapGroup<At extends Positions = Positions, Pattern extends SitePattern = SitePattern>
  extends Part {
  readonly kind: "tap" | "gradient";
  readonly sites: readonly Pattern[];
  readonly at: At;
}

/** Taps by the names that a result has them under. */
export type Taps = Readonly<Record<string, Tap | TapGroup>>;

/**
 * Asks a run for a copy of an activation: of the site of that name, or, given a pattern or a list of names and patterns, of each of
 * several; at some token positions, or at all. The run checks it, and throws SiteError and PromptError for what its model or prompt does
 * not have.
 *
 * @example
 * const { v } = model.run(prompt, { taps: { v: tap("resid_post.15", -1) } });
 * const { all } = model.run(prompt, { taps: { all: tap("resid_post.*", -1) } }); // all["resid_post.15"]
 */
export function tap<Site extends SiteName>(site: Site): Tap<"all", Site>;
export function tap<Site extends SiteName, At extends Positions>(
  site: Site,
  at: At,
  part?: Part,
): Tap<At, Site>;
export function tap<const Pattern extends SitePattern>(
  sites: Pattern | readonly Pattern[],
): TapGroup<"all", Pattern>;
export function tap<const Pattern extends SitePattern, At extends Positions>(
  sites: Pattern | readonly Pattern[],
  at: At,
  part?: Part,
): TapGroup<At, Pattern>;
export function tap(
  site: SitePattern | readonly SitePattern[],
  at: Positions = "all",
  part: Part = {},
): Tap | TapGroup {
  return make("tap", site, at, part);
}

/**
 * Asks a run that has a metric for the gradient of that metric with respect to an activation, in the shape of what {@link tap}
 * of the same arguments gives: by how much the metric changes with each number, all that is computed from it counted in. Where
 * edits change the activation, with respect to what they make of it.
 *
 * @example const { g } = model.run(prompt, { metric: logitDifference(" Paris", " Rome"), taps: { g: gradient("resid_post.*", -1) } });
 */
export function gradient<Site extends SiteName>(site: Site): Tap<"all", Site>;
export function gradient<Site extends SiteName, At extends Positions>(
  site: Site,
  at: At,
  part?: Part,
): Tap<At, Site>;
export function gradient<const Pattern extends SitePattern>(
  sites: Pattern | readonly Pattern[],
): TapGroup<"all", Pattern>;
export function gradient<const Pattern extends SitePattern, At extends Positions>(
  sites: Pattern | readonly Pattern[],
  at: At,
  part?: Part,
): TapGroup<At, Pattern>;
export function gradient(
  site: SitePattern | readonly SitePattern[],
  at: Positions = "all",
  part: Part = {},
): Tap | TapGroup {
  return make("gradient", site, at, part);
}

function make(
  kind: "tap" | "gradient",
  site: SitePattern | readonly SitePattern[],
  at: Positions,
  part: Part,
): Tap | TapGroup {
  checkOptions(kind, part, TAP_OPTIONS);
  const several = typeof site === "string" ? site.includes("*") : Array.isArray(site);
  const made = {
    kind,
    ...(several ? { sites: [site].flat() as SitePattern[] } : { site: site as SiteName }),
    at,
    ...part,
  } as Tap | TapGroup;
  checkTap(kind, made, { gradients: true });
  return made;
}
