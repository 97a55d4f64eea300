import { argmax } from "../kernels/reduce.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Prompt } from "../model/prompt.ts";
import type { SiteName } from "../model/sites.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Edit, set } from "./edit.ts";
import type { OnePosition } from "./positions.ts";
import { record } from "./recording.ts";
import { resume, type Variant } from "./resume.ts";
import type { TaskVectors } from "./task-vectors.ts";

export interface SweepEditsOptions {
  /** Most patched prompts in one batch; bounds the memory (each has its own logits). Default 256. */
  batchRows?: number;
  /** Called with the number of queries done. */
  onProgress?: (done: number) => void;
}

export interface SweepOptions extends SweepEditsOptions {
  /** Which token of each query is patched. Default −1, the last. */
  at?: OnePosition;
  /** Layers to patch, one at a time. Default: all that there are vectors for. */
  layers?: readonly number[];
}

export interface SweepEditsResult {
  /** `patched[v][q]`: the most probable next token of query q under the edits of variant v. */
  readonly patched: readonly (readonly number[])[];
  /** The same without a patch. */
  readonly unpatched: readonly number[];
  /** Rows times layers that were computed, and those that a full pass for every variant and query would have taken. */
  readonly rowLayers: number;
  readonly plainRowLayers: number;
}

export interface SweepResult extends SweepEditsResult {
  /** The layer of each variant. */
  readonly layers: readonly number[];
}

/**
 * Runs every query under every variant, a list of edits, and reads the next token. Costs one pass over the queries plus,
 * for each variant, the rows and layers that its edits can change. Throws SiteError or PromptError like `run`.
 */
export async function sweepEdits(
  model: LanguageModel,
  queries: readonly Prompt[],
  variants: readonly (readonly Edit[])[],
  { batchRows = 256, onProgress }: SweepEditsOptions = {},
): Promise<SweepEditsResult> {
  const patched: number[][] = variants.map(() => []);
  const unpatched: number[] = [];
  let rowLayers = 0;
  const perBatch = Math.max(1, Math.floor(batchRows / variants.length));
  for (let first = 0; first < queries.length; first += perBatch) {
    const batch = queries.slice(first, first + perBatch);
    const scope = model.device.openScope();
    try {
      const results = scope.enter(() => {
        using recording = record(model, batch);
        rowLayers += recording.rowLayers;
        const ids: Tensor<"i32" | "u32">[] = [argmax(recording.logits, -1)];
        const all = variants.flatMap((edits) => batch.map((_, prompt): Variant => ({ prompt, edits })));
        for (let start = 0; start < all.length; start += batchRows) {
          ids.push(
            model.device.scope(() => {
              const resumed = resume(recording, all.slice(start, start + batchRows));
              rowLayers += resumed.rowLayers;
              return argmax(resumed.logits, -1);
            }),
          );
        }
        return ids;
      });
      const [plain, ...parts] = await model.device.read(results);
      const ids = parts.flatMap((part) => [...part]);
      unpatched.push(...plain!);
      patched.forEach((answers, v) => {
        answers.push(...ids.slice(v * batch.length, (v + 1) * batch.length));
      });
    } finally {
      scope.dispose();
    }
    onProgress?.(unpatched.length);
  }
  const rows = queries.reduce((sum, query) => sum + query.length, 0);
  const plainRowLayers = rows * model.config.layers * (variants.length + 1);
  return { patched, unpatched, rowLayers, plainRowLayers };
}

/**
 * Patches each layer's task vector into each query, one layer at a time, and reads the next token. Costs one pass over
 * the queries plus, for each patch, the rows from the patched token on in the layers above the patch.
 */
export async function sweepLayers(
  model: LanguageModel,
  queries: readonly Prompt[],
  vectors: TaskVectors,
  { at = -1, layers = vectors.origin.layers, ...options }: SweepOptions = {},
): Promise<SweepResult> {
  const scope = model.device.openScope();
  try {
    const variants = scope.enter(() =>
      layers.map((layer) => {
        const site: SiteName = `${vectors.origin.site}.${layer}`;
        return [set(site, at, vectors.at(layer))];
      }),
    );
    return { layers: [...layers], ...(await sweepEdits(model, queries, variants, options)) };
  } finally {
    scope.dispose();
  }
}
