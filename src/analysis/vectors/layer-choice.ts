import type { LanguageModel } from "../../model/language-model.ts";
import { type Asker, fewShotPrompt } from "../../tasks/few-shot.ts";
import type { TaskItem } from "../../tasks/task.ts";
import { type ScoredSweep, scoreSweep } from "./score-sweep.ts";
import { type SweepResult, sweepLayers } from "./sweep-layers.ts";
import type { TaskVectors } from "./task-vectors.ts";

/** The scores by layer, and what the sweep computed. */
export type LayerChoice = ScoredSweep & Pick<SweepResult, "rowLayers" | "plainRowLayers">;

/**
 * Scores each layer's vector in bare questions about `items`, which have to be validation items, one token each; `best` is
 * the layer to use on others.
 */
export async function chooseLayer(
  model: LanguageModel,
  items: readonly TaskItem[],
  asked: Asker,
  vectors: TaskVectors,
  {
    template,
    onProgress,
  }: { readonly template?: string; readonly onProgress?: (done: number, total: number) => void } = {},
): Promise<LayerChoice> {
  const queries = items.map((item) => fewShotPrompt(model, [], asked(item), template));
  const swept = await sweepLayers(model, queries, vectors, {
    onProgress: (done) => onProgress?.(done, queries.length),
  });
  const { rowLayers, plainRowLayers } = swept;
  return { ...scoreSweep(model.tokenizer, items, swept), rowLayers, plainRowLayers };
}
