import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { CellRecord } from "../experiments/framework/store.ts";
import { EXPERIMENTS } from "../experiments/index.ts";
import { knownLlm } from "../src/cli/session.ts";
import { randomTask } from "./helpers/lab.ts";
import { fixtureModel } from "./helpers/model.ts";

const root = join(import.meta.dirname, "..");
const folder = mkdtempSync(join(tmpdir(), "xpatch-experiment-"));
afterAll(() => rmSync(folder, { recursive: true }));

let args: string[];
beforeAll(async () => {
  const script = pathToFileURL(join(root, "scripts", "build.mjs")).href;
  const build = `const { ensureBuild } = await import(${JSON.stringify(script)}); await ensureBuild();`;
  const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", build], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`the command line does not build:\n${stderr}`);
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
  expect([...outcomes.keys()]).toEqual(EXPERIMENTS.map(({ name }) => name));
  for (const untestable of ["cross-modal", "llm-to-vlm", "task-conflict", "arithmetic"]) {
    expect(outcomes.get(untestable), untestable).toBe("not testable here");
  }
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
  );
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  expect(stderr).toMatch(/holds a run of another setting.*options\.seeds was 2, now 1/);
});

test("the model that comes along has its language model beside it, unless another is named", () => {
  const run = (...more: string[]) => {
    // One task: nothing to conflict, so nothing is computed.
    const out = join(folder, `beside-${more.length}`);
    const given = ["task-conflict", "--tasks", args[3]!.split(",")[0]!, "--out", out, "--json", ...more];
    const cli = [join(root, "dist", "cli", "main.js"), "experiment", ...given];
    const { status, stdout, stderr } = spawnSync(process.execPath, cli, { cwd: root, encoding: "utf8" });
    expect(status, stderr).toBe(0);
    return JSON.parse(stdout).setting;
  };
  expect(run()).toMatchObject({ model: { name: "vlm" }, llm: { name: "llm" } });
  expect(run("--llm", "test/fixtures/llama/model")).toMatchObject({ llm: { name: "model" } });
  expect(knownLlm(join(root, "weights", "vlm"))).toBe(knownLlm("./weights/vlm"));
  expect(knownLlm("weights/nano")).toBeUndefined();
});
