import {
  aBoolean,
  aListOf,
  aNumber,
  aString,
  checkArgument,
  either,
  type Options,
  oneOf,
} from "../../arguments.ts";
import { GenerationError, PromptError, SiteError } from "../../errors.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import { placesByImage } from "../../model/prompt/image-places.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { mostProbableTokens } from "../../model/walk/sampling.ts";
import { siteInfo } from "../../model/walk/site-info.ts";
import type { SiteName } from "../../model/walk/sites.ts";
import { aModel, aPrompt, somePositions } from "../../patching/arguments.ts";
import { logitDifference, type Metric, resolveMetric } from "../../patching/metric.ts";
import { type Positions, resolvePositions } from "../../patching/positions.ts";
import { matchSites, type SitePattern } from "../../patching/site-patterns.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { looksAhead } from "./patch-cells.ts";
import type { PatchColumn } from "./patch-map-result.ts";

/**
 * Whose activations go where. `denoising`: the clean prompt's into the corrupted one, which finds what is enough to restore the
 * answer. `noising`: the corrupted prompt's into the clean one, which finds what the answer needs.
 */
export type PatchDirection = "denoising" | "noising";

/** What activations of two prompts to put in each other's place, and how to judge that. */
export interface PairOptions {
  /** A row of the map each, by patterns. Default `resid_pre.*`, or `z.*` with heads. */
  sites?: SitePattern | readonly SitePattern[];
  /**
   * Positions in both prompts. Default: all from the first on at which the prompts differ (before that a patch changes
   * nothing), for prompts of one length.
   */
  positions?: Positions;
  /** A column for each head (or each of these), patched at all positions together, in place of a column for each position. */
  heads?: boolean | readonly number[];
  /** Default: the logit difference of the most probable tokens of the clean and the corrupted prompt. */
  metric?: Metric;
  direction?: PatchDirection;
}

export const PAIR_OPTIONS: Options<PairOptions> = {
  sites: either(aString, aListOf(aString)),
  positions: somePositions,
  heads: either(aBoolean, aListOf(aNumber)),
  metric: { words: "a metric, as logitDifference(…) makes one", holds: (x) => x !== null },
  direction: oneOf("denoising", "noising"),
};

/** Two prompts, and what of one is put into the other. */
export interface PatchPair {
  readonly direction: PatchDirection;
  /** The prompt that is patched, and the one whose activations it gets. */
  readonly base: Prompt;
  readonly source: Prompt;
  readonly rows: readonly SiteName[];
  readonly positions: PairedPositions;
  readonly columns: readonly PatchColumn[];
  /** The metric, if one was given, with its tokens looked up. */
  readonly given: Metric | undefined;
}

/** Works the options out for two prompts. Throws SiteError and PromptError where they do not fit the model or each other. */
export function pairUp(
  call: string,
  model: LanguageModel,
  [clean, corrupted]: readonly [Prompt, Prompt],
  { sites, heads, direction = "denoising", ...options }: PairOptions,
): PatchPair {
  const given = options.metric && resolveMetric(call, model, options.metric);
  const [base, source] = direction === "denoising" ? [corrupted, clean] : [clean, corrupted];
  const rows = matchSites(model.sites, [sites ?? (heads ? "z.*" : "resid_pre.*")].flat());
  const positions = positionsOf(call, model, options.positions, base, source);
  const columns = columnsOf(call, model, rows, heads, base, positions.base);
  return { direction, base, source, rows, positions, columns, given };
}

/** Throws ArgumentError unless these are a model and two prompts. */
export function checkPair(call: string, model: unknown, clean: unknown, corrupted: unknown): void {
  checkArgument(call, "model", model, aModel);
  checkArgument(call, "clean", clean, aPrompt);
  checkArgument(call, "corrupted", corrupted, aPrompt);
}

interface PairedPositions {
  readonly base: readonly number[];
  readonly source: readonly number[];
}

function positionsOf(
  call: string,
  model: LanguageModel,
  at: Positions | undefined,
  base: Prompt,
  source: Prompt,
): PairedPositions {
  if (at === undefined) {
    checkSameLength(call, base, source);
    const all = Array.from({ length: base.length - firstDifference(model, base, source) }, (_, i) => i);
    const positions = all.map((i) => base.length - all.length + i);
    if (positions.length > 0) return { base: positions, source: positions };
    throw new PromptError(`${call}: expected two prompts that differ, found the same tokens in both`);
  }
  return pairedPositions(call, at, base, source);
}

/** Throws PromptError for prompts of which no positions are named and whose lengths differ; `examples` of how to name them. */
export function checkSameLength(
  call: string,
  base: Prompt,
  source: Prompt,
  examples = 'counted from the end ([-2, -1]) or by a span ({ span: "x" })',
): void {
  if (base.length === source.length) return;
  throw new PromptError(
    `${call}: expected prompts of one length, found ${base.length} and ${source.length} tokens; name positions ` +
      `that both have, ${examples}`,
  );
}

/** The positions in both prompts. Throws PromptError where they are not as many. */
export function pairedPositions(call: string, at: Positions, base: Prompt, source: Prompt): PairedPositions {
  const positions = { base: resolvePositions(at, base), source: resolvePositions(at, source) };
  if (positions.base.length === positions.source.length) return positions;
  throw new PromptError(
    `${call}: expected as many positions in both prompts, found ${positions.base.length} and ${positions.source.length}`,
  );
}

/** The first position at which activations may differ: that of another token, or of what may be another picture. */
function firstDifference(model: LanguageModel, a: Prompt, b: Prompt): number {
  if (looksAhead(model, a) || looksAhead(model, b)) return 0;
  const { vision } = model.config;
  const places = vision ? placesByImage(a, vision) : [];
  // A picture without places may be seen from anywhere.
  const pictures = a.images.flatMap((image, i) => (image === b.images[i] ? [] : (places[i]?.[0] ?? 0)));
  const token = a.ids.findIndex((id, i) => id !== b.ids[i]);
  return Math.min(token < 0 ? a.length : token, ...pictures);
}

function columnsOf(
  call: string,
  model: LanguageModel,
  rows: readonly SiteName[],
  heads: PairOptions["heads"],
  base: Prompt,
  positions: readonly number[],
): PatchColumn[] {
  const infos = rows.map((site) => ({ name: site, ...siteInfo(model.sites, site) }));
  const image = infos.find(({ sequences }) => sequences === "images");
  if (image) {
    throw new SiteError(
      `${call}: expected sites whose rows are tokens, found ${image.name}, whose rows are of images`,
    );
  }
  if (heads === undefined || heads === false) {
    const whole = infos.find(({ layout }) => layout === "attention");
    if (whole) throw new SiteError(`${call}: ${whole.name} is patched head by head; give heads: true`);
    return positions.map((position) => ({ position, token: model.tokenizer.decode([base.ids[position]!]) }));
  }
  const without = infos.find((info) => info.heads === undefined);
  if (without)
    throw new SiteError(`${call}: expected sites with heads, found ${without.name}, which has none`);
  const counts = new Set(infos.map((info) => info.heads!));
  if (heads === true && counts.size > 1) {
    throw new SiteError(
      `${call}: expected sites with as many heads each, found ${[...counts].join(" and ")}; map them one by one`,
    );
  }
  const count = Math.min(...counts);
  const chosen = heads === true ? Array.from({ length: count }, (_, head) => head) : heads;
  const wrong = chosen.find((head) => !(Number.isInteger(head) && head >= 0 && head < count));
  if (wrong === undefined && chosen.length > 0) return chosen.map((head) => ({ head }));
  throw new SiteError(`${call}: expected heads from 0 to ${count - 1}, found ${wrong ?? "none"}`);
}

/** What tells the two prompts' answers apart. Throws GenerationError where they are the same. */
export async function defaultMetric(
  call: string,
  model: LanguageModel,
  clean: Tensor,
  corrupted: Tensor,
): Promise<Metric> {
  const name = (row: number) => `${call}: ${row === 0 ? "the clean prompt" : "the corrupted prompt"}`;
  const [answer] = await mostProbableTokens(clean, () => name(0));
  const [against] = await mostProbableTokens(corrupted, () => name(1));
  if (answer !== against) return logitDifference(answer!, against!);
  throw new GenerationError(
    `${call}: expected the prompts to have other answers, found ${JSON.stringify(model.tokenizer.decode([answer!]))} ` +
      "for both; give a metric, as logitDifference(answer, against) makes one",
  );
}

/** Throws GenerationError where a metric is NaN. */
export function checkValues(
  call: string,
  values: readonly number[],
  rows: readonly SiteName[],
  columns: readonly PatchColumn[],
): void {
  const bad = values.findIndex((value) => Number.isNaN(value));
  if (bad < 0) return;
  const column = columns[bad % columns.length]!;
  const place = "position" in column ? `position ${column.position}` : `head ${column.head}`;
  throw new GenerationError(
    `${call}: the metric is NaN with ${rows[Math.floor(bad / columns.length)]} patched at ${place}`,
  );
}
