import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { FolderLock } from "../../../experiments/framework/folder-lock.ts";
import { Lab } from "../../../experiments/framework/lab.ts";
import { runExperiments } from "../../../experiments/framework/runner.ts";
import { settingOf } from "../../../experiments/framework/setting.ts";
import { Store } from "../../../experiments/framework/store.ts";
import {
  expandPlan,
  GridStore,
  GridWorker,
  gridStatus,
  mergeGrid,
  readPlan,
  runShard,
} from "../../../experiments/grid/index.ts";
import { EXPERIMENTS } from "../../../experiments/index.ts";
import { writeRows } from "../../../experiments/rows/write-rows.ts";
import { readTask } from "../../../src/cli/options/task-file.ts";
import { loadModel } from "../../../src/patching/model.ts";
import { testDevice } from "../../helpers/device.ts";
import { modelFolder, writePlan } from "../../helpers/grid.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-grid-"));
afterAll(() => rmSync(root, { recursive: true }));

const sources = { readTask };
const command = (_: unknown, experiment: string) => `xpatch experiment ${experiment}`;

let store: GridStore;
beforeAll(async () => {
  const plan = await readPlan(writePlan(join(root, "plan")));
  store = await GridStore.create(join(root, "store"), await expandPlan(plan, sources));
});

/** All files of a folder by path; times, which a grid leaves out, are taken out of those that have them. */
function filesOf(folder: string): Record<string, string> {
  const paths = (readdirSync(folder, { recursive: true }) as string[]).sort();
  const files = paths.filter((path) => statSync(join(folder, path)).isFile() && path !== "lock");
  return Object.fromEntries(
    files.map((path) => {
      const text = readFileSync(join(folder, path), "latin1");
      if (!/^(cells\.jsonl|.*result\.json)$/.test(path)) return [path, text];
      return [path, text.replaceAll(/,\s*"seconds":\s*[\d.e-]+/g, "")];
    }),
  );
}

test("cells are computed in any order, each once, and come to what a single process writes", async () => {
  const [run] = store.runs;
  const cells = store.cellsOf(run!.id);
  expect(cells.length).toBe(run!.count);
  await using worker = new GridWorker(store, sources);
  const last = cells.at(-1)!;
  expect(await worker.compute(last.name)).toMatchObject({ state: "finished" });
  // What it asked for came with it.
  worker.flush();
  store.refresh();
  const before = cells.filter(({ name }) => store.state(name) === "finished").length;
  expect(before).toBeGreaterThan(3);
  expect(gridStatus(store)).toMatchObject({ complete: false, workers: [{ id: worker.id, cells: [] }] });
  await expect(mergeGrid(store, sources, { out: join(root, "early") })).rejects.toThrow(
    new RegExp(`^${cells.length - before} cells are missing: ${run!.id}-[0-9a-f]{24} \\(llama: .*--partial`),
  );

  const result = await runShard(store, worker, { index: 1, count: 1 });
  expect(result).toEqual({ cells: cells.length, computed: cells.length - before, refused: 0, failed: [] });
  expect(await worker.compute(last.name)).toEqual({ state: "already", seconds: 0 });
  expect(gridStatus(store)).toMatchObject({ complete: true, runs: [{ finished: cells.length }] });
  await mergeGrid(store, sources, { out: join(root, "merged"), command });

  const folder = join(root, "single");
  using lock = FolderLock.take(folder);
  const tasks = await Promise.all(run!.tasks.map((ref) => readTask(join(root, "plan", ref))));
  const model = await loadModel(modelFolder("llama"), { device: await testDevice() });
  const parts = { model, llm: undefined, tasks, options: run!.setting.options };
  const setting = await settingOf(parts);
  const lab = new Lab({
    ...parts,
    setting,
    store: await Store.open(lock, setting),
    folder,
    command: (experiment) => command(undefined, experiment),
  });
  const experiments = EXPERIMENTS.filter(({ name }) => ["sweep", "instructions"].includes(name));
  await runExperiments(lab, [experiments[1]!, experiments[0]!]);
  await writeRows({ folder, setting, records: lab.store.records, asked: lab }, "parquet");
  const [merged, single] = [filesOf(join(root, "merged", "llama")), filesOf(folder)];
  expect(Object.keys(merged)).toEqual(Object.keys(single));
  for (const [path, content] of Object.entries(single)) expect(merged[path] === content, path).toBe(true);
});
