import { expect, test } from "vitest";
import { accuracy, accuracyDifference, type Hits } from "../../../experiments/statistics/accuracy.ts";
import type { Estimate } from "../../../experiments/statistics/estimate.ts";
import { seededRandom } from "../../../experiments/statistics/random.ts";
import { type Simulation, simulatedAnswers } from "../../helpers/simulated-answers.ts";

/** More of them for a closer look: `XPATCH_DRAWS=20000 npx vitest run test/experiments/statistics/coverage.test.ts`. */
const DRAWS = Number(process.env.XPATCH_DRAWS ?? 500);

const RATES = [0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98];
const PAIRS: readonly (readonly [number, number])[] = [
  [0.05, 0.02],
  [0.2, 0.02],
  [0.3, 0.3],
  [0.5, 0.45],
  [0.5, 0.1],
  [0.9, 0.8],
];

const DEFAULT: Simulation = {
  groups: [2, 2, 1],
  items: 10,
  inputs: 16,
  seeds: 2,
  gate: 0,
  steady: 0.8,
  tasksApart: 0.5,
  seedsApart: 0,
};

const SIMULATIONS: Readonly<Record<string, Simulation>> = {
  "the default run: five tasks of ten items, inputs shared in part, two seeds": DEFAULT,
  "the same behind a naming gate": { ...DEFAULT, gate: 0.5 },
  "that with one seed": { ...DEFAULT, gate: 0.5, seeds: 1 },
  "its validation items": { ...DEFAULT, gate: 0.5, items: 5, inputs: 8 },
  "four times the items, three seeds": { ...DEFAULT, gate: 0.5, items: 40, inputs: 60, seeds: 3 },
  "four tasks about the same 24 inputs": {
    ...DEFAULT,
    groups: [4],
    items: 24,
    inputs: 24,
    seeds: 3,
    gate: 0.6,
  },
  "three seeds that matter": {
    ...DEFAULT,
    items: 20,
    inputs: 32,
    seeds: 3,
    gate: 0.5,
    steady: 0.6,
    seedsApart: 0.25,
  },
};

/** How often the interval that `of` gives holds the truth. */
function coverage(
  simulation: Simulation,
  [first, second]: readonly [number, number],
  truth: number,
  of: (first: Hits, second: Hits) => Estimate,
): number {
  const random = seededRandom(Math.round(first * 1000));
  let held = 0;
  for (let draw = 0; draw < DRAWS; draw++) {
    const { low, high } = of(...simulatedAnswers(simulation, [first, second], random));
    if (low <= truth + 1e-12 && truth - 1e-12 <= high) held++;
  }
  return held / DRAWS;
}

const mean = (values: readonly number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;

/** What the number of draws may make of a coverage, nineteen times in twenty. */
const ERROR = 2 * Math.sqrt((0.95 * 0.05) / DRAWS);

test.each(Object.entries(SIMULATIONS))("95 of 100 intervals hold the accuracy: %s", (_, simulation) => {
  const found = RATES.map((rate) => coverage(simulation, [rate, rate], rate, (hits) => accuracy(hits)));
  expect(mean(found), `${found}`).toBeGreaterThan(0.93);
  expect(mean(found), `${found}`).toBeLessThan(0.97);
  // Answers are whole: at the edges no interval has exactly its level. None may be too bold.
  expect(Math.min(...found), `${found}`).toBeGreaterThan(0.93 - ERROR);
  expect(Math.max(...found), `${found}`).toBeLessThan(0.97 + ERROR + 0.01);
});

test.each(Object.entries(SIMULATIONS))("and no fewer a difference of two methods: %s", (_, simulation) => {
  const found = PAIRS.map((pair) =>
    coverage(simulation, pair, pair[0] - pair[1], (a, b) => accuracyDifference(a, b)),
  );
  expect(mean(found), `${found}`).toBeGreaterThan(0.94);
  expect(Math.min(...found), `${found}`).toBeGreaterThan(0.93 - ERROR);
});

test("without the clusters they would be too bold", () => {
  const simulation = SIMULATIONS["four tasks about the same 24 inputs"]!;
  const apart = (hits: Hits) =>
    accuracy(hits.map((one, t) => ({ ...one, inputs: one.inputs.map((i) => `${t} ${i}`) })));
  const found = [0.1, 0.5, 0.9].map((rate) => coverage(simulation, [rate, rate], rate, apart));
  expect(Math.max(...found), `${found}`).toBeLessThan(0.93);
});
