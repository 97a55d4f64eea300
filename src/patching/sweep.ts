import { argmax } from "../kernels/reduce.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Prompt } from "../model/prompt.ts";
import type { SiteName } from "../model/sites.ts";
import { set } from "./edit.ts";
import type { OnePosition } from "./positions.ts";
import { record } from "./recording.ts";
import { resume, type Variant } from "./resume.ts";
import type { TaskVectors } from "./task-vectors.ts";

export interface SweepOptions {
  /** Which token of each query is patched. Default −1, the last. */
  at?: OnePosition;
  /** Layers to patch, one at a time. Default: all that there are vectors for. */
  layers?: readonly number[];
  /** Most patched rows in one batch; bounds the memory (each has its own logits). Default 256. */
  batchRows?: number;
  /** Called with the number of queries done. */
  onProgress?: (done: number) => void;
}

export interface SweepResult {
  readonly layers: readonly number[];
  /** `patched[l][q]`: the most probable next token of query q with the vector of `layers[l]` patched in. */
  readonly patched: readonly (readonly number[])[];
  /** The same without a patch. */
  readonly unpatched: readonly number[];
  /** Rows times layers that were computed, and those that full passes for every layer and query would have taken. */
  readonly rowLayers: number;
  readonly plainRowLayers: number;
}

/**
 * Patches each layer's task vector into each query, one layer at a time, and reads the next token. Costs one pass over
 * the queries plus, for each patch, the rows from the patched token on in the layers above the patch.
 */
export async function sweepLayers(
  model: LanguageModel,
  queries: readonly Prompt[],
  vectors: TaskVectors,
  { at = -1, layers = vectors.origin.layers, batchRows = 256, onProgress }: SweepOptions = {},
): Promise<SweepResult> {
  const patched: number[][] = layers.map(() => []);
  const unpatched: number[] = [];
  let rowLayers = 0;
  const perBatch = Math.max(1, Math.floor(batchRows / layers.length));
  for (let first = 0; first < queries.length; first += perBatch) {
    const batch = queries.slice(first, first + perBatch);
    const scope = model.device.openScope();
    try {
      const results = scope.enter(() => {
        using recording = record(model, batch);
        const variants = layers.flatMap((layer) =>
          batch.map((_, prompt): Variant => {
            const site: SiteName = `${vectors.origin.site}.${layer}`;
            return { prompt, edits: [set(site, at, vectors.at(layer))] };
          }),
        );
        const resumed = resume(recording, variants);
        rowLayers += recording.rowLayers + resumed.rowLayers;
        return [argmax(recording.logits, -1), argmax(resumed.logits, -1)] as const;
      });
      const [plain, ids] = await model.device.read(results);
      unpatched.push(...plain);
      patched.forEach((answers, l) => {
        answers.push(...ids.slice(l * batch.length, (l + 1) * batch.length));
      });
    } finally {
      scope.dispose();
    }
    onProgress?.(unpatched.length);
  }
  const rows = queries.reduce((sum, query) => sum + query.length, 0);
  const plainRowLayers = rows * model.config.layers * (layers.length + 1);
  return { layers: [...layers], patched, unpatched, rowLayers, plainRowLayers };
}
