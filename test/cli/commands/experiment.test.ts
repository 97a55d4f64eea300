import { spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { CellRecord } from "../../../experiments/framework/cell-store.ts";
import { processSpace } from "../../../experiments/framework/process-identity.ts";
import { EXPERIMENTS } from "../../../experiments/index.ts";
import { knownLlm } from "../../../src/cli/options/session.ts";
import { randomTask } from "../../helpers/lab.ts";
import { fixtureModel } from "../../helpers/model.ts";

const root = join(import.meta.dirname, "..", "..", "..");
const folder = mkdtempSync(join(tmpdir(), "xpatch-experiment-"));
afterAll(() => rmSync(folder, { recursive: true }));

let args: string[];
beforeAll(async () => {
  const model = await fixtureModel("llava");
  const files = ["alpha", "gamma"].map((name) => {
    const { instruction, items } = randomTask(model, name);
    const file = join(folder, `${name}.json`);
    const listed = items.map(({ input, outputs, split }) => ({ input, output: outputs, split }));
    writeFileSync(file, JSON.stringify({ name, instruction, items: listed }));
    return file;
  });
  args = ["--model", "test/fixtures/llava/model", "--tasks", files.join(","), "--shots", "2", "--seeds", "2"];
});

const command = (name: string, ...more: string[]) => [
  join(root, "dist", "cli", "main.js"),
  name,
  ...args,
  ...more,
];

function xpatch(...given: Parameters<typeof command>) {
  return spawnSync(process.execPath, command(...given), { cwd: root, encoding: "utf8" });
}

function cellsOf(out: string): CellRecord[] {
  const [, ...lines] = readFileSync(join(out, "cells.jsonl"), "utf8").trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line));
}

/** Starts a run and kills it, as `kill -9` does, when so many cells are done. */
async function killed(out: string, cells: number): Promise<void> {
  const child = spawn(process.execPath, command("reproduce", "--out", out), { cwd: root, stdio: "ignore" });
  const ended = new Promise<NodeJS.Signals | null>((done) => child.on("exit", (_, signal) => done(signal)));
  const file = join(out, "cells.jsonl");
  const poll = setInterval(() => {
    if (existsSync(file) && readFileSync(file, "utf8").split("\n").length > cells + 1) child.kill("SIGKILL");
  }, 5);
  const signal = await ended;
  clearInterval(poll);
  expect(signal).toBe("SIGKILL");
}

test("a run that is killed twice ends as one that is not, with nothing lost or counted twice", async () => {
  const [whole, broken] = [join(folder, "whole"), join(folder, "broken")];
  await killed(broken, 2);
  const first = cellsOf(broken);
  await killed(broken, first.length + 3);
  const second = cellsOf(broken);
  expect(second.slice(0, first.length)).toEqual(first);

  const resumed = xpatch("reproduce", "--out", broken, "--json");
  expect(resumed.status, resumed.stderr).toBe(0);
  expect(xpatch("reproduce", "--out", whole).status).toBe(0);

  const cells = cellsOf(broken);
  expect(cells.slice(0, second.length)).toEqual(second);
  expect(cells.length).toBeGreaterThan(second.length);
  const untimed = (list: CellRecord[]) => list.map(({ seconds: _, ...rest }) => rest);
  expect(untimed(cells)).toEqual(untimed(cellsOf(whole)));
  expect(readFileSync(join(broken, "report.html"), "utf8")).toBe(
    readFileSync(join(whole, "report.html"), "utf8"),
  );

  const answers = (out: string) => readFileSync(join(out, "answers.parquet"));
  expect(answers(broken).equals(answers(whole))).toBe(true);
  const converted = spawnSync(
    process.execPath,
    [join(root, "dist/cli/main.js"), "rows", whole, "--tasks", args[3]!, "--out", folder, "--json"],
    { cwd: root, encoding: "utf8" },
  );
  expect(converted.status, converted.stderr).toBe(0);
  expect(answers(folder).equals(answers(whole))).toBe(true);
  expect(JSON.parse(converted.stdout).files.map(({ file }: { file: string }) => basename(file))).toEqual(
    ["answers", "measures"].flatMap((name) => [`${name}.parquet`, `${name}.csv`]),
  );

  const report = JSON.parse(resumed.stdout);
  expect(report.setting.model).toMatchObject({ name: "model", family: "llava", layers: 3 });
  // What is given comes before what `reproduce` sets by itself.
  expect(report.setting.options).toMatchObject({
    shots: 2,
    seeds: 2,
    promptSeeds: 1,
    validationItems: 5,
    testItems: 10,
  });
  expect(report.plainForwardPasses).toBe(cells.reduce((sum, { cost }) => sum + cost.plainPasses, 0));
  expect(report.forwardPassEquivalents).toBeLessThan(report.plainForwardPasses / 2);
  // Without pictures the cross-modal claim cannot be tested, and is not passed off as tested.
  const outcomes = new Map<string, string>(
    report.experiments.map(({ name, outcome }: { name: string; outcome: string }) => [name, outcome]),
  );
  const asked = EXPERIMENTS.filter(({ onlyInFull }) => !onlyInFull).map(({ name }) => name);
  expect([...outcomes.keys()]).toEqual(asked);
  expect(asked).not.toContain("efficiency");
  for (const untestable of ["cross-modal", "llm-to-vlm", "task-conflict", "arithmetic"]) {
    expect(outcomes.get(untestable), untestable).toBe("not testable here");
  }
});

test("of two runs into one folder the second is refused; one that is interrupted says how to go on", async () => {
  const out = join(folder, "shared");
  const child = spawn(process.execPath, command("reproduce", "--out", out), {
    cwd: root,
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  child.stderr.on("data", (data) => (said += data));
  const ended = new Promise<NodeJS.Signals | null>((done) => child.on("exit", (_, signal) => done(signal)));
  while (!existsSync(join(out, "cells.jsonl"))) await new Promise((done) => setTimeout(done, 5));

  const second = xpatch("experiment", "sweep", "--out", out);
  expect({ status: second.status, stdout: second.stdout }).toEqual({ status: 1, stdout: "" });
  expect(second.stderr).toMatch(
    new RegExp(
      `^xpatch: .*shared: another command is writing here \\(process ${child.pid} on .*another folder\n$`,
    ),
  );
  child.kill("SIGINT");
  expect(await ended).toBe("SIGINT");
  expect(said).toMatch(/^xpatch: stopped by SIGINT; the same command goes on from here$/m);
  // Whole lines, and neither a lock nor a temporary file.
  expect(readFileSync(join(out, "cells.jsonl"), "utf8")).toMatch(/\n$/);
  cellsOf(out);
  expect(readdirSync(out).filter((name) => /lock|tmp/.test(name))).toEqual([]);
});

test("one that is interrupted while the model loads says how to go on, too", async () => {
  const out = join(folder, "loading");
  const child = spawn(process.execPath, command("reproduce", "--out", out), {
    cwd: root,
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  child.stderr.on("data", (data) => (said += data));
  const ended = new Promise<NodeJS.Signals | null>((done) => child.on("exit", (_, signal) => done(signal)));
  while (!existsSync(join(out, "lock"))) await new Promise((done) => setTimeout(done, 2));
  child.kill("SIGINT");
  expect(await ended).toBe("SIGINT");
  expect(said).toMatch(/^xpatch: stopped by SIGINT; the same command goes on from here$/m);
  // A folder that was made for nothing is gone.
  expect(existsSync(out) && readdirSync(out)).not.toEqual([]);
});

test("of several that find the lock of a killed run, one takes it over", async () => {
  const out = join(folder, "orphaned");
  mkdirSync(out);
  const gone = spawnSync(process.execPath, ["-e", ""]).pid;
  const script = `
    import { existsSync } from "node:fs";
    const { FolderLock } = await import(${JSON.stringify(pathToFileURL(join(root, "dist/experiments/index.js")).href)});
    console.log("ready");
    while (!existsSync(${JSON.stringify(join(folder, "go"))})) await new Promise((done) => setTimeout(done, 1));
    try {
      const lock = FolderLock.take(${JSON.stringify(out)});
      await new Promise((done) => setTimeout(done, 2000));
      lock.check();
      console.log("held");
    } catch (error) {
      console.log(error.name, error.message);
    }`;
  const left = { pid: gone, host: hostname(), space: processSpace(), since: "earlier" };
  writeFileSync(join(out, "lock"), JSON.stringify(left));
  const runs = Array.from({ length: 4 }, () => {
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], { cwd: root });
    let said = "";
    let ready: () => void;
    const started = new Promise<void>((done) => (ready = done));
    child.stdout.on("data", (data) => {
      said += data;
      if (said.startsWith("ready")) ready();
    });
    return { started, ended: new Promise<string>((done) => child.on("close", () => done(said))) };
  });
  await Promise.all(runs.map(({ started }) => started));
  writeFileSync(join(folder, "go"), "");
  const said = await Promise.all(runs.map(({ ended }) => ended));
  expect(said.filter((text) => text.endsWith("held\n"))).toHaveLength(1);
  expect(said.filter((text) => /FileError .*(another command|no longer)/.test(text))).toHaveLength(3);
}, 60_000);

test("a cell that the disk does not take is taken back: the store holds whole lines and goes on", () => {
  const out = join(folder, "filled");
  const script = `
    const { FolderLock, Store } = await import(${JSON.stringify(pathToFileURL(join(root, "dist/experiments/index.js")).href)});
    const lock = FolderLock.take(${JSON.stringify(out)});
    const store = await Store.open(lock, { options: {} });
    const record = (n, length) => ({ key: "k" + n, kind: "k", params: {}, result: "x".repeat(length), cost: {}, seconds: 0 });
    store.add(record(1, 1000));
    try {
      store.add(record(2, 100_000));
    } catch (error) {
      console.log(error.name, error.message, store.get("k2"));
    }
    store.add(record(3, 10));
    console.log(store.records.map(({ key }) => key).join());`.replace("using lock", "const lock");
  // Files of 8 or 16 KiB at most: a write comes to that point, and the next fails.
  const limited = [
    "-c",
    'ulimit -f 16; exec "$@"',
    "sh",
    process.execPath,
    "--input-type=module",
    "-e",
    script,
  ];
  const { stdout } = spawnSync("sh", limited, { cwd: root, encoding: "utf8" });
  expect(stdout).toBe(
    `FileError cannot write ${join(out, "cells.jsonl")}: file too large (EFBIG) undefined\nk1,k3\n`,
  );
  expect(cellsOf(out).map(({ key }) => key)).toEqual(["k1", "k3"]);
});

test("--quick and --full contradict each other", () => {
  const { status, stderr } = xpatch("reproduce", "--quick", "--full", "--out", join(folder, "none"));
  expect(status).not.toBe(0);
  expect(stderr).toMatch(/'--full' cannot be used with option '--quick'/);
  expect(existsSync(join(folder, "none"))).toBe(false);
});

test("another setting for the same folder is one line on stderr", () => {
  const { status, stdout, stderr } = xpatch(
    "experiment",
    "sweep",
    "--out",
    join(folder, "whole"),
    "--seeds",
    "1",
    // Found before any model is opened.
    "--model",
    join(folder, "no-model"),
  );
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  expect(stderr).toMatch(/holds a run of another setting.*options\.seeds was 2, now 1/);
});

test("the model that comes along has its language model beside it, unless another is named", () => {
  const run = (...more: string[]) => {
    // One task: nothing to conflict, so nothing is computed.
    const out = join(folder, `beside-${more.length}`);
    const given = [
      "task-conflict",
      "--tasks",
      args[3]!.split(",")[0]!,
      "--shots",
      "2",
      "--out",
      out,
      "--json",
      ...more,
    ];
    const cli = [join(root, "dist", "cli", "main.js"), "experiment", ...given];
    const { status, stdout, stderr } = spawnSync(process.execPath, cli, { cwd: root, encoding: "utf8" });
    expect(status, stderr).toBe(0);
    return JSON.parse(stdout).setting;
  };
  // By its name it is what it was by its folder: a run that began with one goes on with the other.
  expect(run()).toMatchObject({ model: { name: "vlm" }, llm: { name: "llm" } });
  expect(run("--llm", "test/fixtures/llama/model")).toMatchObject({ llm: { name: "model" } });
  for (const ref of ["xpatch:vlm", join(root, "weights", "vlm"), "./weights/vlm"]) {
    expect(knownLlm(ref)).toBe("xpatch:llm");
  }
  expect(knownLlm("weights/nano")).toBeUndefined();
});
