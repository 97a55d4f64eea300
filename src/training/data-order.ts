import { ArgumentError } from "../errors.ts";
import { hashText } from "../tasks/text-hash.ts";

/**
 * Which of `count` items a step (from 0) trains on: each once an epoch, every epoch in an order of its own. It depends on the seed
 * and the step alone, so that training can go on from any step.
 */
export function shuffledBatch(
  count: number,
  batch: number,
  { step, seed = 0 }: { readonly step: number; readonly seed?: number },
): number[] {
  if (!(Number.isInteger(count) && count > 0 && Number.isInteger(batch) && batch > 0)) {
    throw new ArgumentError(
      `shuffledBatch: expected items and a batch of 1 or more, found ${count} and ${batch}`,
    );
  }
  const orders = new Map<number, readonly number[]>();
  return Array.from({ length: batch }, (_, i) => {
    const at = step * batch + i;
    const epoch = Math.floor(at / count);
    const order = orders.get(epoch) ?? shuffled(count, `${seed}\n${epoch}`);
    orders.set(epoch, order);
    return order[at % count]!;
  });
}

function shuffled(count: number, key: string): number[] {
  return Array.from({ length: count }, (_, item) => ({ item, rank: hashText(`${key}\n${item}`) }))
    .sort((a, b) => a.rank - b.rank || a.item - b.item)
    .map(({ item }) => item);
}
