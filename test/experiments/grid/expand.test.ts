import { execFileSync } from "node:child_process";
import { appendFileSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command } from "commander";
import { afterAll, expect, test } from "vitest";
import { labOptions } from "../../../experiments/framework/lab-options.ts";
import { expandPlan, GridStore, GridWorker, mergeGrid, readPlan } from "../../../experiments/grid/index.ts";
import { experimentCommandOf } from "../../../src/cli/commands/grid/merge.ts";
import {
  addExperimentOptions,
  type ExperimentArguments,
} from "../../../src/cli/options/experiment-options.ts";
import { GRID_SOURCES } from "../../../src/cli/options/grid-sources.ts";
import { modelFolder, writePlan } from "../../helpers/grid.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-expand-"));
afterAll(() => rmSync(root, { recursive: true }));

async function expanded(path: string) {
  return expandPlan(await readPlan(path), GRID_SOURCES);
}

/** A plan with some text in place of other. */
function changed(name: string, ...changes: (readonly [string, string])[]): string {
  const path = writePlan(join(root, name));
  const text = changes.reduce((now, [from, to]) => now.replace(from, to), readFileSync(path, "utf8"));
  writeFileSync(path, text);
  return path;
}

test("a plan expands to the same cells wherever it lies, to others for other options, tasks and models", async () => {
  const names = async (path: string) => {
    const { runs } = await expanded(path);
    return runs.map(({ id, label, keys }) => ({ id, label, keys: keys.length }));
  };
  const first = await names(writePlan(join(root, "one")));
  expect(await names(writePlan(join(root, "two")))).toEqual(first);
  const two = await names(changed("shots", ["shots: 2", "shots: [2, 3]"]));
  expect(two.map(({ label }) => label)).toEqual(["llama/shots=2", "llama/shots=3"]);
  expect(two[0]!.id).toBe(first[0]!.id);
  expect(two[1]!.id).not.toBe(first[0]!.id);
  const ids = new Set(first.map(({ id }) => id));
  for (const path of [
    changed("seeds", ["seeds: 2", "seeds: 1"]),
    changed("order", ["[alpha.json, gamma.json]", "[gamma.json, alpha.json]"]),
    changed("words", ["experiments:", "specifications: [text]\nexperiments:"]),
    writePlan(join(root, "model"), { models: ["gpt2"] }),
  ]) {
    for (const { id } of await names(path)) expect(ids).not.toContain(id);
  }
});

test("specifications that are left out are no cells", async () => {
  const { runs } = await expanded(changed("text", ["experiments:", "specifications: [text]\nexperiments:"]));
  const [{ keys, experiments }] = runs as [(typeof runs)[number]];
  expect(keys.length).toBeGreaterThan(5);
  expect(keys.filter((key) => key.includes("instruction"))).toEqual([]);
  expect(experiments.find(({ name }) => name === "instructions")).toMatchObject({ cells: [] });
});

test("an experiment that looks at the weights has them", async () => {
  const path = changed("tuning", ["[sweep, instructions]", "[fine-tuning]"]);
  const { runs } = await expanded(path);
  expect(runs[0]!.experiments).toEqual([
    {
      name: "fine-tuning",
      untestable: "no task has two train items or more, which are what is trained on",
      cells: [],
    },
  ]);
});

test.each([
  ["a model that is none", [modelFolder("llama"), "./none"], /plan\.yaml:2: models\[0\]: .*none/],
  [
    "its language model",
    ["label: llama", "label: llama, llm: ./none"],
    /plan\.yaml:2: models\[0\]\.llm: .*none/,
  ],
  ["its adapter", ["label: llama", "label: llama, lora: ./none"], /plan\.yaml:2: models\[0\]: .*none/],
  [
    "a task that is none",
    ["alpha.json", "none.json"],
    /plan\.yaml:3: tasks\[0\]: .*no such file.*none\.json/,
  ],
  [
    "too few items",
    ["shots: 2", "shots: 4"],
    /plan\.yaml:7: options: shots: task alpha has 4 validation items/,
  ],
  ["no encoder", ["shots: 2", "shots: 2\n  stack: encoder"], /plan\.yaml:7: options: stack: .*encoder/],
  [
    "means",
    ["shots: 2", "shots: 2\n  outside-means: [alpa]"],
    /options: outside-means: there is no task alpa; .*nearest is "alpha"/,
  ],
  [
    "what the protocol sets",
    ["shots: 2\n", "protocol: paper\n"],
    /plan\.yaml:4: seeds: the paper.s protocol sets this/,
  ],
  [
    "the same run twice",
    ["  - {", `  - { model: ${modelFolder("llama")}, label: again }\n  - {`],
    /^llama is the same as another run of the plan/,
  ],
] as const)("%s is refused, with its place", async (name, change, message) => {
  await expect(expanded(changed(name.replaceAll(" ", "-"), change))).rejects.toThrow(message);
});

test("the command in a run's report means the run's options, tasks and model", async () => {
  const path = changed("command", [
    "  shots: 2\n",
    '  shots: [2, 3]\n  template: "{x} = {y}\\n"\n  prompt-seeds: 1\n  layer-by: task\n  outside-means: [gamma]\n',
  ]);
  const text = readFileSync(path, "utf8").replace("experiments:", "specifications: [text]\nexperiments:");
  writeFileSync(path, text);
  const store = await GridStore.create(join(root, "command-store"), await expanded(path));
  expect(store.runs).toHaveLength(2);
  for (const run of store.runs) {
    const script = `for word in ${experimentCommandOf(run, "sweep")}; do printf '%s\\0' "$word"; done`;
    const words = execFileSync("sh", ["-c", script], { encoding: "utf8" });
    const [npx, xpatch, experiment, sweep, ...given] = words.split("\0").slice(0, -1);
    expect([npx, xpatch, experiment, sweep]).toEqual(["npx", "xpatch", "experiment", "sweep"]);
    const command = addExperimentOptions(new Command()).exitOverride();
    command.parse(given, { from: "user" });
    const args = command.opts<ExperimentArguments>();
    expect(JSON.stringify(labOptions(args))).toBe(JSON.stringify(run.setting.options));
    expect([args.model, args.tasks, args.llm]).toEqual([run.source.model, run.tasks, undefined]);
  }
});

test("a model or task that is no longer that of the plan is refused, by workers and by merge", async () => {
  const path = changed("moved", [modelFolder("llama"), "./copy"]);
  const copy = join(root, "moved", "copy");
  cpSync(modelFolder("llama"), copy, { recursive: true });
  const store = await GridStore.create(join(root, "moved-store"), await expanded(path));
  const [run] = store.runs;
  const [cell] = store.cellsOf(run!.id);
  const task = join(root, "moved", "gamma.json");
  const text = readFileSync(task, "utf8");
  writeFileSync(task, text.replace("gamma test 1", "gamma test one"));
  {
    await using worker = new GridWorker(store, GRID_SOURCES);
    await expect(worker.compute(cell!.name)).rejects.toThrow(
      /^llama is no longer what was planned: tasks\.1\.hash was "[0-9a-f]{64}", now "[0-9a-f]{64}"$/,
    );
  }
  const merged = mergeGrid(store, GRID_SOURCES, { out: join(root, "moved-out"), partial: true });
  await expect(merged).rejects.toThrow(/^llama is no longer what was planned: tasks\.1\.hash was/);
  writeFileSync(task, text);
  appendFileSync(join(copy, "tokenizer.json"), "\n");
  await using worker = new GridWorker(store, GRID_SOURCES);
  await expect(worker.compute(cell!.name)).rejects.toThrow(
    /^llama is no longer what was planned: model\.hash was/,
  );
  const again = mergeGrid(store, GRID_SOURCES, { out: join(root, "moved-out"), partial: true });
  await expect(again).rejects.toThrow(/^llama is no longer what was planned: outline was/);
  await expect(worker.compute(`${run!.id}-${"0".repeat(24)}`)).rejects.toThrow(/there is no cell/);
});
