import { aNumber, checkOptions, type Options } from "../../arguments.ts";
import { ArgumentError, PromptError, SiteError } from "../../errors.ts";
import { notEqual, select } from "../../kernels/elementwise/compare.ts";
import { add, mul, sub } from "../../kernels/elementwise/elementwise.ts";
import { concat } from "../../kernels/movement/concat.ts";
import { sum } from "../../kernels/reduction/reduce.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { siteInfo } from "../../model/walk/site-info.ts";
import type { SiteName } from "../../model/walk/sites.ts";
import { type Edit, interpolate } from "../../patching/edit.ts";
import { gradients } from "../../patching/gradients.ts";
import { type Metric, measure, showMetric } from "../../patching/metric.ts";
import { rowLayersOf } from "../../patching/row-layers.ts";
import { run } from "../../patching/run.ts";
import type { RunMetric } from "../../patching/run-metric.ts";
import { settingOf } from "../../patching/setting.ts";
import { tap } from "../../patching/tap.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type PatchColumn, PatchMap } from "./patch-map-result.ts";
import {
  checkPair,
  checkValues,
  defaultMetric,
  PAIR_OPTIONS,
  type PairOptions,
  type PatchPair,
  pairUp,
} from "./patch-pairs.ts";

/** What {@link attributionMap} estimates, and how. */
export interface AttributionMapOptions extends PairOptions {
  /**
   * Integrated gradients: the gradient averaged over this many points between the embeddings of both prompts. Default: the
   * gradient at the patched prompt alone.
   */
  steps?: number;
  /** Most tokens in one batch of such points; bounds the memory. Default 2048. */
  batchRows?: number;
}

const OPTIONS: Options<AttributionMapOptions> = { ...PAIR_OPTIONS, steps: aNumber, batchRows: aNumber };

const BATCH_ROWS = 2048;
/** Rows times layers of a way back, in those of a pass. */
const WAY_BACK = 2;

/** Activations by site. */
type BySite = Readonly<Record<string, Tensor>>;

/**
 * What `patchMap` computes, estimated to first order for all cells at once: the change of each activation times the gradient of
 * the metric with respect to it, summed over features (attribution patching; Nanda 2023, and Syed, Rager & Conmy 2023, arXiv
 * 2310.10348). Takes a pass of each prompt and one back; another of the patched prompt where the metric has to be found first
 * or compares with that prompt. The map's values are the patched prompt's own and the estimate.
 *
 * With `steps` the gradient is the mean of those at as many points on the way from the patched prompt's embedding to the
 * other's at the positions (EAP-IG; Hanna, Pezzelle & Belinkov 2024, arXiv 2403.17806), in the middle of each step. The
 * estimates of `embed` then add up to what all of it does, up to the error of so many steps.
 *
 * Throws like `patchMap`; GradientError for operations that gradients do not go through, SiteError for scores and patterns over
 * prompts of unequal length, and PromptError for steps between pictures that the model reads by cross-attention.
 *
 * @example const map = await attributionMap(model, clean, corrupted, { sites: ["attn_out.*", "mlp_out.*"], steps: 8 });
 */
export async function attributionMap(
  model: LanguageModel,
  clean: Prompt,
  corrupted: Prompt,
  options: AttributionMapOptions = {},
): Promise<PatchMap> {
  checkPair("attributionMap", model, clean, corrupted);
  checkOptions("attributionMap", options, OPTIONS);
  const { steps, batchRows = BATCH_ROWS } = options;
  if (steps !== undefined && !(Number.isInteger(steps) && steps > 0)) {
    throw new ArgumentError(`attributionMap: expected steps to be a whole number from 1, found ${steps}`);
  }
  const pair = pairUp("attributionMap", model, [clean, corrupted], options);
  const { direction, base, source, rows, positions, columns, given } = pair;
  const embedding = steps === undefined ? undefined : embeddingOf(model, pair);
  const { device } = model;
  const scope = device.openScope();
  try {
    const tapped = [...new Set([...rows, ...(embedding ? [embedding] : [])])];
    const pass = (prompt: Prompt, at: readonly number[]) =>
      scope.enter(() => {
        const { logits, x } = run(model, prompt, { taps: { x: tap(tapped, at) } });
        return { logits: logits!.reshape([1, logits!.size]), x: x as BySite };
      });
    const other = pass(source, positions.source);
    const first =
      embedding !== undefined || !given || (direction === "noising" && readsClean(given))
        ? pass(base, positions.base)
        : undefined;
    const cleanLogits = direction === "denoising" ? other.logits : first?.logits;
    const metric = given ?? (await defaultMetric("attributionMap", model, ...ends(other, first!)));

    // One copy of the base prompt for each point.
    const points = steps === undefined ? [0] : Array.from({ length: steps }, (_, i) => (i + 0.5) / steps);
    const size = Math.max(1, Math.floor(batchRows / base.length));
    const estimates = new Float64Array(rows.length * columns.length);
    let baseValue = 0;
    for (let start = 0; start < points.length; start += size) {
      const batch = points.slice(start, start + size);
      const results = scope.enter(() =>
        device.scope(() => {
          const edits = embedding
            ? batch.map((t, prompt) =>
                interpolate(embedding, positions.base, other.x[embedding]!, t, { prompt }),
              )
            : [];
          const back = wayBack(model, pair, batch.length, metric, edits, cleanLogits);
          const change = differences(model, rows, other.x, first?.x ?? back.x);
          return [byCell(model, rows, columns, change, back.gradients), back.metric] as const;
        }),
      );
      const [found, measured] = await device.read(results);
      for (const result of results) result.dispose();
      found!.forEach((estimate, i) => {
        estimates[i]! += estimate / points.length;
      });
      baseValue = measured![0]!;
    }
    const measured = scope.enter(() =>
      [other, ...(first ? [first] : [])].map(({ logits }) => measure(metric, logits, cleanLogits ?? logits)),
    );
    const [otherValue, firstValue = baseValue] = (await device.read(measured)).map(([value]) => value!);
    const values = Array.from(estimates, (estimate) => firstValue + estimate);
    checkValues("attributionMap", values, rows, columns);
    const [cleanValue, corruptedValue] =
      direction === "denoising" ? [otherValue!, firstValue] : [firstValue, otherValue!];
    const onePass = (prompt: Prompt) => rowLayersOf(model, prompt);
    const passes = (first ? 1 : 0) + points.length * (1 + WAY_BACK);
    return new PatchMap({
      setting: settingOf(model),
      rows,
      columns,
      values: rows.map((_, r) => values.slice(r * columns.length, (r + 1) * columns.length)),
      clean: cleanValue,
      corrupted: corruptedValue,
      direction,
      metric: showMetric(metric, model),
      ...(steps === undefined ? { method: "attribution" } : { method: "integrated gradients", steps }),
      rowLayers: onePass(source) + passes * onePass(base),
      plainRowLayers: onePass(base) * (values.length + 1) + onePass(source),
    });
  } finally {
    scope.dispose();
  }

  function ends(of: { logits: Tensor }, own: { logits: Tensor }): [clean: Tensor, corrupted: Tensor] {
    return direction === "denoising" ? [of.logits, own.logits] : [own.logits, of.logits];
  }
}

/** Whether a metric looks at the clean prompt's logits. */
function readsClean(metric: Metric): boolean {
  return typeof metric === "function" || metric.kind === "klDivergence";
}

/** The site of the embedding that the steps go through. */
function embeddingOf(model: LanguageModel, { base, source }: PatchPair): SiteName {
  const { encoder, cross } = model.config;
  if (encoder) return "encoder.embed";
  const same =
    base.images.length === source.images.length && base.images.every((x, i) => x === source.images[i]);
  if (!cross || same) return "embed";
  throw new PromptError(
    "attributionMap: steps go from one embedding to the other, which in this model holds no pictures (it reads them by " +
      "cross-attention); expected prompts with the same pictures, or no steps",
  );
}

/** The gradients of copies of the base prompt, added up; and its activations where it is run as it is. */
function wayBack(
  model: LanguageModel,
  { base, rows, positions }: PatchPair,
  copies: number,
  metric: Metric,
  edits: readonly Edit[],
  clean: Tensor | undefined,
): { gradients: BySite; x: BySite; metric: Tensor } {
  const prompts = Array.from({ length: copies }, () => base);
  const result = gradients(model, prompts, metric as RunMetric, {
    of: rows,
    at: positions.base,
    edits,
    ...(clean && { clean }),
    ...(edits.length === 0 && { taps: { x: tap(rows, positions.base) } }),
  });
  const total = (list: readonly Tensor[]) => list.reduce((a, b) => add(a, b));
  return {
    gradients: mapValues(result.gradients as Record<string, Tensor[]>, total),
    x: mapValues((result as unknown as { x?: Record<string, Tensor[]> }).x ?? {}, ([only]) => only!),
    metric: result.metric,
  };
}

function mapValues<V, W>(record: Readonly<Record<string, V>>, fn: (value: V) => W): Record<string, W> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, fn(value)]));
}

/** What a patch adds to the activations of each site. */
function differences(model: LanguageModel, rows: readonly SiteName[], source: BySite, base: BySite): BySite {
  return Object.fromEntries(
    rows.map((site) => {
      const [from, to] = [base[site]!, source[site]!];
      if (siteInfo(model.sites, site).layout === "rows") return [site, sub(to, from)];
      const [expected, found] = [from.dim(-1), to.dim(-1)];
      if (expected !== found) {
        throw new SiteError(
          `attributionMap: ${site}: expected values for ${expected} keys, found ${found}; give prompts of one length`,
        );
      }
      // Scores are -∞ where a row does not attend, and stay so.
      return [site, select(notEqual(from, Number.NEGATIVE_INFINITY), sub(to, from), 0)];
    }),
  );
}

/** Change times gradient, summed for each cell: [rows * columns]. */
function byCell(
  model: LanguageModel,
  rows: readonly SiteName[],
  columns: readonly PatchColumn[],
  change: BySite,
  gradients: BySite,
): Tensor {
  const cells = rows.flatMap((site): Tensor[] => {
    const product = mul(change[site]!, gradients[site]!); // [positions, features] or [heads, positions, keys]
    if ("position" in columns[0]!) return [sum(product, -1)];
    const { heads, layout } = siteInfo(model.sites, site);
    const [positions, features] = product.shape as [number, number];
    const ofHeads =
      layout === "attention"
        ? sum(product, [1, 2])
        : sum(product.reshape([positions, heads!, features / heads!]), [0, 2]);
    return columns.map((column) => {
      const head = "head" in column ? column.head : 0;
      return ofHeads.slice(0, head, head + 1);
    });
  });
  return concat(cells);
}
