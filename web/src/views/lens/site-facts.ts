import type { ModelSummary, SiteSummary } from "../../../../src/session/messages/results.ts";
import { type Bounds, problemOf } from "./edit-specs.ts";
import type { How, LensEdit, LensSlice } from "./lens-slice.ts";

/** Sites whose rows can be read through the unembedding; `STREAM_SITES` of the library, which brings kernels along. */
export const READ_SITES: ReadonlySet<string> = new Set([
  "resid_pre",
  "attn_in",
  "attn_out",
  "resid_mid",
  "mlp_in",
  "mlp_out",
  "resid_post",
]);

/** What the cells of the grids are read from: the site that is edited where that can be read. */
export function readSite(site: string): string {
  return READ_SITES.has(site) ? site : "resid_post";
}

/** Sites of the layers that compute the answer, with a vector for each token. */
export function editableSites({ sites }: ModelSummary): (SiteSummary & { readonly name: string })[] {
  return sites.flatMap((site) =>
    site.stack === "text" && site.rows === "prompts" && site.layers && site.features !== undefined
      ? [{ ...site, name: site.pattern.replace(/\.\*$/, "") }]
      : [],
  );
}

type Lengths = Pick<Bounds, "source" | "target">;

export function boundsOf(summary: ModelSummary, { site }: Pick<How, "site">, lengths: Lengths): Bounds {
  const facts = editableSites(summary).find(({ name }) => name === site);
  return { ...lengths, layers: summary.layers, siteLayers: facts?.layers, heads: facts?.heads };
}

/** Which edits are in force, and why the others that are switched on are not. */
export function editsOf(
  { edits }: LensSlice,
  summary: ModelSummary | undefined,
  lengths: Lengths,
): { readonly inForce: readonly LensEdit[]; readonly problems: ReadonlyMap<number, string> } {
  const problems = new Map<number, string>();
  if (!summary) return { inForce: [], problems };
  for (const edit of edits) {
    const why = problemOf(edit, boundsOf(summary, edit, lengths));
    if (why) problems.set(edit.id, why);
  }
  return { inForce: edits.filter(({ id, on }) => on && !problems.has(id)), problems };
}
