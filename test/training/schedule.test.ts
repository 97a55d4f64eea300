import { expect, test } from "vitest";
import { cosineSchedule } from "../../src/training/schedule.ts";

test("a line up, then half a cosine down", () => {
  const rates = Array.from({ length: 13 }, (_, step) => cosineSchedule(step, 12, { warmUp: 4 }));
  // get_cosine_schedule_with_warmup(optimizer, 4, 12) of transformers 5.24
  const expected = [
    0.0, 0.25, 0.5, 0.75, 1.0, 0.9619397662556434, 0.8535533905932737, 0.6913417161825449, 0.5,
    0.30865828381745514, 0.14644660940672627, 0.03806023374435663, 0.0,
  ];
  for (const [step, rate] of expected.entries()) expect(rates[step]).toBeCloseTo(rate, 12);
});

test("`least` is what is left at the end and beyond", () => {
  expect(cosineSchedule(10, 10, { least: 0.1 })).toBeCloseTo(0.1, 12);
  expect(cosineSchedule(99, 10, { least: 0.1 })).toBeCloseTo(0.1, 12);
  expect(cosineSchedule(5, 10, { least: 0.1 })).toBeCloseTo(0.55, 12);
  expect(cosineSchedule(0, 10)).toBe(1);
});

test("a warm-up that leaves nothing is refused", () => {
  expect(() => cosineSchedule(0, 10, { warmUp: 10 })).toThrow(/expected a warm-up of 0 to 9 steps, found 10/);
});
