import { SiteError } from "../errors.ts";
import { siteInfo, siteNames } from "../model/walk/site-info.ts";
import type { SiteMap } from "../model/walk/site-shapes.ts";
import { siteFromElsewhere } from "../model/walk/site-translation.ts";
import { parseSite, type SiteName } from "../model/walk/sites.ts";
import { nearest } from "../nearest.ts";

/**
 * Names sites: one by its name, or several with `*`, which stands for any letters and digits but a dot: `resid_post.*` is
 * every layer's, `*_out.3` attn_out and mlp_out of layer 3, `vision.z.*` those of the vision tower. `*` alone is every site.
 */
export type SitePattern = SiteName | `${string}*${string}`;

/** The names that a pattern may stand for, as far as types can tell. */
export type SitesOf<P> = P extends SiteName
  ? P
  : P extends `${infer Site}.*`
    ? Extract<SiteName, `${AnyLetters<Site>}.${number}`>
    : SiteName;

type AnyLetters<S extends string> = S extends `${infer Before}*${infer After}`
  ? `${Before}${string}${AnyLetters<After>}`
  : S;

/** A list of patterns, one pattern, or a function that lets sites through. */
export type SiteFilterLike<P extends SitePattern = SitePattern> =
  | P
  | readonly P[]
  | ((site: SiteName) => boolean);

/**
 * The sites of a model that patterns stand for, each once, in the order of the forward pass. Throws SiteError for a pattern that
 * stands for none of them, with the nearest that does.
 */
export function matchSites(map: SiteMap, patterns: readonly string[]): SiteName[] {
  const all = siteNames(map);
  const matched = new Set<SiteName>();
  for (const pattern of patterns) {
    const test = testOf(pattern);
    const found = all.filter((site) => test(site));
    if (found.length === 0) throw noMatch(map, pattern, all);
    for (const site of found) matched.add(site);
  }
  return all.filter((site) => matched.has(site));
}

function testOf(pattern: string): (site: string) => boolean {
  if (pattern === "*") return () => true;
  const parts = pattern.split("*").map((part) => part.replace(/[.\\+?^${}()|[\]]/g, "\\$&"));
  const expression = new RegExp(`^${parts.join("[^.]*")}$`);
  return (site) => expression.test(site);
}

/** What is wrong with a pattern that stands for nothing. */
function noMatch(map: SiteMap, pattern: string, all: readonly SiteName[]): SiteError {
  const first = pattern.replaceAll("*", "0");
  const absent = reasonFor(map, first);
  if (!pattern.includes("*") && absent) return absent;
  if (absent && isSite(first)) return new SiteError(`no site is called "${pattern}": ${absent.message}`);
  const elsewhere = siteFromElsewhere(first)?.replace('.0"', '.*"');
  const patterns = new Set(all.map((site) => site.replace(/\.\d+$/, ".*")));
  const hint =
    elsewhere === undefined ? `the nearest is "${nearest(pattern, patterns)}"` : `it is called ${elsewhere}`;
  return new SiteError(
    `no site of this model is called "${pattern}"; ${hint} (* stands for letters and digits, not for a dot)`,
  );
}

/** Why a model has no site of this name, or undefined where it has one. */
function reasonFor(map: SiteMap, name: string): SiteError | undefined {
  try {
    siteInfo(map, name as SiteName);
    return undefined;
  } catch (error) {
    if (error instanceof SiteError) return error;
    throw error;
  }
}

function isSite(name: string): boolean {
  try {
    parseSite(name);
    return true;
  } catch {
    return false;
  }
}
