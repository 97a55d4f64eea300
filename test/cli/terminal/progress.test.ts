import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { experimentProgress } from "../../../src/cli/commands/experiment-progress.ts";
import { paced, withProgress } from "../../../src/cli/terminal/progress.ts";

let said: string[];
let seconds: number;
const { isTTY } = process.stderr;
beforeEach(() => {
  said = [];
  seconds = 100;
  process.stderr.isTTY = false;
  vi.spyOn(performance, "now").mockImplementation(() => 1000 * seconds);
  vi.spyOn(process.stderr, "write").mockImplementation((text) => said.push(`${text}`) > 0);
  vi.spyOn(process.stdout, "write").mockImplementation(() => {
    throw new Error("stdout is for results");
  });
});
afterEach(() => {
  process.stderr.isTTY = isTTY;
  vi.restoreAllMocks();
});

/** Work of so many steps, each of which takes so long. */
const worked = (steps: number, secondsEach: number, isDue = paced(10)) =>
  withProgress(
    "sweeping",
    (update) => {
      for (let done = 1; done <= steps; done++) {
        seconds += secondsEach;
        update(done, steps);
      }
      return "result";
    },
    isDue,
  );

test("where stderr is no terminal, long work has a line after ten seconds and each ten seconds", async () => {
  expect(await worked(40, 1)).toBe("result");
  expect(said).toEqual(["sweeping  25 %\n", "sweeping  50 %\n", "sweeping  75 %\n"]);
});

test("slow steps have a line each, quick work has none, and neither has one at the end", async () => {
  await worked(3, 60);
  expect(said).toEqual(["sweeping  33 %\n", "sweeping  66 %\n"]);
  said.length = 0;
  await worked(9, 1);
  await worked(1, 60);
  expect(said).toEqual([]);
});

test("so has a command of many quick parts", async () => {
  const isDue = paced(10);
  for (let part = 0; part < 5; part++) await worked(4, 2, isDue);
  expect(said).toEqual(["sweeping  25 %\n", "sweeping  50 %\n", "sweeping  75 %\n"]);
});

test("experiments have a line at the beginning, each half minute and at the end of each", () => {
  using progress = experimentProgress();
  for (let done = 0; done < 10; done++) {
    progress.update({ experiment: "sweep", cell: `c${done}`, done, total: 10, secondsLeft: 7 * (10 - done) });
    seconds += 7;
  }
  progress.update({ experiment: "sweep", cell: undefined, done: 10, total: 10, secondsLeft: undefined });
  expect(said).toEqual(["sweep  0/10  70 s left  c0\n", "sweep  5/10  35 s left  c5\n", "sweep  10/10\n"]);
});

test("on a terminal it is a bar that goes away", async () => {
  process.stderr.isTTY = true;
  await worked(40, 1);
  expect(said.join("")).not.toMatch(/sweeping {2}\d+ %\n/);
});
