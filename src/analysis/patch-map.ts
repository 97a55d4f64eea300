import {
  aBoolean,
  aFunction,
  aListOf,
  aNumber,
  aString,
  checkArgument,
  checkOptions,
  either,
  type Options,
  oneOf,
} from "../arguments.ts";
import { GenerationError, PromptError, SiteError } from "../errors.ts";
import type { LanguageModel } from "../model/language-model.ts";
import { placesByImage } from "../model/prompt/image-places.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { mostProbableTokens } from "../model/walk/sampling.ts";
import { siteInfo } from "../model/walk/site-shapes.ts";
import type { SiteName } from "../model/walk/sites.ts";
import { aModel, aPrompt, somePositions } from "../patching/arguments.ts";
import { logitDifference, type Metric, measure, resolveMetric, showMetric } from "../patching/metric.ts";
import { type Positions, resolvePositions } from "../patching/positions.ts";
import { record } from "../patching/recording.ts";
import { run } from "../patching/run.ts";
import { settingOf } from "../patching/setting.ts";
import { matchSites, type SitePattern } from "../patching/site-patterns.ts";
import { tap } from "../patching/tap.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { batchesOf, cellOf, looksAhead, resumeBatch } from "./patch-cells.ts";
import { type PatchColumn, PatchMap } from "./patch-map-result.ts";

/**
 * Whose activations go where. `denoising`: the clean prompt's into the corrupted one, which finds what is enough to restore the
 * answer. `noising`: the corrupted prompt's into the clean one, which finds what the answer needs.
 */
export type PatchDirection = "denoising" | "noising";

export interface PatchMapOptions {
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
  /** Most rows (tokens times patched copies) in one batch; bounds the memory. Default 2048. */
  batchRows?: number;
  /** Called with the number of patches done, and of all. */
  onProgress?: (done: number, all: number) => void;
}

export const PATCH_MAP_OPTIONS: Options<PatchMapOptions> = {
  sites: either(aString, aListOf(aString)),
  positions: somePositions,
  heads: either(aBoolean, aListOf(aNumber)),
  metric: { words: "a metric, as logitDifference(…) makes one", holds: (x) => x !== null },
  direction: oneOf("denoising", "noising"),
  batchRows: aNumber,
  onProgress: aFunction,
};

const BATCH_ROWS = 2048;

/**
 * Activation patching site by site: every cell is a run of one prompt with one activation of the other put in, judged by a
 * metric (Heimersheim & Nanda 2024, arXiv 2404.15255). Costs a run of each prompt and, for each cell, the rows that it can
 * change; the values are those of full runs.
 *
 * Throws SiteError and PromptError like `run`, PromptError for prompts that do not fit each other, ArgumentError for a metric
 * whose text is not one token, and GenerationError where a metric is NaN.
 *
 * @example console.log(await patchMap(model, clean, corrupted, { metric: logitDifference(" Paris", " Rome") }));
 */
export async function patchMap(
  model: LanguageModel,
  clean: Prompt,
  corrupted: Prompt,
  options: PatchMapOptions = {},
): Promise<PatchMap> {
  checkPair("patchMap", model, clean, corrupted);
  checkOptions("patchMap", options, PATCH_MAP_OPTIONS);
  const { direction = "denoising", heads, onProgress } = options;
  const given = options.metric && resolveMetric("patchMap", model, options.metric);
  const [base, source] = direction === "denoising" ? [corrupted, clean] : [clean, corrupted];
  const rows = matchSites(model.sites, [options.sites ?? (heads ? "z.*" : "resid_pre.*")].flat());
  const positions = positionsOf(model, options.positions, base, source);
  const columns = columnsOf(model, rows, heads, base, positions.base);
  const scope = model.device.openScope();
  try {
    using recording = record(model, [base]);
    const { other, taps } = scope.enter(() => {
      const { logits, x } = run(model, source, { taps: { x: tap(rows, positions.source) } });
      return { other: logits!.reshape([1, logits!.size]), taps: x };
    });
    const [cleanLogits, corruptedLogits] =
      direction === "denoising" ? [other, recording.logits] : [recording.logits, other];
    const metric = given ?? (await defaultMetric(model, cleanLogits, corruptedLogits));
    const cells = rows.flatMap((site) =>
      columns.map((column) => scope.enter(() => cellOf(model, site, column, positions.base, taps[site]!))),
    );
    const measured = scope.enter(() =>
      [cleanLogits, corruptedLogits].map((x) => measure(metric, x, cleanLogits)),
    );
    const [cleanValue, corruptedValue] = (await model.device.read(measured)).map(([value]) => value!);
    const values: number[] = [];
    let rowLayers = recording.rowLayers + source.length * model.config.layers;
    for (const batch of batchesOf(model, base, cells, options.batchRows ?? BATCH_ROWS)) {
      const resumed = resumeBatch(recording, batch, (logits) => measure(metric, logits, cleanLogits));
      rowLayers += resumed.rowLayers;
      values.push(...(await readAndFree(resumed.values)));
      onProgress?.(values.length, cells.length);
    }
    checkValues(values, rows, columns);
    const plainRowLayers = model.config.layers * (base.length * (cells.length + 1) + source.length);
    return new PatchMap({
      setting: settingOf(model),
      rows,
      columns,
      values: rows.map((_, r) => values.slice(r * columns.length, (r + 1) * columns.length)),
      clean: cleanValue!,
      corrupted: corruptedValue!,
      direction,
      metric: showMetric(metric, model),
      rowLayers,
      plainRowLayers,
    });
  } finally {
    scope.dispose();
  }
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
  model: LanguageModel,
  at: Positions | undefined,
  base: Prompt,
  source: Prompt,
): PairedPositions {
  if (at === undefined) {
    if (base.length !== source.length) {
      throw new PromptError(
        `patchMap: expected prompts of one length, found ${base.length} and ${source.length} tokens; name positions ` +
          'that both have, counted from the end ([-2, -1]) or by a span ({ span: "x" })',
      );
    }
    const all = Array.from({ length: base.length - firstDifference(model, base, source) }, (_, i) => i);
    const positions = all.map((i) => base.length - all.length + i);
    if (positions.length > 0) return { base: positions, source: positions };
    throw new PromptError("patchMap: expected two prompts that differ, found the same tokens in both");
  }
  const positions = { base: resolvePositions(at, base), source: resolvePositions(at, source) };
  if (positions.base.length === positions.source.length) return positions;
  throw new PromptError(
    `patchMap: expected as many positions in both prompts, found ${positions.base.length} and ${positions.source.length}`,
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
  model: LanguageModel,
  rows: readonly SiteName[],
  heads: PatchMapOptions["heads"],
  base: Prompt,
  positions: readonly number[],
): PatchColumn[] {
  const infos = rows.map((site) => ({ name: site, ...siteInfo(model.sites, site) }));
  const image = infos.find(({ sequences }) => sequences === "images");
  if (image) {
    throw new SiteError(
      `patchMap: expected sites whose rows are tokens, found ${image.name}, whose rows are of images`,
    );
  }
  if (heads === undefined || heads === false) {
    const whole = infos.find(({ layout }) => layout === "attention");
    if (whole) throw new SiteError(`patchMap: ${whole.name} is patched head by head; give heads: true`);
    return positions.map((position) => ({ position, token: model.tokenizer.decode([base.ids[position]!]) }));
  }
  const without = infos.find((info) => info.heads === undefined);
  if (without)
    throw new SiteError(`patchMap: expected sites with heads, found ${without.name}, which has none`);
  const counts = new Set(infos.map((info) => info.heads!));
  if (heads === true && counts.size > 1) {
    throw new SiteError(
      `patchMap: expected sites with as many heads each, found ${[...counts].join(" and ")}; map them one by one`,
    );
  }
  const count = Math.min(...counts);
  const chosen = heads === true ? Array.from({ length: count }, (_, head) => head) : heads;
  const wrong = chosen.find((head) => !(Number.isInteger(head) && head >= 0 && head < count));
  if (wrong === undefined && chosen.length > 0) return chosen.map((head) => ({ head }));
  throw new SiteError(`patchMap: expected heads from 0 to ${count - 1}, found ${wrong ?? "none"}`);
}

async function readAndFree(tensor: Tensor): Promise<Iterable<number>> {
  try {
    return await tensor.read();
  } finally {
    tensor.dispose();
  }
}

/** What tells the two prompts' answers apart. Throws GenerationError where they are the same. */
async function defaultMetric(model: LanguageModel, clean: Tensor, corrupted: Tensor): Promise<Metric> {
  const name = (row: number) => `patchMap: ${row === 0 ? "the clean prompt" : "the corrupted prompt"}`;
  const [answer] = await mostProbableTokens(clean, () => name(0));
  const [against] = await mostProbableTokens(corrupted, () => name(1));
  if (answer !== against) return logitDifference(answer!, against!);
  throw new GenerationError(
    `patchMap: expected the prompts to have other answers, found ${JSON.stringify(model.tokenizer.decode([answer!]))} ` +
      "for both; give a metric, as logitDifference(answer, against) makes one",
  );
}

function checkValues(
  values: readonly number[],
  rows: readonly SiteName[],
  columns: readonly PatchColumn[],
): void {
  const bad = values.findIndex((value) => Number.isNaN(value));
  if (bad < 0) return;
  const column = columns[bad % columns.length]!;
  const place = "position" in column ? `position ${column.position}` : `head ${column.head}`;
  throw new GenerationError(
    `patchMap: the metric is NaN with ${rows[Math.floor(bad / columns.length)]} patched at ${place}`,
  );
}
