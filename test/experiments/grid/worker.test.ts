import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { expandPlan, GridStore, GridWorker, readPlan, runShard } from "../../../experiments/grid/index.ts";
import { readTask } from "../../../src/cli/options/task-file.ts";
import { writePlan } from "../../helpers/grid.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-grid-"));
afterAll(() => rmSync(root, { recursive: true }));

const sources = { readTask };

test("a plan is expanded, and its cells are computed in any order, each once", async () => {
  const plan = await readPlan(writePlan(join(root, "plan")));
  const expanded = await expandPlan(plan, sources);
  const store = await GridStore.create(join(root, "store"), expanded);
  const [run] = store.runs;
  const cells = store.cellsOf(run!.id);
  expect(cells.length).toBe(run!.count);
  await using worker = new GridWorker(store, sources);
  const last = cells.at(-1)!;
  expect(await worker.compute(last.name)).toMatchObject({ state: "finished" });
  await runShard(store, worker, { index: 1, count: 1 });
  expect(cells.map(({ name }) => store.state(name))).toEqual(cells.map(() => "finished"));
  expect(await worker.compute(last.name)).toEqual({ state: "already", seconds: 0 });
});
