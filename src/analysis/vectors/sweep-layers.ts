import { aFunction, aListOf, aNumber, checkArgument, checkOptions, type Options } from "../../arguments.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { checkChoice, choicesOf, mostProbable } from "../../model/walk/sampling.ts";
import type { SiteName } from "../../model/walk/sites.ts";
import { checkEdits, checkModelAndPrompts, onePosition } from "../../patching/arguments.ts";
import { type Edit, set } from "../../patching/edit.ts";
import type { OnePosition } from "../../patching/positions.ts";
import { record } from "../../patching/recording.ts";
import { resume, type Variant } from "../../patching/resume.ts";
import { rowLayersOf } from "../../patching/row-layers.ts";
import { aTaskVectors, type TaskVectors } from "./task-vectors.ts";

/** How {@link patchEach} batches its work. */
export interface PatchEachOptions {
  /** Most patched prompts in one batch; bounds the memory (each has its own logits). Default 256. */
  batchRows?: number;
  /** Called with the number of queries done. */
  onProgress?: (done: number) => void;
}

const EACH: Options<PatchEachOptions> = { batchRows: aNumber, onProgress: aFunction };

/** The next token of each query under each set of edits, and without edits. */
export interface PatchedTokens {
  /** `patched[e][q]`: the most probable next token of query q under `edits[e]`. */
  readonly patched: readonly (readonly number[])[];
  /** The same without edits. */
  readonly unpatched: readonly number[];
  /** Rows times layers that were computed, and those that full passes for every set of edits and query would have taken. */
  readonly rowLayers: number;
  readonly plainRowLayers: number;
}

/** Which position and layers {@link sweepLayers} patches. */
export interface SweepOptions extends PatchEachOptions {
  /** Which token of each query is patched. Default −1, the last. */
  at?: OnePosition;
  /** Layers to patch, one at a time. Default: all that there are vectors for. */
  layers?: readonly number[];
}

/** `patched[l][q]` is of query q with the vector of `layers[l]` patched in. */
export interface SweepResult extends PatchedTokens {
  /** The layers that were patched, in the order of `patched`. */
  readonly layers: readonly number[];
}

/**
 * Patches each layer's task vector into each query, one layer at a time, and reads the next token. Costs one pass over
 * the queries plus, for each patch, the rows from the patched token on in the layers above the patch.
 */
export async function sweepLayers(
  model: LanguageModel,
  queries: readonly Prompt[],
  vectors: TaskVectors,
  options: SweepOptions = {},
): Promise<SweepResult> {
  checkModelAndPrompts("sweepLayers", model, "queries", queries);
  checkArgument("sweepLayers", "vectors", vectors, aTaskVectors);
  checkOptions("sweepLayers", options, { ...EACH, at: onePosition, layers: aListOf(aNumber) });
  const { at = -1, layers = vectors.origin.layers, ...each } = options;
  const scope = model.device.openScope();
  try {
    const edits = scope.enter(() => layers.map((layer) => [patchOf(vectors, layer, at)]));
    return { layers: [...layers], ...(await patchEach(model, queries, edits, each)) };
  } finally {
    scope.dispose();
  }
}

/**
 * The edit that puts a layer's vector in place of what a prompt has there, in the stack that it was taken from: of an encoder,
 * positions are the prompt's, and −1, the default, is its end token.
 */
export function patchOf(
  vectors: TaskVectors,
  layer: number,
  at: OnePosition = -1,
  options: { readonly prompt?: number } = {},
): Edit {
  checkArgument("patchOf", "vectors", vectors, aTaskVectors);
  const site: SiteName = `${vectors.origin.site}.${layer}`;
  return set(site, at, vectors.at(layer), options);
}

/**
 * Runs each query under each set of edits, one set at a time, and reads the next token. Costs one pass over the queries
 * plus, for each set, the rows that it can change. Throws SiteError or PromptError like `run`, and GenerationError where
 * there is no most probable token, because the logits are NaN.
 */
export async function patchEach(
  model: LanguageModel,
  queries: readonly Prompt[],
  edits: readonly (readonly Edit[])[],
  options: PatchEachOptions = {},
): Promise<PatchedTokens> {
  checkModelAndPrompts("patchEach", model, "queries", queries);
  checkArgument("patchEach", "edits", edits, aListOf({ words: "a list of edits", holds: Array.isArray }));
  for (const [e, set] of edits.entries()) checkEdits(`patchEach, edits[${e}]`, set);
  checkOptions("patchEach", options, EACH);
  const { batchRows = 256, onProgress } = options;
  const patched: number[][] = edits.map(() => []);
  const unpatched: number[] = [];
  let rowLayers = 0;
  const perBatch = Math.max(1, Math.floor(batchRows / Math.max(1, edits.length)));
  for (let first = 0; first < queries.length; first += perBatch) {
    const batch = queries.slice(first, first + perBatch);
    const scope = model.device.openScope();
    try {
      const results = scope.enter(() => {
        using recording = record(model, batch);
        rowLayers += recording.rowLayers;
        const variants = edits.flatMap((set) => batch.map((_, prompt): Variant => ({ prompt, edits: set })));
        const chosen = [mostProbable(recording.logits)];
        for (let start = 0; start < variants.length; start += batchRows) {
          chosen.push(
            model.device.scope(() => {
              const resumed = resume(recording, variants.slice(start, start + batchRows));
              rowLayers += resumed.rowLayers;
              return mostProbable(resumed.logits);
            }),
          );
        }
        return chosen;
      });
      const choices = (await model.device.read(results)).map(choicesOf);
      const [plain, ...ids] = [choices[0]!.ids, ...choices.slice(1).flatMap((part) => [...part.ids])];
      choices
        .flatMap(({ logits }) => [...logits])
        .forEach((value, i) => {
          const e = Math.floor(i / batch.length) - 1;
          const edited = e < 0 ? "without edits" : `under edits[${e}]`;
          checkChoice(value, () => `patchEach: query ${first + (i % batch.length)} ${edited}`);
        });
      unpatched.push(...plain);
      patched.forEach((answers, e) => {
        answers.push(...ids.slice(e * batch.length, (e + 1) * batch.length));
      });
    } finally {
      scope.dispose();
    }
    onProgress?.(unpatched.length);
  }
  const onePass = queries.reduce((sum, query) => sum + rowLayersOf(model, query), 0);
  const plainRowLayers = onePass * (edits.length + 1);
  return { patched, unpatched, rowLayers, plainRowLayers };
}
