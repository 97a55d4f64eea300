import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type DemoReport, demoCommand } from "../../../src/cli/commands/demo.ts";
import { formatDemo } from "../../../src/cli/commands/demo-text.ts";
import { addCommonOptions } from "../../../src/cli/options/command.ts";
import { set } from "../../../src/patching/edit.ts";
import { loadModel, type PatchableModel } from "../../../src/patching/model.ts";
import { tap } from "../../../src/patching/tap.ts";
import { atLastExample, drawExamples, fewShotPrompt } from "../../../src/tasks/few-shot.ts";
import { itemsOf, parseTask, type TaskItem } from "../../../src/tasks/task.ts";
import { testDevice } from "../../helpers/device.ts";

const folder = mkdtempSync(join(tmpdir(), "xpatch-demo-"));
const modelFolder = `${import.meta.dirname}/../../fixtures/llama/model`;
const LAYER = 1;
const SHOTS = 2;

let model: PatchableModel;
beforeAll(async () => {
  model = await loadModel(modelFolder, { device: await testDevice() });
});
afterAll(() => {
  model.dispose();
  rmSync(folder, { recursive: true });
});

/** A task whose validation and test items also accept the given answers, by input. */
function writeTask(accepted: ReadonlyMap<string, string> = new Map()): { path: string; text: string } {
  const items = ["validation", "test"].flatMap((split) =>
    Array.from({ length: 9 }, (_, i) => {
      const input = `${split} ${i}`;
      const also = accepted.get(input);
      return { input, output: [`${"abcdefghi"[i]}zzzz`, ...(also ? [also] : [])], split };
    }),
  );
  const text = JSON.stringify({ name: "made-up", items });
  const path = join(folder, `task-${accepted.size}.json`);
  writeFileSync(path, text);
  return { path, text };
}

async function runDemo(...args: string[]): Promise<DemoReport> {
  const write = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  try {
    const command = addCommonOptions(demoCommand());
    await command.parseAsync([modelFolder, "--json", "--shots", `${SHOTS}`, ...args], { from: "user" });
    return JSON.parse(write.mock.calls.map(([chunk]) => chunk).join(""));
  } finally {
    write.mockRestore();
  }
}

async function nextId(text: string, edits: Parameters<PatchableModel["run"]>[1] = {}): Promise<number> {
  const logits = await model.run(model.prompt(text), edits).logits!.read();
  return logits.indexOf(Math.max(...logits));
}

const textOf = (id: number) => model.tokenizer.decode([id], { skipSpecial: true });

const nextToken = async (...given: Parameters<typeof nextId>) => textOf(await nextId(...given));

/** The vector of a layer by hand: full runs one by one, averaged here. */
async function vectorByHand(items: readonly TaskItem[], layer: number): Promise<number[]> {
  const rows: Float32Array[] = [];
  for (const item of items) {
    const examples = drawExamples(items, item, { count: SHOTS, seed: 0 });
    const prompt = fewShotPrompt(model, examples, item.input);
    const { x } = model.run(prompt, { taps: { x: tap(`resid_post.${layer}`, atLastExample(prompt)) } });
    rows.push((await x.read()) as Float32Array);
  }
  return [...rows[0]!].map((_, i) => rows.reduce((sum, row) => sum + row[i]!, 0) / rows.length);
}

test("the demo's scores are those of full runs, one question and layer at a time", async () => {
  const task = parseTask(writeTask().text, "task");
  const [validation, tested] = [itemsOf(task, "validation"), itemsOf(task, "test")];
  const vector = await vectorByHand(validation, LAYER);
  const patch = { edits: [set(`resid_post.${LAYER}`, -1, vector)] };

  // Every patched answer is right by construction, so that a score below 1 is a difference.
  const accepted = new Map<string, string>();
  for (const { input } of [...validation, ...tested]) {
    accepted.set(input, (await nextToken(`Q: ${input}\nA:`, patch)).trim());
  }
  expect([...accepted.values()].every((answer) => answer !== "")).toBe(true);

  const report = await runDemo("--task", writeTask(accepted).path);
  expect(report.sweep.layers[LAYER]).toMatchObject({ layer: LAYER, correct: 9, total: 9, accuracy: 1 });
  expect(report.sweep.best).toBe(report.sweep.layers.find(({ accuracy }) => accuracy === 1)!.layer);
  expect(report.patched.total).toBe(9);

  const ids = await Promise.all(tested.map(({ input }) => nextId(`Q: ${input}\nA:`)));
  const plain = ids.map(textOf);
  // Single bytes all read U+FFFD, and are different answers.
  const keys = plain.map((text, i) => (text.endsWith("\ufffd") ? ids[i] : text.trim().toLowerCase()));
  expect(report.noContext.distinct).toBe(new Set(keys).size);
  const right = plain.filter((text, i) => {
    const [answer, wanted] = [text.trim().toLowerCase(), accepted.get(tested[i]!.input)!.toLowerCase()];
    return answer !== "" && (answer.startsWith(wanted) || wanted.startsWith(answer));
  });
  expect(report.noContext.correct).toBe(right.length);
});

test("the report: layers, costs, setting, and the same numbers again for the same seed", async () => {
  const { path } = writeTask();
  const [report, again, other] = [
    await runDemo("--task", path),
    await runDemo("--task", path),
    await runDemo("--task", path, "--seed", "7"),
  ];
  expect(report).toMatchObject({ task: "made-up", shots: SHOTS, seed: 0, family: "llama", prompts: 9 });
  expect(report.adapter).not.toBe("");
  const { layers, best, rowLayers, plainRowLayers } = report.sweep;
  expect(layers.map(({ layer }) => layer)).toEqual(layers.map((_, i) => i));
  expect(layers).toHaveLength(model.config.layers);
  // Nothing is right, so the first layer is as good as any.
  expect(best).toBe(0);

  const tokens = itemsOf(parseTask(writeTask().text, "task"), "validation")
    .map(({ input }) => model.prompt(`Q: ${input}\nA:`).length)
    .reduce((a, b) => a + b);
  expect(plainRowLayers).toBe(tokens * model.config.layers * (model.config.layers + 1));
  expect(rowLayers).toBeLessThan(plainRowLayers);

  const { seconds, ...numbers } = report;
  expect(again).toMatchObject(numbers);
  expect(Object.values(seconds).every((value) => value > 0)).toBe(true);
  expect(other.prompt).not.toBe(report.prompt);
  expect(other.seed).toBe(7);
});

test("the text for people has every number that matters", async () => {
  const report = await runDemo("--task", writeTask().path);
  const text = formatDemo(report);
  expect(text).toMatch(/no context.* 0\.0 % +0\/9 /);
  expect(text).toMatch(/prompt: 2 examples.* 0\/9 /);
  expect(text).toMatch(/patch: .*layer 0 .* 0\/9 /);
  expect(text).toMatch(/majority: .* 11\.1 %/);
  expect(text).toMatch(/Loading \d+\.\d s, extraction/);
  expect(text).toMatch(/seed 0/);
  expect(text).not.toMatch(/← best/);
  const { correct, ...rest } = report.sweep.layers[0]!;
  const layers = [{ ...rest, correct: correct + 1 }, ...report.sweep.layers.slice(1)];
  expect(formatDemo({ ...report, sweep: { ...report.sweep, layers } })).toMatch(/ 0 +1 .*← best/);
  expect(text).toMatch(/npx xpatch demo .*llama\/model --task made-up --spec instruction/);
});

test("what a model writes cannot steer the terminal", async () => {
  const report = await runDemo("--task", writeTask().path);
  const shown = [{ ...report.shown[0]!, patched: "a\u001b[2Jb\tc" }];
  expect(formatDemo({ ...report, shown })).toMatch(/a�\[2Jb�c/);
});

test("a task that is not there is an error before any model is loaded", async () => {
  await expect(runDemo("--task", "made-up")).rejects.toThrow(/there is no task "made-up"/);
});
