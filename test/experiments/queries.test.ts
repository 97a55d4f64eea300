import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { densePatch, densePrompt, describedItems, givenAway } from "../../experiments/cells/dense-text.ts";
import { chosenLayer, layerSweep } from "../../experiments/cells/layer-sweep.ts";
import { longPatch, longPrompt, mostTokens, scoredLines } from "../../experiments/cells/long-answers.ts";
import { overridingSweep, overridingTest } from "../../experiments/cells/overriding.ts";
import { testPatch } from "../../experiments/cells/test-answers.ts";
import { denseText } from "../../experiments/dense-text.ts";
import type { Lab } from "../../experiments/framework/lab.ts";
import { type Finished, runExperiments } from "../../experiments/framework/runner.ts";
import { scored } from "../../experiments/framework/scored.ts";
import { longAnswers } from "../../experiments/long-answers.ts";
import { overriding } from "../../experiments/overriding.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import type { PromptImage } from "../../src/model/prompt/prompt-image.ts";
import { type Edit, set } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import { atLastExample, drawItems, exampleOf, fewShotPrompt } from "../../src/tasks/few-shot.ts";
import { loadPictures } from "../../src/tasks/pictures.ts";
import { picturedItemsOf, type Task, type TaskItem } from "../../src/tasks/task.ts";
import { OPTIONS, openLab, randomTask } from "../helpers/lab.ts";
import { fixtureModel } from "../helpers/model.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-queries-"));
afterAll(() => rmSync(root, { recursive: true }));

/** A task of which three test items are described, and one of them gives an answer away. */
function described(task: Task): Task {
  const texts = ["Qxzv qqj.", "Wvvk, zzq.", `It is ${task.items[6]!.outputs[0]}, they say.`];
  const test = task.items.filter(({ split }) => split === "test");
  return {
    ...task,
    items: task.items.map((item) => {
      const text = texts[test.indexOf(item)];
      return text === undefined ? item : { ...item, text };
    }),
  };
}

/** A task whose first test item has a question of its own. */
function questioned(task: Task): Task {
  const own = { question: "Who holds it?", answers: task.items[0]!.outputs.slice(0, 5) };
  return { ...task, items: task.items.map((item, i) => (i === 4 ? { ...item, ...own } : item)) };
}

let model: PatchableModel;
let tasks: Task[];
let lab: Lab;
let finished: Finished[];
beforeAll(async () => {
  model = await fixtureModel("llava");
  tasks = [described(questioned(randomTask(model, "alpha"))), randomTask(model, "gamma ray")];
  lab = await openLab(join(root, "run"), model, tasks);
  finished = await runExperiments(lab, [overriding, denseText, longAnswers]);
});

const ALPHA = { task: "alpha", specification: "text", query: "text" } as const;

const testItems = (task: Task) => picturedItemsOf(task, "test");

function fewShot(task: Task, items: readonly TaskItem[], ask: (item: TaskItem) => string, seed: number) {
  const split = items[0]!.split;
  return items.map((item) => {
    const shown = drawItems(picturedItemsOf(task, split), item, { count: OPTIONS.shots, seed });
    const examples = shown.map((one) => exampleOf(one));
    return fewShotPrompt(model, examples, ask(item));
  });
}

/** The mean over the few-shot prompts of validation items, at the last example's answer cue. */
async function textVector(task: Task, seed: number, layer: number): Promise<number[]> {
  const prompts = fewShot(task, picturedItemsOf(task, "validation"), ({ input }) => input, seed);
  const rows = await Promise.all(prompts.map((prompt) => stream(prompt, layer, atLastExample(prompt))));
  return rows[0]!.map((_, i) => rows.reduce((sum, row) => sum + row[i]! / rows.length, 0));
}

async function stream(prompt: Prompt, layer: number, at: number): Promise<number[]> {
  const { x } = model.run(prompt, { taps: { x: tap(`resid_post.${layer}`, at) } });
  return [...(await x.read())];
}

async function nextToken(prompt: Prompt<PromptImage>, edits: Edit[] = []): Promise<number> {
  const values = [...(await model.run(prompt, { edits }).logits!.read())];
  return values.indexOf(Math.max(...values));
}

async function plainTokens(prompts: readonly Prompt<PromptImage>[], edits?: Edit[]): Promise<number[]> {
  const ids: number[] = [];
  for (const prompt of prompts) ids.push(await nextToken(prompt, edits));
  return ids;
}

const textsOf = (ids: readonly number[]) =>
  ids.map((id) => model.tokenizer.decode([id], { skipSpecial: true }));

const put = (layer: number, vector: readonly number[]) => [set(`resid_post.${layer}`, -1, vector)];

describe("overriding", () => {
  /** Prompts of pictures, each with a question; behind the instruction as well. */
  async function pictured(task: Task, split: "validation" | "test") {
    const items = picturedItemsOf(task, split);
    const pictures = await loadPictures(model, items);
    return items.map((item) => {
      const question = item.question ?? "What is it?";
      const template = `Q: {x}\n${question}\nA: {y}\n\n`;
      const plain = fewShotPrompt(model, [], pictures(item), template);
      const system = model.prompt([
        `${task.instruction}\n`,
        "Q:",
        pictures(item),
        `\n${question}\nA:`,
      ] as Parameters<typeof model.prompt>[0]);
      return { plain, system: system as Prompt<PromptImage> };
    });
  }

  test("questions are answered alone, behind the instruction, and under its vector, as by full runs", async () => {
    const [task] = tasks;
    const prompts = await pictured(task!, "test");
    const result = lab.result(overridingTest({ task: "alpha", query: "image" }));
    expect(result.prompts[0]).toMatch(/^Q:.*\nWho holds it\?\nA:$/s);
    expect(result.prompts[1]).toMatch(/^Q:.*\nWhat is it\?\nA:$/s);
    const plain = prompts.map((one) => one.plain);
    const none = await plainTokens(plain);
    const system = await plainTokens(prompts.map((one) => one.system));
    const vector = await stream(model.prompt(task!.instruction!), result.layer, -1);
    const patched = await plainTokens(plain, put(result.layer, vector));
    expect(result.none.other.answers).toEqual(textsOf(none));
    expect(result.system.other.answers).toEqual(textsOf(system));
    expect(result.patched.other.answers).toEqual(textsOf(patched));
    const other = await stream(model.prompt(tasks[1]!.instruction!), result.layer, -1);
    expect(result.controls.anotherInstruction!.other.answers).toEqual(
      textsOf(await plainTokens(plain, put(result.layer, other))),
    );
    // By the answers of either side: the question's own, or where there is none the name.
    const own = testItems(task!).map((item) => ({ ...item, outputs: item.answers ?? [item.input] }));
    expect(result.system.own.hits).toBe(scored(model.tokenizer, own, system, {}).hits);
    expect(result.system.other.hits).toBe(scored(model.tokenizer, testItems(task!), system, {}).hits);
  });

  test("the layer is the one where validation items follow the instruction most often", async () => {
    const rights = [0, 0, 0];
    for (const task of tasks) {
      const prompts = (await pictured(task, "validation")).map(({ plain }) => plain);
      const { patched } = lab.result(
        overridingSweep({ task: task.name, specification: "instruction", query: "image" }),
      );
      for (const layer of rights.keys()) {
        const vector = await stream(model.prompt(task.instruction!), layer, -1);
        const ids = await plainTokens(prompts, put(layer, vector));
        const expected = scored(model.tokenizer, picturedItemsOf(task, "validation"), ids, {});
        expect(patched[0]![layer]).toEqual(expected);
        rights[layer]! += expected.accuracy;
      }
    }
    const { layer } = lab.result(overridingTest({ task: "alpha", query: "image" }));
    expect(layer).toBe(rights.indexOf(Math.max(...rights)));
  });
});

describe("descriptions", () => {
  test("those with an answer in them are left out, and counted", () => {
    const [task, other] = tasks;
    expect(describedItems(lab, task!).map(({ text }) => text)).toEqual(["Qxzv qqj.", "Wvvk, zzq."]);
    expect([givenAway(lab, task!), describedItems(lab, other!), givenAway(lab, other!)]).toEqual([1, [], 0]);
  });

  test.each([
    ["The capital is Paris.", ["Paris"], 1],
    ["The capital is PARIS", ["Lyon", "paris"], 1],
    ["Its people eat port of spain.", ["Port of Spain"], 1],
    ["In the middle of Europe.", ["Euro"], 0],
    ["A port in Spain.", ["Port of Spain"], 0],
    ["首都は東京です", ["東京"], 1],
  ])("%s, of %s", (text, outputs, count) => {
    const items = tasks[1]!.items.map((item, i) => (i === 4 ? { ...item, outputs, text } : item));
    expect(givenAway(lab, { ...tasks[1]!, items })).toBe(count);
  });

  test("are asked about in place of names, behind examples that name, and patched as names are", async () => {
    const [task] = tasks;
    const items = describedItems(lab, task!);
    const params = { task: "alpha", specification: "text", asked: "description" } as const;
    const { queries, layer, noContext, patched, controls } = lab.result(densePatch(params));
    expect(queries).toEqual(["Q: Qxzv qqj.\nA:", "Q: Wvvk, zzq.\nA:"]);
    expect(layer).toBe(chosenLayer(lab, ALPHA, task!));
    const bare = items.map(({ text }) => fewShotPrompt(model, [], text));
    expect(noContext.answers).toEqual(textsOf(await plainTokens(bare)));
    for (const seed of [0, 1]) {
      const vector = await textVector(task!, seed, layer);
      expect(patched[seed]!.answers).toEqual(textsOf(await plainTokens(bare, put(layer, vector))));
    }
    const other = await textVector(tasks[1]!, 0, layer);
    expect(controls.anotherTask![0]!.answers).toEqual(textsOf(await plainTokens(bare, put(layer, other))));
    for (const seed of [0, 1]) {
      const prompts = fewShot(task!, items, (item) => item.text!, seed);
      const result = lab.result(densePrompt({ ...params, seed }));
      expect(result.prompts).toEqual(prompts.map(({ text }) => text));
      expect(result.answers).toEqual(textsOf(await plainTokens(prompts)));
    }
    // By name it is what is asked elsewhere.
    const named = lab.result(densePatch({ ...params, asked: "name" }));
    const whole = await lab.run(testPatch(ALPHA));
    expect(named.patched[0]!.answers).toEqual(whole.patched[0]!.answers.slice(0, 2));
  });
});

describe("answers of several tokens", () => {
  /** Greedy, a full run for each token, with the patch where the query ends. */
  async function plainLine(prompt: Prompt<PromptImage>, limit: number, edits?: (at: number) => Edit[]) {
    const ids: number[] = [];
    while (ids.length < limit) {
      const all = model.promptFromIds([...prompt.ids, ...ids], prompt.images);
      const id = await nextToken(all, edits?.(prompt.last));
      ids.push(id);
      if (model.endIds.has(id) || model.tokenizer.decode([id]).includes("\n")) break;
    }
    return ids;
  }

  const lineOf = (ids: readonly number[]) =>
    model.tokenizer.decodePrefix(ids, { skipSpecial: true }).text.trim().split("\n")[0]!;

  test("are those of a full run for each token, patched at the query's last alone", async () => {
    const [task] = tasks;
    const items = testItems(task!);
    const pictures = await loadPictures(model, items);
    const bare = items.map((item) => fewShotPrompt(model, [], pictures(item)));
    const setup = { specification: "text", query: "image" } as const;
    const { layer, limit, noContext, patched } = lab.result(longPatch({ ...setup, task: "alpha" }));
    expect(layer).toBe(chosenLayer(lab, setup, task!, layerSweep));
    expect(limit).toBe(mostTokens(model.tokenizer, task!));
    expect(limit).toBeGreaterThan(1);
    const vector = await textVector(task!, 1, layer);
    const edits = (at: number) => [set(`resid_post.${layer}`, at, vector)];
    const lines: [string, string][] = [];
    for (const prompt of bare) {
      lines.push([lineOf(await plainLine(prompt, limit)), lineOf(await plainLine(prompt, limit, edits))]);
    }
    expect(noContext.answers).toEqual(lines.map(([plain]) => plain));
    expect(patched[1]!.answers).toEqual(lines.map(([, line]) => line));
    expect(patched[1]!.answers).not.toEqual(noContext.answers);
  });

  test("the first token is scored as the other experiments score it", async () => {
    for (const query of ["text", "image"] as const) {
      const setup = { specification: "text", query, task: "alpha" } as const;
      const long = lab.result(longPatch(setup));
      const { noContext, patched, controls } = await lab.run(testPatch(setup));
      expect(long.noContext.firstToken).toBe(noContext.hits);
      expect(long.patched.map(({ firstToken }) => firstToken)).toEqual(patched.map(({ hits }) => hits));
      expect(long.controls.random!.firstToken).toBe(controls.random![0]!.hits);
      expect(long.controls.anotherTask!.firstToken).toBe(controls.anotherTask![0]!.hits);
    }
    expect(lab.result(longPrompt({ ...ALPHA, seed: 0 })).answers).toHaveLength(4);
  });

  test("three measures of a line, by hand", () => {
    const { tokenizer } = model;
    const item = (...outputs: string[]): TaskItem => ({ input: "x", outputs, split: "test" });
    const generated = [" New Delhi.\n", " New Delhi is", " New York\n", " new", "\n"].map((text) => ({
      ids: tokenizer.encode(text, { specials: false }),
      text,
      ended: false,
      unfired: [],
    }));
    const found = scoredLines(
      tokenizer,
      generated.map(() => item("New Delhi")),
      generated,
      {},
    );
    expect(found.answers).toEqual(["New Delhi.", "New Delhi is", "New York", "new", ""]);
    expect([found.whole, found.prefix]).toEqual(["10000", "11010"]);
  });
});

test("what they find is a section of the report each", () => {
  expect(finished.map(({ experiment: { name } }) => name)).toEqual([
    "overriding",
    "dense-text",
    "long-answers",
  ]);
  for (const { findings } of finished) {
    // Eight inputs decide nothing.
    expect(findings.verdict.outcome).toBe("too few items to tell");
    expect(findings.verdict.checks.every(({ estimate }) => estimate !== undefined)).toBe(true);
    expect(findings.figures.length && findings.tables.length && findings.controls.length).toBeGreaterThan(0);
  }
});

test("without descriptions, or instructions, there is nothing to test", () => {
  const bare = tasks.map((task) => ({
    name: task.name,
    items: task.items.map(({ text: _, ...item }) => item),
  }));
  const { model: of, options, setting, store, folder } = lab;
  const LabOf = lab.constructor as new (parts: object) => Lab;
  const other = new LabOf({ model: of, tasks: bare, options, setting, store, folder });
  expect(denseText.untestable!(other)).toMatch(/no task has test items with a text/);
  expect(overriding.untestable!(other)).toMatch(/no task has an instruction/);
});
