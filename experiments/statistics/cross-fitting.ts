import type { Hits } from "./accuracy.ts";
import { indexOf } from "./clusters.ts";

/**
 * What the best of some candidates is worth, without flattery by the choice: the answers to each half of the inputs are
 * those of the candidate that is best on the other half. Of equals the first.
 *
 * @param candidates - Answers to the same items.
 * @param chosenBy - Lists as long, over whose mean accuracy a candidate is chosen; by default itself.
 */
export function crossFitted(
  candidates: readonly Hits[],
  chosenBy: readonly (readonly Hits[])[] = [candidates],
): Hits {
  const index = indexOf(chosenBy.flatMap((list) => list[0]!.flatMap(({ inputs }) => inputs)));
  const halfOf = (input: string) => index.get(input)! % 2;
  const chosen = [0, 1].map((half) => {
    const means = candidates.map((_, c) =>
      chosenBy.reduce((sum, list) => sum + meanWithin(list[c]!, (input) => halfOf(input) !== half), 0),
    );
    return candidates[means.indexOf(Math.max(...means))]!;
  });
  return candidates[0]!.map(({ inputs, seeds }, t) => ({
    inputs,
    seeds: seeds.map((_, s) => inputs.map((input, i) => Number(chosen[halfOf(input)]![t]!.seeds[s]![i]))),
  }));
}

/** The mean over tasks of their accuracy on some inputs; tasks that have none do not count. */
function meanWithin(hits: Hits, allowed: (input: string) => boolean): number {
  const ofTasks = hits.flatMap(({ inputs, seeds }) => {
    const kept = [...inputs.keys()].filter((i) => allowed(inputs[i]!));
    if (kept.length === 0) return [];
    const right = seeds.reduce((sum, row) => sum + kept.reduce((count, i) => count + Number(row[i]), 0), 0);
    return [right / (kept.length * seeds.length)];
  });
  return ofTasks.length === 0 ? 0 : ofTasks.reduce((sum, x) => sum + x, 0) / ofTasks.length;
}
