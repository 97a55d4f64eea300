import { siteInfo } from "../model/walk/site-info.ts";
import type { SiteMap } from "../model/walk/site-shapes.ts";
import { isOnePosition } from "./positions.ts";
import { matchSites } from "./site-patterns.ts";
import { type Batch, resolveTarget } from "./site-targets.ts";
import type { Tap, TapGroup, Taps } from "./tap.ts";
import { TapResult } from "./tap-result.ts";

/** Results of taps by name; of a tap of several sites by site. */
export type TapResults = Readonly<Record<string, TapResult | Readonly<Record<string, TapResult>>>>;

/** All results one after the other. */
export function eachResult(results: TapResults): TapResult[] {
  return Object.values(results).flatMap((result) =>
    result instanceof TapResult ? [result] : Object.values(result),
  );
}

/** Checks taps against a model and its inputs. Throws SiteError or PromptError. */
export function resolveTaps(taps: Taps, sites: SiteMap, batch: Batch, single: boolean): TapResults {
  const resolve = (name: string, tap: Tap): TapResult => {
    const options = { members: batch.images.keys(), oneImage: true };
    const target = resolveTarget(`${tap.kind} ${name}`, tap, sites, batch, options);
    return new TapResult(tap.kind, target, {
      single,
      onePosition: isOnePosition(tap.at),
      oneHead: tap.head !== undefined,
    });
  };
  return Object.fromEntries(
    Object.entries(taps).map(([name, tap]) => {
      if (!("sites" in tap)) return [name, resolve(name, tap)];
      const each = expandTap(tap, sites).map((one) => [one.site, resolve(name, one)] as const);
      return [name, Object.fromEntries(each)];
    }),
  );
}

/** A tap of several sites as a tap a site. */
function expandTap({ sites, image, ...rest }: TapGroup, map: SiteMap): Tap[] {
  const found = matchSites(map, sites);
  const ofImages = new Set(found.filter((site) => siteInfo(map, site).sequences === "images"));
  return found.map((site) => ({
    ...rest,
    site,
    ...(image !== undefined && (ofImages.has(site) || ofImages.size === 0) && { image }),
  }));
}
