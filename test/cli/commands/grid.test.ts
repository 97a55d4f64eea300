import { spawn, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { seededNumbers } from "../../helpers/compare.ts";
import { writePlan } from "../../helpers/grid.ts";
import { ROOT } from "../../helpers/rooms.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-grids-"));
afterAll(() => rmSync(root, { recursive: true }));

const MAIN = join(ROOT, "dist", "cli", "main.js");
const plan = writePlan(join(root, "plan"), { models: ["llama", "gpt2"] });
const at = (name: string) => join(root, name);

function grid(args: readonly string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, "grid", ...args], {
    encoding: "utf8",
    env: { ...process.env, ...env },
  });
  return { status, stdout, stderr };
}

/** A worker that runs on. */
function started(args: readonly string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [MAIN, "grid", "run", ...args], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (said += data));
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null; said: string }>((done) =>
    child.on("close", (code, signal) => done({ code, signal, said })),
  );
  return { child, ended };
}

/** The files of a folder with their bytes. */
function contents(folder: string): Map<string, Buffer> {
  const paths = (readdirSync(folder, { recursive: true }) as string[]).sort();
  const files = paths.filter((path) => statSync(join(folder, path)).isFile());
  return new Map(files.map((path) => [path, readFileSync(join(folder, path))]));
}

function expectSame(folder: string, whole: string): void {
  const [found, expected] = [contents(folder), contents(whole)];
  expect([...found.keys()]).toEqual([...expected.keys()]);
  for (const [path, bytes] of expected) expect(found.get(path)!.equals(bytes), path).toBe(true);
}

function planned(name: string): string {
  expect(grid(["plan", plan, at(name)])).toMatchObject({ status: 0 });
  return at(name);
}

beforeAll(() => {
  const store = planned("whole-store");
  const run = grid(["run", store]);
  expect(run, run.stderr).toMatchObject({
    status: 0,
    stdout: expect.stringMatching(/40 computed here, 0 failed\n$/),
  });
  expect(run.stderr).toMatch(/^shard 1 of 1 \(no shard given\)$/m);
  expect(grid(["merge", store, "--out", at("whole")])).toMatchObject({ status: 0 });
}, 180_000);

/** Whether a worker has written a finished cell down. */
function hasFinished(store: string, pid: number): boolean {
  return readdirSync(join(store, "runs")).some((run) => {
    const packs = join(store, "runs", run, "packs");
    const indexes = existsSync(packs) ? readdirSync(packs).filter((name) => name.endsWith(".index")) : [];
    const own = indexes.find((name) => name.includes(`-${pid}-`));
    return own !== undefined && /^cell /m.test(readFileSync(join(packs, own), "utf8"));
  });
}

test("a plan interrupted ten times at random comes to the bytes of an unbroken one", async () => {
  const store = planned("broken");
  const random = seededNumbers(5);
  for (let round = 0; round < 5; round++) {
    const ends = await Promise.all(
      [1, 2].map(async (i) => {
        const { child, ended } = started([store, "--shard", `${i}/2`]);
        // In the midst of its work: it has finished something, and is at something else.
        while (!hasFinished(store, child.pid!)) await new Promise((done) => setTimeout(done, 5));
        await new Promise((done) => setTimeout(done, 60 * (random() + 1)));
        child.kill("SIGKILL");
        return ended;
      }),
    );
    expect(ends.map(({ signal }) => signal)).toEqual(["SIGKILL", "SIGKILL"]);
  }
  const status = JSON.parse(grid(["status", store, "--json"]).stdout);
  const finished = status.runs.reduce((sum: number, run: { finished: number }) => sum + run.finished, 0);
  expect(finished).toBeGreaterThanOrEqual(10);
  expect(finished).toBeLessThan(40);
  expect(status.workers).toEqual([]);
  const last = grid(["run", store]);
  expect(last, last.stderr).toMatchObject({ status: 0 });
  // Nothing that was finished is computed again.
  expect(last.stdout).toMatch(`40 cells, ${40 - finished} computed here`);
  expect(grid(["merge", store, "--out", at("broken-out")])).toMatchObject({ status: 0 });
  expectSame(at("broken-out"), at("whole"));
}, 180_000);

test("three shards, each told its number another way, come to the same bytes", async () => {
  const store = planned("shards");
  const slurm = {
    SLURM_ARRAY_TASK_ID: "1",
    SLURM_ARRAY_TASK_MIN: "0",
    SLURM_ARRAY_TASK_MAX: "2",
    SLURM_ARRAY_TASK_COUNT: "3",
  };
  const runs = await Promise.all(
    [
      started([store], { JOB_COMPLETION_INDEX: "2", JOB_COMPLETIONS: "3" }),
      started([store], slurm),
      started([store, "--shard", "1/3"]),
    ].map(({ ended }) => ended),
  );
  for (const { code, said } of runs) expect(code, said).toBe(0);
  expect(runs[0]!.said).toMatch(/^shard 3 of 3 \(JOB_COMPLETION_INDEX\)$/m);
  expect(runs[1]!.said).toMatch(/^shard 2 of 3 \(SLURM_ARRAY_TASK_ID\)$/m);
  expect(grid(["merge", store, "--out", at("shards-out")])).toMatchObject({ status: 0 });
  expectSame(at("shards-out"), at("whole"));
  // Workers that end leave neither claims nor signs.
  for (const run of readdirSync(join(store, "runs"))) {
    expect(readdirSync(join(store, "runs", run, "claims"))).toEqual([]);
  }
  expect(readdirSync(join(store, "workers"))).toEqual([]);
}, 180_000);

test("SIGTERM gives the cell up: what is finished stays, and no claim", async () => {
  const store = planned("stopped");
  const { child, ended } = started([store]);
  const claims = () =>
    readdirSync(join(store, "runs")).flatMap((run) => {
      const folder = join(store, "runs", run, "claims");
      return existsSync(folder) ? readdirSync(folder) : [];
    });
  while (claims().length === 0) await new Promise((done) => setTimeout(done, 2));
  child.kill("SIGTERM");
  const { signal, said } = await ended;
  expect(signal).toBe("SIGTERM");
  expect(said).toMatch(/^xpatch: stopped by SIGTERM; the same command goes on from here$/m);
  expect(claims()).toEqual([]);
  expect(readdirSync(join(store, "workers"))).toEqual([]);

  // Merging what there is takes --partial, which says so.
  const refused = grid(["merge", store, "--out", at("partial")]);
  expect(refused).toMatchObject({ status: 1, stdout: "" });
  expect(refused.stderr).toMatch(
    /^xpatch: \d+ cells are missing: [0-9a-f]{16}-[0-9a-f]{24} \(.*\); and \d+ more; "xpatch grid run"/,
  );
  const partial = grid(["merge", store, "--out", at("partial"), "--partial"]);
  expect(partial, partial.stderr).toMatchObject({ status: 0 });
  expect(readFileSync(join(at("partial"), "gpt2", "report.html"), "utf8")).toMatch(
    /incomplete<\/strong> – \d+ of its \d+ cells, or of those that they need, have not been computed; the grid was merged with --partial/,
  );
  // Merged again when all is there, it is as if it had never been partial.
  expect(grid(["run", store])).toMatchObject({ status: 0 });
  expect(grid(["merge", store, "--out", at("partial")])).toMatchObject({ status: 0 });
  expectSame(at("partial"), at("whole"));
}, 180_000);

test("a cell that fails has its error in run and status, and exit code 1; the others go on, and it is tried again", () => {
  const store = planned("damaged");
  // What somebody has finished, of which a file of vectors has been damaged since.
  for (const run of readdirSync(join(store, "runs"))) {
    const [from, to] = [join(at("whole-store"), "runs", run), join(store, "runs", run)];
    const [index] = readdirSync(join(from, "packs")).filter((name) => name.endsWith(".index"));
    const name = index!.slice(0, -".index".length);
    mkdirSync(join(to, "packs"));
    cpSync(join(from, "setting.json"), join(to, "setting.json"));
    const data = readFileSync(join(from, "packs", `${name}.data`));
    data[100]! ^= 1;
    writeFileSync(join(to, "packs", `${name}.data`), data);
    const lines = readFileSync(join(from, "packs", `${name}.index`), "utf8").split("\n");
    writeFileSync(join(to, "packs", `${name}.index`), `${lines.slice(0, 3).join("\n")}\n`);
  }
  const run = grid(["run", store]);
  expect(run, run.stderr).toMatchObject({ status: 1 });
  expect(run.stdout).toMatch(
    /[0-9a-f]{16}-[0-9a-f]{24}: the cell "layer-sweep .*" failed: XpatchError: the file vectors\/\S+ is damaged: .*; delete /,
  );
  const status = grid(["status", store]);
  expect(status).toMatchObject({ status: 1, stdout: expect.stringMatching(/^failed: .*is damaged/m) });
  const merge = grid(["merge", store, "--out", at("damaged-out")]);
  expect(merge).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/^xpatch: the file vectors\/\S+ is damaged/),
  });
  expect(existsSync(at("damaged-out"))).toBe(false);
  // As the message says.
  for (const id of readdirSync(join(store, "runs"))) {
    const packs = join(store, "runs", id, "packs");
    for (const file of readdirSync(packs)) {
      if (existsSync(join(at("whole-store"), "runs", id, "packs", file))) rmSync(join(packs, file));
    }
  }
  expect(grid(["run", store])).toMatchObject({ status: 0 });
  expect(grid(["merge", store, "--out", at("damaged-out")])).toMatchObject({ status: 0 });
  expectSame(at("damaged-out"), at("whole"));
}, 180_000);

test("folders of other things are refused, and left as they are", () => {
  mkdirSync(at("foreign"));
  writeFileSync(join(at("foreign"), "notes.txt"), "mine");
  const line = (args: string[]) => {
    const { status, stdout, stderr } = grid(args);
    expect({
      status,
      stdout,
      lines: stderr
        .trimEnd()
        .split("\n")
        .filter((one) => !one.startsWith("shard")).length,
    }).toEqual({
      status: 1,
      stdout: "",
      lines: 1,
    });
    return stderr;
  };
  expect(line(["plan", plan, at("foreign")])).toMatch(
    /foreign: expected an empty folder or that of a grid, found other things/,
  );
  expect(line(["run", at("foreign")])).toMatch(
    /foreign is not the folder of a grid: there is no grid\.json in it/,
  );
  expect(line(["merge", at("whole-store"), "--out", at("foreign")])).toMatch(
    /foreign: expected an empty folder or one that this grid/,
  );
  const other = writePlan(at("other-plan"), { tasks: ["alpha", "delta"] });
  expect(line(["plan", other, at("whole-store")])).toMatch(/whole-store holds the grid of another plan/);
  expect(line(["plan", plan, join(at("foreign"), "notes.txt")])).toMatch(/notes\.txt/);
  mkdirSync(at("own-runs/runs/mine"), { recursive: true });
  expect(line(["plan", plan, at("own-runs")])).toMatch(
    /own-runs: expected an empty folder or that of a grid/,
  );
  expect(readdirSync(at("foreign"))).toEqual(["notes.txt"]);
  // A grid of another version.
  const old = join(at("old"), "grid.json");
  mkdirSync(at("old"));
  const file = JSON.parse(readFileSync(join(at("whole-store"), "grid.json"), "utf8"));
  writeFileSync(old, JSON.stringify({ ...file, version: "0.0.1" }));
  expect(line(["status", at("old")])).toMatch(
    /of another version of xpatch: expected version .*, found 0\.0\.1 and 1/,
  );
}, 180_000);
