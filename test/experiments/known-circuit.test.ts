import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { arithmetic } from "../../experiments/arithmetic.ts";
import { chosenLayer } from "../../experiments/cells/layer-sweep.ts";
import type { Experiment } from "../../experiments/framework/experiment.ts";
import { runExperiments } from "../../experiments/framework/runner.ts";
import { lens } from "../../experiments/lens.ts";
import { llmToVlm } from "../../experiments/llm-to-vlm.ts";
import { sweep } from "../../experiments/sweep.ts";
import { taskConflict } from "../../experiments/task-conflict.ts";
import { LAYER_OF, VARIANTS } from "../../scripts/known-circuit/circuit.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import { parseTask, type Task } from "../../src/tasks/task.ts";
import { xpatch } from "../helpers/command-line.ts";
import { testDevice } from "../helpers/device.ts";
import type { Variant } from "../helpers/known-circuit.ts";
import { OPTIONS, openLab } from "../helpers/lab.ts";

const WITHIN = [sweep, lens, taskConflict, arithmetic];

/** What a verdict may say where nothing is to be found: not even that it replicates in part. */
const NEGATIVE = ["does not replicate", "too few items to tell"];

const root = mkdtempSync(join(tmpdir(), "xpatch-known-circuit-"));
afterAll(() => rmSync(root, { recursive: true }));

let tasks: Task[];

beforeAll(() => {
  run(join("scripts", "run-ts.mjs"), join("scripts", "make-known-circuit.ts"), root);
  tasks = ["capital", "language"].map((word) => {
    const file = join(root, "tasks", `country-${word}.json`);
    return parseTask(readFileSync(file, "utf8"), file);
  });
});

/** Runs a program of this checkout. */
function run(file: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(process.execPath, [file, ...args], { encoding: "utf8" });
  if (status !== 0) throw new Error(stderr);
}

async function load(name: Variant): Promise<PatchableModel> {
  return loadModel(join(root, name), { device: await testDevice() });
}

/** The outcomes of experiments on a variant, with another as the language model that it was fine-tuned from. */
async function outcomes(name: Variant, llm: Variant, experiments: readonly Experiment[]) {
  const options = { ...OPTIONS, seeds: 1, shots: 3 };
  const [model, other] = [await load(name), await load(llm)];
  const lab = await openLab(join(root, `run-${name}-${llm}`), model, tasks, options, other);
  const finished = await runExperiments(lab, experiments);
  const found = finished.map(
    ({ experiment, findings }) => [experiment.name, findings.verdict.outcome] as const,
  );
  return { lab, found: Object.fromEntries(found) };
}

test("the script writes every variant as a folder that loads", async () => {
  for (const name of Object.keys(VARIANTS) as Variant[]) {
    using model = await load(name);
    expect(model.family).toBe("llama");
  }
});

test.each([
  ["model", ["3"]],
  ["twin", []],
])("xpatch sweep marks as best in %s: %j", async (name, best) => {
  const vectors = join(root, `${name}.safetensors`);
  const task = ["--model", join(root, name), "--task", join(root, "tasks", "country-capital.json")];
  const printedBy = async (...args: string[]) => {
    const { status, stdout, messages } = await xpatch([...args, ...task]);
    expect(status, messages.join("\n")).toBe(0);
    return stdout;
  };
  await printedBy("extract", "--out", vectors);
  const printed = await printedBy("sweep", "--vectors", vectors);
  expect(printed).toMatch(/^ +0 +0\.0 % +0\/45/m);
  expect([...printed.matchAll(/^ *(\d+) .*← best$/gm)].map(([, layer]) => layer)).toEqual(best);
});

describe("the experiments' verdicts", () => {
  test("replicate on the model, in the layer that was built", async () => {
    const experiments = [...WITHIN, llmToVlm];
    const { lab, found } = await outcomes("model", "other-replies", experiments);
    expect(found).toEqual(Object.fromEntries(experiments.map(({ name }) => [name, "replicates"])));
    expect(chosenLayer(lab, { specification: "text", query: "text" }, tasks[0]!)).toBe(LAYER_OF.gather);
  });

  // Its prompts work, and behind APPLY one answer for all is right for some: more than no context ever is.
  test("do not replicate on the twin, nor in part", async () => {
    const { found } = await outcomes("twin", "model", WITHIN);
    expect(Object.keys(found)).toEqual(WITHIN.map(({ name }) => name));
    for (const [name, outcome] of Object.entries(found)) expect(NEGATIVE, name).toContain(outcome);
    // That there is no task to be read is seen with few items.
    expect(found["lens"]).toBe("does not replicate");
  });

  test("do not take a copy in another basis for the model's base", async () => {
    const { found } = await outcomes("model", "rotated", [llmToVlm]);
    expect(NEGATIVE).toContain(found["llm-to-vlm"]);
  });
});
