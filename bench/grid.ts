/**
 * What a grid itself costs: trivial cells, computed by some processes into one folder, without a model. Prints JSON.
 *
 *   npm run build && node node_modules/typescript/bin/tsc -p bench/tsconfig.build.json
 *   node dist/bench/grid.js [cells] [runs] [workers]     # default: 100000 20 2
 *
 * Each cell has a claim of its own and a result of 2 KB; one of four has a file of 8 KB, as task vectors do, and one of four
 * asks for the one before it. Then the folder is looked at, and everything is read as `merge` does, with its checksums.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { defineCell } from "#experiments/framework/cell";
import type { Setting } from "#experiments/framework/setting";
import { VERSION } from "#experiments/grid/cell-names";
import { Claims } from "#experiments/grid/claims";
import { CellBusy, GridLab } from "#experiments/grid/grid-lab";
import { GridStore } from "#experiments/grid/grid-store";
import { missingOf } from "#experiments/grid/missing";
import { PackWriter } from "#experiments/grid/pack-writer";
import type { ExpandedPlan } from "#experiments/grid/plan";
import { Presence, Watch } from "#experiments/grid/presence";
import { shardOf } from "#experiments/grid/shard";
import { gridStatus } from "#experiments/grid/status";
import { describeMachine } from "./machine.ts";

const RESULT = "1".repeat(2000);
const FILE = new Uint8Array(8192).fill(7);
const SETTING = { adapter: "none", kernels: "none", versions: {}, tasks: [] } as unknown as Setting;

const trivial = defineCell("trivial", async (lab, { n }: { n: number }): Promise<{ hits: string }> => {
  if (n % 4 === 0) await lab.store.keepFile(`vectors/${n}.bin`, FILE);
  if (n % 4 === 1) await lab.run(trivial({ n: n - 1 }));
  return { hits: `${RESULT}${n}` };
});

function planOf(cells: number, runs: number): ExpandedPlan {
  const each = Math.ceil(cells / runs);
  const keys = Array.from({ length: each }, (_, n) => trivial({ n }).key);
  const places = keys.map((_, place) => place);
  const run = (r: number) => ({
    id: r.toString(16).padStart(16, "0"),
    label: `run-${r}`,
    source: { model: "none" },
    tasks: [],
    options: {} as never,
    setting: SETTING,
    outline: "",
    experiments: [{ name: "sweep", cells: places }],
    keys,
  });
  return { version: VERSION, folder: tmpdir(), runs: Array.from({ length: runs }, (_, r) => run(r)) };
}

/** One worker: what `GridWorker` does, without a model. */
async function work(folder: string, index: number, count: number): Promise<void> {
  const store = GridStore.open(folder);
  using presence = new Presence(store.workerFolder);
  const watch = new Watch(store.workerFolder, 180);
  const places = shardOf(
    store.runs.map((run) => run.count),
    { index, count },
  );
  let peak = 0;
  const start = performance.now();
  for (const [r, { id }] of store.runs.entries()) {
    if (places[r]!.length === 0) continue;
    const kept = store.storeOf(id);
    const pack = new PackWriter(kept.packFolder, presence.id, await kept.begin(SETTING));
    const claims = new Claims(kept.claimFolder, presence, watch);
    const none = undefined as never;
    const parts = { model: none, llm: undefined, tasks: [], options: {} as never, setting: SETTING, folder };
    const lab = new GridLab({ ...parts, kept, pack, claims });
    let busy: number[] = [];
    for (let left = places[r]!; left.length > 0; left = busy) {
      busy = [];
      for (const n of left) {
        try {
          await lab.run(trivial({ n }));
        } catch (error) {
          if (!(error instanceof CellBusy)) throw error;
          busy.push(n);
        }
      }
      if (busy.length > 0) {
        await new Promise((done) => setTimeout(done, 600));
        kept.refresh();
      }
      peak = Math.max(peak, process.memoryUsage.rss());
    }
    pack.close();
  }
  const seconds = (performance.now() - start) / 1000;
  console.log(JSON.stringify({ seconds, peakRssMiB: Math.round(peak / 2 ** 20) }));
}

function child(args: readonly string[]): Promise<{ seconds: number; peakRssMiB: number }> {
  const run = spawn(process.execPath, [fileURLToPath(import.meta.url), ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  run.stdout.on("data", (data) => (said += data));
  return new Promise((done, fail) => {
    run.on("close", (code) =>
      code === 0 ? done(JSON.parse(said)) : fail(new Error(`a worker ended with ${code}`)),
    );
  });
}

function timed<T>(act: () => T): { result: T; seconds: number } {
  const start = performance.now();
  const result = act();
  return { result, seconds: (performance.now() - start) / 1000 };
}

async function measure(cells: number, runs: number, workers: number) {
  const folder = mkdtempSync(join(tmpdir(), "xpatch-bench-grid-"));
  const began = performance.now();
  await GridStore.create(folder, planOf(cells, runs));
  const planned = (performance.now() - began) / 1000;
  const loads = [describeMachine().loadAverage];
  const each = await Promise.all(
    Array.from({ length: workers }, (_, i) => child(["--work", folder, `${i + 1}`, `${workers}`])),
  );
  loads.push(describeMachine().loadAverage);
  const paths = readdirSync(folder, { recursive: true }) as string[];
  const files = paths.map((path) => statSync(join(folder, path))).filter((found) => found.isFile());
  const store = GridStore.open(folder);
  const status = timed(() => gridStatus(store));
  let peak = 0;
  const merge = timed(() => {
    for (const { id } of store.runs) {
      store.refresh(id);
      const missing = missingOf(
        store.storeOf(id),
        store.cellsOf(id).map(({ key }) => key),
      );
      if (missing.length > 0) throw new Error(`${missing.length} cells are missing`);
      peak = Math.max(peak, process.memoryUsage.rss());
      store.forget(id);
    }
  });
  if (!status.result.complete) throw new Error("the grid is not complete");
  rmSync(folder, { recursive: true });
  const seconds = Math.max(...each.map((one) => one.seconds));
  const round = (value: number, digits = 1) => Number(value.toFixed(digits));
  return {
    cells,
    runs,
    workers,
    planSeconds: round(planned),
    computeSeconds: round(seconds),
    cellsPerSecond: Math.round(cells / seconds),
    workerPeakRssMiB: Math.max(...each.map(({ peakRssMiB }) => peakRssMiB)),
    files: files.length,
    megabytes: round(files.reduce((sum, { size }) => sum + size, 0) / 1e6),
    statusSeconds: round(status.seconds, 2),
    readAllSeconds: round(merge.seconds),
    readerPeakRssMiB: Math.round(peak / 2 ** 20),
    loadAverages: loads,
  };
}

const [first, ...rest] = process.argv.slice(2);
if (first === "--work") {
  await work(rest[0]!, Number(rest[1]), Number(rest[2]));
} else {
  const [cells = 100_000, runs = 20, workers = 2] = process.argv.slice(2).map(Number);
  const machine = describeMachine();
  const results = await measure(cells, runs, workers);
  console.log(JSON.stringify({ date: new Date().toISOString(), machine, results }, undefined, 2));
}
