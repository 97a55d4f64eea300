import type { Tokenizer } from "../../model/prompt/tokenizer.ts";
import { type ScoredAnswers, scoreTokens } from "../../tasks/score.ts";
import type { TaskItem } from "../../tasks/task.ts";
import type { SweepResult } from "./sweep-layers.ts";

/** A sweep over layers, scored: answers and accuracy by layer. */
export interface ScoredSweep {
  readonly layers: readonly ({ readonly layer: number } & ScoredAnswers)[];
  /** The layer with the highest accuracy; of equals the first. */
  readonly best: number;
}

/** The score of each layer of a sweep over queries about `items`. */
export function scoreSweep(
  tokenizer: Tokenizer,
  items: readonly TaskItem[],
  { layers, patched }: Pick<SweepResult, "layers" | "patched">,
): ScoredSweep {
  const scored = layers.map((layer, l) => ({ layer, ...scoreTokens(tokenizer, items, patched[l]!) }));
  const best = scored.reduce((a, b) => (b.correct > a.correct ? b : a)).layer;
  return { layers: scored, best };
}
