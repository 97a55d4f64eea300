import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { accuracy, accuracyDifference, type Hits } from "../../../experiments/statistics/accuracy.ts";
import { crossFitted } from "../../../experiments/statistics/cross-fitting.ts";
import { normal, seededRandom } from "../../../experiments/statistics/random.ts";
import { meanOverInputs, resampled } from "../../../experiments/statistics/resample.ts";
import { studentFactor } from "../../../experiments/statistics/student.ts";

/** Rows a seed, of a task whose items are no other task's unless `inputs` says so. */
function task(seeds: readonly string[], inputs?: readonly string[]): Hits[number] {
  return { seeds, inputs: inputs ?? [...seeds[0]!].map((_, i) => `${seeds.join("/")} ${i}`) };
}

const names = (count: number, kind = "input") => Array.from({ length: count }, (_, i) => `${kind} ${i}`);
const width = ({ low, high }: { low: number; high: number }) => high - low;

describe("accuracies", () => {
  test("the mean is over tasks, then seeds and items, whatever their number", () => {
    const { mean, items, seeds } = accuracy([task(["1111111100", "0000000000"]), task(["01", "11"])]);
    expect({ mean, items, seeds }).toEqual({ mean: (0.4 + 0.75) / 2, items: 12, seeds: 2 });
  });

  test("many independent items have Wilson's interval", () => {
    // Wilson 1927 with z = 1.959964.
    const wilson = { 300: [0.272416, 0.329136], 10: [0.005441, 0.018309], 0: [0, 0.003827] };
    for (const [right, [low, high]] of Object.entries(wilson)) {
      const row = "1".repeat(Number(right)).padEnd(1000, "0");
      const found = accuracy([task([row])]);
      expect(found.low).toBeCloseTo(low!, 3);
      expect(found.high).toBeCloseTo(high!, 3);
    }
  });

  test("no answer right, or every one, is not certainty", () => {
    // The exact upper limit for 0 of 50 is 1 − 0.025 ** (1 / 50) = .071.
    const none = accuracy([task(["0".repeat(50)])]);
    expect(none).toMatchObject({ mean: 0, low: 0 });
    expect(none.high).toBeGreaterThan(0.071);
    expect(none.high).toBeLessThan(0.08);
    const all = accuracy([task(["1".repeat(50)])]);
    expect(all.high).toBe(1);
    expect(all.low).toBeCloseTo(1 - none.high, 12);
    expect(width(accuracy([task(["1"])]))).toBeGreaterThan(0.9);
  });

  test("the interval holds the mean, lies between 0 and 1, and grows with the level", () => {
    const row = fc.stringMatching(/^[01]{12}$/);
    fc.assert(
      fc.property(fc.array(fc.tuple(row, row), { minLength: 1, maxLength: 3 }), (rows) => {
        const hits = rows.map((seeds, t) => task(seeds, names(12, t < 2 ? "shared" : "own")));
        const { mean, low, high } = accuracy(hits);
        expect(low).toBeLessThanOrEqual(mean + 1e-12);
        expect(high).toBeGreaterThanOrEqual(mean - 1e-12);
        expect(low).toBeGreaterThanOrEqual(0);
        expect(high).toBeLessThanOrEqual(1);
        expect(width(accuracy(hits, 0.99))).toBeGreaterThan(high - low);
      }),
      { numRuns: 30 },
    );
  });

  test("tasks about the same inputs are no more than one of them; about others they are", () => {
    const rows = ["1".repeat(12).padEnd(30, "0")];
    const one = accuracy([task(rows, names(30))]);
    const shared = accuracy([task(rows, names(30)), task(rows, names(30))]);
    const apart = accuracy([task(rows, names(30)), task(rows, names(30, "other"))]);
    expect(shared).toMatchObject({ mean: one.mean, items: 30 });
    expect(width(shared)).toBeCloseTo(width(one), 6);
    expect(apart.items).toBe(60);
    expect(width(apart)).toBeLessThan(0.76 * width(one));
  });

  test("seeds that disagree widen the interval; items that disagree between them do not", () => {
    const apart = accuracy([task(["1".repeat(50), "0".repeat(50)])]);
    const alike = accuracy([task(["10".repeat(25), "01".repeat(25)])]);
    expect(width(apart)).toBeGreaterThan(0.95);
    expect(width(alike)).toBeLessThan(0.2);
  });

  test("what is missing is refused", () => {
    expect(() => accuracy([])).toThrow(/tasks with items/);
    expect(() => accuracy([task(["1", "0"]), task(["1"])])).toThrow(/same number of seeds/);
    expect(() => accuracy([task(["10"], ["a"])])).toThrow(/for each of 1 items, found 10/);
    expect(() => accuracy([{ inputs: ["a"], seeds: [[1.5]] }])).toThrow(/from 0 to 1/);
    expect(() => accuracy([task(["1"])], 1)).toThrow(/level between 0 and 1/);
  });
});

describe("differences", () => {
  const inputs = names(40);
  const worse = [task(["1".repeat(16).padEnd(40, "0")], inputs)];
  const better = [task(["1".repeat(26).padEnd(40, "0")], inputs)];
  /** As often right as `better`, in other items. */
  const elsewhere = [task(["1".repeat(26).padStart(40, "0")], inputs)];

  test("pair the items", () => {
    const paired = accuracyDifference(better, worse);
    expect(paired.mean).toBeCloseTo(0.25, 12);
    expect(paired.low).toBeGreaterThan(0.08);
    expect(accuracyDifference(elsewhere, worse).low).toBeLessThan(0);
    expect(() => accuracyDifference(worse, [task(["1"])])).toThrow(/same items/);
    expect(() => accuracyDifference(worse, [task(worse[0]!.seeds as string[])])).toThrow(/same items/);
  });

  test("are the other way round when their sides are", () => {
    const [there, back] = [accuracyDifference(better, worse), accuracyDifference(worse, better)];
    expect(back.low).toBeCloseTo(-there.high, 12);
    expect(back.high).toBeCloseTo(-there.low, 12);
  });

  test("no difference seen is not certainty that there is none", () => {
    const { mean, low, high } = accuracyDifference(worse, worse);
    expect(mean).toBe(0);
    expect(low).toBeLessThan(-0.01);
    expect(high).toBeGreaterThan(0.01);
    expect(high - low).toBeLessThan(0.2);
  });

  test("both sides' seeds count, as many or not", () => {
    const steady = [task(["10".repeat(20)], inputs)];
    const [up, down] = ["1".repeat(30).padEnd(40, "0"), "1".repeat(10).padEnd(40, "0")];
    const moody = [task([up, down], inputs)];
    const two = [task([steady[0]!.seeds[0] as string, steady[0]!.seeds[0] as string], inputs)];
    const one = accuracyDifference([task([up], inputs)], steady);
    for (const difference of [accuracyDifference(moody, steady), accuracyDifference(moody, two)]) {
      expect(width(difference)).toBeGreaterThan(1.5 * width(one));
    }
    // The same moods on both sides cancel.
    expect(width(accuracyDifference(moody, moody))).toBeLessThan(0.2);
  });
});

describe("other statistics of inputs", () => {
  test("Student's factors", () => {
    // Quantiles of t at (1 + level) / 2 by @stdlib/stats; of the normal distribution for the last.
    const known = [
      [0.95, 1, 12.706204736],
      [0.95, 7.5, 2.333039627],
      [0.99, 40, 2.704459267],
      [0.999, 3, 12.923978637],
      [0.95, Number.POSITIVE_INFINITY, 1.959963985],
    ] as const;
    for (const [level, degrees, factor] of known) {
      expect(Math.abs(studentFactor(level, degrees) / factor - 1)).toBeLessThan(2e-5);
    }
  });

  test("the mean of values, each input one draw: Student's interval by hand", () => {
    const values = [1, 3, 2, 4, 6];
    const free = meanOverInputs(values, names(5), { range: [0, 10] });
    // s = 1.923538, t(4) = 2.776445.
    expect(free.mean).toBeCloseTo(3.2, 12);
    expect(free.high - 3.2).toBeCloseTo((2.776445 * 1.923538) / Math.sqrt(5), 4);
    const twice = meanOverInputs([...values, ...values], [...names(5), ...names(5)], { range: [0, 10] });
    expect(twice).toEqual(free);
    expect(meanOverInputs([0.5], ["a"], { range: [-1, 1] })).toMatchObject({ low: -1, high: 1, items: 1 });
    expect(() => meanOverInputs([1], [], { range: [0, 1] })).toThrow(/input for each value/);
  });

  test("resampling draws inputs with all their items", () => {
    const sizes = new Set<number>();
    const count = (indices: readonly number[]) => {
      sizes.add(indices.filter((i) => i < 3).length);
      return indices.length;
    };
    expect(resampled(["a", "a", "a", "b"], count, { range: [0, 9] }).items).toBe(2);
    expect([...sizes].sort()).toEqual([0, 3, 6]);
    expect(resampled(["a", "a"], count, { range: [0, 9] })).toMatchObject({ mean: 2, low: 0, high: 9 });
    expect(() => resampled([], () => 0, { range: [0, 1] })).toThrow(/at least one item/);
  });

  test("resampled intervals of a few inputs' median hold it as often as they say", () => {
    const random = seededRandom(3);
    const runs = 300;
    let held = 0;
    for (let run = 0; run < runs; run++) {
      const values = names(9).map(() => normal(random));
      const median = (indices: readonly number[]) =>
        indices.map((i) => values[i]!).sort((a, b) => a - b)[Math.floor(indices.length / 2)]!;
      const { low, high } = resampled(names(9), median, { range: [-9, 9] });
      if (low <= 0 && 0 <= high) held++;
    }
    expect(held / runs).toBeGreaterThan(0.93);
  });

  test("the best of many is not flattered: each half's answers are of what is best on the other", () => {
    const inputs = names(4);
    const of = (row: string): Hits => [task([row], inputs)];
    // Inputs 0 and 2 are one half. The second candidate is best on them, the third on the others.
    const candidates = [of("0000"), of("1010"), of("0111")];
    expect(crossFitted(candidates)[0]!.seeds).toEqual([[0, 0, 1, 0]]);
    // Chosen by another list, in which the first is best.
    expect(crossFitted(candidates, [[of("1111"), of("0000"), of("0000")]])[0]!.seeds).toEqual([[0, 0, 0, 0]]);
    // Of coins the best of twenty comes to no more than a coin.
    let mean = 0;
    for (let run = 0; run < 40; run++) {
      const coins = Array.from({ length: 20 }, (_, c) => [
        task(
          [
            names(40)
              .map(
                (_, i) =>
                  `${((run * 7919 + c * 104729 + i * 15485863 + ((run + c) * (i + 3) * 31) ** 2) % 97) % 2}`,
              )
              .join(""),
          ],
          names(40),
        ),
      ]);
      mean += accuracy(crossFitted(coins)).mean / 40;
    }
    expect(mean).toBeGreaterThan(0.42);
    expect(mean).toBeLessThan(0.58);
  });
});
