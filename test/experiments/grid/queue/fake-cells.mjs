/*
 * A process that computes cells that are no cells: what a cell does is the first word of its name. It keeps them in a folder, as a
 * store would: a file `<cell>` where it is finished, a line in `log` for whatever happens.
 *
 *   quick-…    is finished at once
 *   slow-…     takes as long as the file `hold` is there, and a little more
 *   poison-…   kills its process
 *   broken-…   fails
 *   flaky-…    kills its process the first time, fails the second time
 *   unfit-…    finds, the first time, that its process can compute nothing
 */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { serveCells } from "../../../../dist/experiments/grid/queue/serve-cells.js";

const [folder] = process.argv.slice(2);
const log = (what, cell) => appendFileSync(join(folder, "log"), `${what} ${cell} ${process.pid}\n`);
const pause = (ms) => new Promise((settle) => setTimeout(settle, ms));

/** How often a cell has been begun. */
const times = (cell) =>
  readFileSync(join(folder, "log"), "utf8")
    .split("\n")
    .filter((line) => line.startsWith(`begun ${cell} `)).length;

class Unfit extends Error {}

async function compute(cell, _doing, signal) {
  signal.addEventListener("abort", () => log("stopped", cell));
  log("begun", cell);
  const [kind] = cell.split("-");
  const state = await Promise.race([
    outcome(kind, cell),
    new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason))),
  ]);
  if (state.state === "finished") log("done", cell);
  return { seconds: 0.01, ...state };
}

async function outcome(kind, cell) {
  const file = join(folder, "cells", cell);
  if (existsSync(file)) return { state: "already" };
  if (kind === "slow") {
    await pause(100);
    while (existsSync(join(folder, "hold"))) await pause(20);
  }
  if (kind === "unfit" && times(cell) === 1) throw new Unfit("another driver than the one before");
  if (kind === "poison" || (kind === "flaky" && times(cell) === 1)) {
    process.stderr.write("out of memory, or so\n");
    process.kill(process.pid, "SIGKILL");
    await pause(1000);
  }
  if (kind === "broken" || (kind === "flaky" && times(cell) === 2)) {
    return {
      state: "failed",
      error: `Error: ${cell} cannot be computed\n    at compute (fake-cells.mjs:1:1)`,
    };
  }
  writeFileSync(file, JSON.stringify({ patched: [{ accuracy: 0.5, answers: [] }] }));
  return { state: "finished" };
}

serveCells(
  compute,
  (error) => error instanceof Unfit,
  async () => {},
);
