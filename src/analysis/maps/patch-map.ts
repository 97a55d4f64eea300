import { aFunction, aNumber, checkOptions, type Options } from "../../arguments.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { measure, showMetric } from "../../patching/metric.ts";
import { record } from "../../patching/recording.ts";
import { rowLayersOf } from "../../patching/row-layers.ts";
import { run } from "../../patching/run.ts";
import { settingOf } from "../../patching/setting.ts";
import { tap } from "../../patching/tap.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { batchesOf, cellOf, resumeBatch } from "./patch-cells.ts";
import { PatchMap } from "./patch-map-result.ts";
import {
  checkPair,
  checkValues,
  defaultMetric,
  PAIR_OPTIONS,
  type PairOptions,
  pairUp,
} from "./patch-pairs.ts";

/** Which activations {@link patchMap} patches, and what it measures. */
export interface PatchMapOptions extends PairOptions {
  /** Most rows (tokens times patched copies) in one batch; bounds the memory. Default 2048. */
  batchRows?: number;
  /** Called with the number of patches done, and of all. */
  onProgress?: (done: number, all: number) => void;
}

export const PATCH_MAP_OPTIONS: Options<PatchMapOptions> = {
  ...PAIR_OPTIONS,
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
  const { onProgress } = options;
  const { direction, base, source, rows, positions, columns, given } = pairUp(
    "patchMap",
    model,
    [clean, corrupted],
    options,
  );
  const scope = model.device.openScope();
  try {
    using recording = record(model, [base]);
    const { other, taps } = scope.enter(() => {
      const { logits, x } = run(model, source, { taps: { x: tap(rows, positions.source) } });
      return { other: logits!.reshape([1, logits!.size]), taps: x };
    });
    const [cleanLogits, corruptedLogits] =
      direction === "denoising" ? [other, recording.logits] : [recording.logits, other];
    const metric = given ?? (await defaultMetric("patchMap", model, cleanLogits, corruptedLogits));
    const cells = rows.flatMap((site) =>
      columns.map((column) => scope.enter(() => cellOf(model, site, column, positions.base, taps[site]!))),
    );
    const measured = scope.enter(() =>
      [cleanLogits, corruptedLogits].map((x) => measure(metric, x, cleanLogits)),
    );
    const [cleanValue, corruptedValue] = (await model.device.read(measured)).map(([value]) => value!);
    const values: number[] = [];
    let rowLayers = recording.rowLayers + rowLayersOf(model, source);
    for (const batch of batchesOf(model, base, cells, options.batchRows ?? BATCH_ROWS)) {
      const resumed = resumeBatch(recording, batch, (logits) => measure(metric, logits, cleanLogits));
      rowLayers += resumed.rowLayers;
      values.push(...(await readAndFree(resumed.values)));
      onProgress?.(values.length, cells.length);
    }
    checkValues("patchMap", values, rows, columns);
    const plainRowLayers = rowLayersOf(model, base) * (cells.length + 1) + rowLayersOf(model, source);
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

async function readAndFree(tensor: Tensor): Promise<Iterable<number>> {
  try {
    return await tensor.read();
  } finally {
    tensor.dispose();
  }
}
