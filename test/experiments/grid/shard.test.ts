import * as fc from "fast-check";
import { expect, test } from "vitest";
import { parseShard, shardOf, shardOfEnvironment } from "../../../experiments/grid/shard.ts";

test("shards have each cell once, are as long as each other, and touch few runs", () => {
  const counts = fc.array(fc.integer({ min: 0, max: 60 }), { maxLength: 6 });
  fc.assert(
    fc.property(counts, fc.integer({ min: 1, max: 12 }), (runs, count) => {
      const shards = Array.from({ length: count }, (_, i) => shardOf(runs, { index: i + 1, count }));
      const total = runs.reduce((sum, n) => sum + n, 0);
      for (const [r, size] of runs.entries()) {
        const places = shards.flatMap((shard) => shard[r]!);
        expect(places.sort((a, b) => a - b)).toEqual(Array.from({ length: size }, (_, i) => i));
      }
      for (const shard of shards) {
        const own = shard.reduce((sum, list) => sum + list.length, 0);
        expect(Math.abs(own - total / count)).toBeLessThan(1);
      }
      const visits = shards.flatMap((shard) => shard.filter((list) => list.length > 0)).length;
      expect(visits).toBeLessThanOrEqual(runs.length + count);
    }),
    { numRuns: 300 },
  );
});

test("within a run shards take turns: early cells, which others need, are everybody's", () => {
  expect(shardOf([6], { index: 1, count: 2 })).toEqual([[0, 2, 4]]);
  expect(shardOf([6], { index: 2, count: 2 })).toEqual([[1, 3, 5]]);
  expect(shardOf([4, 4], { index: 1, count: 2 })).toEqual([[0, 1, 2, 3], []]);
});

test.each([
  [
    {
      SLURM_ARRAY_TASK_ID: "7",
      SLURM_ARRAY_TASK_MIN: "5",
      SLURM_ARRAY_TASK_MAX: "14",
      SLURM_ARRAY_TASK_COUNT: "10",
    },
    "3/10",
  ],
  [
    {
      SLURM_ARRAY_TASK_ID: "4",
      SLURM_ARRAY_TASK_MIN: "0",
      SLURM_ARRAY_TASK_MAX: "9",
      SLURM_ARRAY_TASK_STEP: "2",
      SLURM_ARRAY_TASK_COUNT: "5",
    },
    "3/5",
  ],
  [{ JOB_COMPLETION_INDEX: "0", JOB_COMPLETIONS: "4" }, "1/4"],
  [{ JOB_COMPLETION_INDEX: "3", JOB_COMPLETIONS: "4" }, "4/4"],
])("the shard of %j is %s", (env, expected) => {
  const { index, count, from } = shardOfEnvironment(env)!;
  expect(`${index}/${count}`).toBe(expected);
  expect(from).toBe(Object.keys(env)[0]);
});

test("elsewhere there is none", () => expect(shardOfEnvironment({})).toBeUndefined());

test.each([
  [{ SLURM_ARRAY_TASK_ID: "1" }, /^SLURM_ARRAY_TASK_MIN: expected a whole number, found nothing$/],
  [
    {
      SLURM_ARRAY_TASK_ID: "3",
      SLURM_ARRAY_TASK_MIN: "1",
      SLURM_ARRAY_TASK_MAX: "7",
      SLURM_ARRAY_TASK_COUNT: "3",
    },
    /^SLURM_ARRAY_TASK_ID: the array from 1 to 7 has gaps \(3 tasks\)/,
  ],
  [{ JOB_COMPLETION_INDEX: "0" }, /^JOB_COMPLETIONS: expected a whole number, found nothing$/],
  [
    { JOB_COMPLETION_INDEX: "4", JOB_COMPLETIONS: "4" },
    /^JOB_COMPLETION_INDEX: expected a shard, found 5 of 4$/,
  ],
  [
    { JOB_COMPLETION_INDEX: "x", JOB_COMPLETIONS: "4" },
    /^JOB_COMPLETION_INDEX: expected a whole number, found "x"$/,
  ],
])("%j is refused", (env, message) => {
  expect(() => shardOfEnvironment(env)).toThrow(message);
});

test.each(["0/3", "4/3", "1", "1/", "a/b", "1/3/5"])("--shard %s is refused", (text) => {
  expect(() => parseShard(text)).toThrow(/^--shard: expected a shard such as 1\/8 to 8\/8/);
});
