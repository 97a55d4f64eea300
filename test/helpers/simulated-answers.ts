import type { Hits } from "../../experiments/statistics/accuracy.ts";

/** How answers come about: tasks that ask about shared inputs, which may be recognised or not, under several seeds. */
export interface Simulation {
  /** Tasks that draw their items from the same inputs, a number a group. */
  readonly groups: readonly number[];
  /** Items a task, and the inputs of a group that they are drawn from. */
  readonly items: number;
  readonly inputs: number;
  readonly seeds: number;
  /** The part of wrong answers that is due to an input which is not recognised, in all its tasks and seeds. */
  readonly gate: number;
  /** How often an answer is the same under all seeds. */
  readonly steady: number;
  /** How far tasks' accuracies lie apart, and those of seeds, as a part of what the accuracy leaves room for. */
  readonly tasksApart: number;
  readonly seedsApart: number;
}

/** Answers of two methods to the same items whose expected accuracies are `first` and `second`. */
export function simulatedAnswers(
  simulation: Simulation,
  [first, second]: readonly [number, number],
  random: () => number,
): [Hits, Hits] {
  const { groups, items, inputs, seeds, gate, steady, tasksApart, seedsApart } = simulation;
  const count = groups.reduce((sum, tasks) => sum + tasks, 0);
  const around = (p: number, part: number) => p + part * Math.min(p, 1 - p);
  const hits: [Hits[number][], Hits[number][]] = [[], []];
  groups.forEach((tasks, group) => {
    const recognised = Array.from({ length: inputs }, () => random());
    for (let t = 0; t < tasks; t++) {
      const place = count === 1 ? 0 : (2 * hits[0].length) / (count - 1) - 1;
      const rates = [first, second].map((p) => around(p, place * tasksApart));
      const open = 1 - (1 - Math.max(...rates)) * gate;
      const drawn = drawnFrom(inputs, items, random);
      // The second method is often right in what the first is.
      const luck = drawn.map(() => {
        const own = random();
        return [own, random() < 0.6 ? own : random()];
      });
      const names = drawn.map((input) => `${group} ${input}`);
      rates.forEach((rate, method) => {
        const rows = Array.from({ length: seeds }, () => {
          const p = around(rate / open, seedsApart * (random() < 0.5 ? -1 : 1));
          const right = drawn.map((input, i) => {
            const chance = random() < steady ? luck[i]![method]! : random();
            return recognised[input]! < open && chance < p;
          });
          return right.map((one) => (one ? "1" : "0")).join("");
        });
        hits[method]!.push({ inputs: names, seeds: rows });
      });
    }
  });
  return hits;
}

function drawnFrom(from: number, count: number, random: () => number): number[] {
  const left = Array.from({ length: from }, (_, i) => i);
  return Array.from({ length: count }, () => left.splice(Math.floor(random() * left.length), 1)[0]!);
}
