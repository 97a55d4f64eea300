import {
  aListOf,
  aNumber,
  anObject,
  aString,
  checkArgument,
  checkOptions,
  type Options,
  oneOf,
} from "../../arguments.ts";
import { GenerationError, SiteError } from "../../errors.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { siteInfo, siteNames } from "../../model/walk/site-info.ts";
import type { SiteName } from "../../model/walk/sites.ts";
import { somePositions } from "../../patching/arguments.ts";
import { type Edit, set } from "../../patching/edit.ts";
import { type Metric, measure, resolveMetric, showMetric } from "../../patching/metric.ts";
import { type Positions, resolvePositions, showPositions } from "../../patching/positions.ts";
import { run } from "../../patching/run.ts";
import { settingOf } from "../../patching/setting.ts";
import { tap } from "../../patching/tap.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { checkPair, defaultMetric, type PairOptions, pairedPositions } from "./patch-pairs.ts";
import { PathEffect } from "./path-effect.ts";

/** One end of a path. */
export interface PathEnd {
  readonly site: SiteName;
  /** Where the site has heads. Default: all. */
  readonly head?: number;
  /** Default: all positions. */
  readonly at?: Positions;
}

/** The path that {@link pathPatch} patches, and what it measures. */
export interface PathPatchOptions extends Pick<PairOptions, "metric" | "direction"> {
  /** The sender: a head (`z`), `attn_out`, `mlp_out` or `embed`. */
  from: PathEnd;
  /** The receivers, all of which get the change: what later parts read, such as `q`, `k`, `v`, `mlp_in`, `final_norm`. */
  to: readonly PathEnd[];
  /**
   * What passes nothing on between sender and receivers: attention and MLPs (`all`, the default), so that the path is that of
   * the residual stream alone; or attention only, so that it may go through MLPs, as Wang et al. have it.
   */
  freeze?: "all" | "attention";
}

const END: Options<PathEnd> = { site: aString, head: aNumber, at: somePositions };
const OPTIONS: Options<PathPatchOptions> = {
  from: anObject,
  to: aListOf(anObject),
  freeze: oneOf("all", "attention"),
  metric: { words: "a metric, as logitDifference(…) makes one", holds: (x) => x !== null },
  direction: oneOf("denoising", "noising"),
};

/** Kinds of sites that write into the residual stream and may be senders. */
const SENDERS: ReadonlySet<string> = new Set(["z", "attn_out", "mlp_out", "embed"]);
const FROZEN = { attention: ["z", "xattn_out"], mlps: ["mlp_out", "xmlp_out"] };
/** What is frozen, or computed from nothing but that. */
const CLOSED: ReadonlySet<string> = new Set([...SENDERS, ...FROZEN.attention, ...FROZEN.mlps]);

/**
 * Path patching (Wang et al. 2022, arXiv 2211.00593): what one part of the model does to a metric by way of what certain later
 * parts read from it directly, and not by way of anything between.
 *
 * Three steps. The sender gets its activation of the other prompt, in a run of the patched prompt in which from the sender's
 * layer on everything else that writes into the residual stream is frozen to the patched prompt's own values: `z` of every
 * other head at every position, `mlp_out` of every layer (unless `freeze` is `attention`), and where there is cross-attention
 * `xattn_out` and `xmlp_out`. Norms and projections are computed. What the receivers then are is put into a run of the patched
 * prompt in which nothing is frozen, and the metric is taken of that.
 *
 * Throws like `run`; SiteError for senders that do not write into the stream, and for receivers that are frozen, come before the
 * sender, or are whole scores or patterns (name a head); and like `patchMap` for prompts and metrics.
 *
 * @example await pathPatch(model, clean, corrupted, { from: { site: "z.9", head: 6 }, to: [{ site: "q.10", head: 0, at: -1 }] });
 */
export async function pathPatch(
  model: LanguageModel,
  clean: Prompt,
  corrupted: Prompt,
  options: PathPatchOptions,
): Promise<PathEffect> {
  checkPair("pathPatch", model, clean, corrupted);
  checkOptions("pathPatch", options, OPTIONS, { required: ["from", "to"] });
  const { from, to, freeze = "all", direction = "denoising" } = options;
  checkEnds(model, from, to);
  const given = options.metric && resolveMetric("pathPatch", model, options.metric);
  const [base, source] = direction === "denoising" ? [corrupted, clean] : [clean, corrupted];
  const sequences = { base: model.sequenceOf(base), source: model.sequenceOf(source) };
  const sending = pairedPositions("pathPatch", from.at ?? "all", sequences.base, sequences.source);
  const receiving = to.map(({ at = "all" }) => resolvePositions(at, sequences.base));
  const { device, config } = model;
  const scope = device.openScope();
  try {
    const [baseLogits, sourceLogits, patchedLogits] = scope.enter(() => {
      const rows = (logits: Tensor | undefined) => logits!.reshape([1, logits!.size]);
      const sent = run(model, source, { taps: { x: tap(from.site, sending.source, partOf(from)) } });
      const last = Math.max(...to.map(({ site }) => siteInfo(model.sites, site).order));
      const frozen = frozenSites(model, from.site, last, freeze);
      const plain = run(model, base, { taps: { x: tap(frozen, "all") } });
      const edits: Edit[] = frozen.map((site) =>
        set(site, "all", (plain.x as Record<string, Tensor>)[site]!),
      );
      edits.push(set(from.site, sending.base, sent.x, partOf(from)));

      const taps = Object.fromEntries(
        to.map((end, i) => [`r${i}`, tap(end.site, receiving[i]!, partOf(end))] as const),
      );
      const received = run(model, base, { taps, edits, ...(last < config.layers && { stopAfter: last }) });
      const reading = to.map((end, i) =>
        set(end.site, receiving[i]!, (received as unknown as Record<string, Tensor>)[`r${i}`]!, partOf(end)),
      );
      const patched = run(model, base, { edits: reading });
      return [rows(plain.logits), rows(sent.logits), rows(patched.logits)] as const;
    });
    const [cleanLogits, corruptedLogits] =
      direction === "denoising" ? [sourceLogits, baseLogits] : [baseLogits, sourceLogits];
    const metric = given ?? (await defaultMetric("pathPatch", model, cleanLogits, corruptedLogits));
    const measured = scope.enter(() =>
      [patchedLogits, cleanLogits, corruptedLogits].map((logits) => measure(metric, logits, cleanLogits)),
    );
    const [value, cleanValue, corruptedValue] = (await device.read(measured)).map(([number]) => number!);
    if (Number.isNaN(value)) throw new GenerationError("pathPatch: the metric is NaN with the path patched");
    return new PathEffect({
      setting: settingOf(model),
      from: showEnd(from),
      to: to.map(showEnd),
      freeze,
      value: value!,
      clean: cleanValue!,
      corrupted: corruptedValue!,
      direction,
      metric: showMetric(metric as Metric, model),
    });
  } finally {
    scope.dispose();
  }
}

function partOf({ head }: PathEnd): { head?: number } {
  return head === undefined ? {} : { head };
}

function showEnd({ site, head, at = "all" }: PathEnd): string {
  return `${site}${head === undefined ? "" : `, head ${head}`}, ${showPositions(at)}`;
}

function checkEnds({ sites }: LanguageModel, from: PathEnd, to: readonly PathEnd[]): void {
  checkOptions("pathPatch", from, END, { name: "from", required: ["site"] });
  checkArgument("pathPatch", "to", to, { words: "at least one receiver", holds: () => to.length > 0 });
  const sender = siteInfo(sites, from.site);
  if (sender.stack !== "text" || !SENDERS.has(sender.site)) {
    throw new SiteError(
      `pathPatch: expected a sender that writes into the residual stream, ${[...SENDERS].join(", ")}, found ${from.site}`,
    );
  }
  const order = siteNames(sites);
  for (const [i, end] of to.entries()) {
    checkOptions("pathPatch", end, END, { name: `to[${i}]`, required: ["site"] });
    const { stack, site, layout } = siteInfo(sites, end.site);
    if (stack !== "text" || CLOSED.has(site)) {
      throw new SiteError(
        `pathPatch: expected receivers that read the residual stream, such as q, k, v, mlp_in, resid_pre or final_norm, found ${end.site}`,
      );
    }
    if (layout === "attention" && end.head === undefined) {
      throw new SiteError(`pathPatch: ${end.site} is received head by head; name a head`);
    }
    if (order.indexOf(end.site) < order.indexOf(from.site)) {
      throw new SiteError(`pathPatch: expected receivers behind the sender ${from.site}, found ${end.site}`);
    }
  }
}

/** What writes into the stream from the sender's layer to the last that matters. */
function frozenSites(
  { sites }: LanguageModel,
  sender: SiteName,
  last: number,
  freeze: "all" | "attention",
): SiteName[] {
  const { layer = 0 } = siteInfo(sites, sender);
  const kinds = freeze === "all" ? [...FROZEN.attention, ...FROZEN.mlps] : FROZEN.attention;
  return siteNames(sites).filter((name) => {
    const { stack, site, layer: own } = siteInfo(sites, name);
    return stack === "text" && own !== undefined && own >= layer && own <= last && kinds.includes(site);
  });
}
