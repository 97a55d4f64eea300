import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { arithmetic } from "../../experiments/arithmetic.ts";
import { arithmeticCell } from "../../experiments/cells/arithmetic.ts";
import { conflictSweep, conflictTest, SCALES } from "../../experiments/cells/conflict.ts";
import { ensembleTest } from "../../experiments/cells/ensembles.ts";
import { layerPairs } from "../../experiments/cells/layer-pairs.ts";
import { chosenLayer, layerSweep, llmLayerSweep } from "../../experiments/cells/layer-sweep.ts";
import { llmSimilarity } from "../../experiments/cells/llm-similarity.ts";
import { spread } from "../../experiments/cells/spread.ts";
import { llmTestPatch } from "../../experiments/cells/test-answers.ts";
import { Lab } from "../../experiments/framework/lab.ts";
import { type Finished, runExperiments } from "../../experiments/framework/runner.ts";
import { scored } from "../../experiments/framework/scored.ts";
import { instructions } from "../../experiments/instructions.ts";
import { llmToVlm } from "../../experiments/llm-to-vlm.ts";
import { taskConflict } from "../../experiments/task-conflict.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import type { PromptImage } from "../../src/model/prompt/prompt-image.ts";
import { type Edit, set } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import {
  atLastExample,
  drawItems,
  exampleOf,
  fewShotPrompt,
  instructedPrompt,
} from "../../src/tasks/few-shot.ts";
import { loadPictures } from "../../src/tasks/pictures.ts";
import { picturedItemsOf, type Task } from "../../src/tasks/task.ts";
import { OPTIONS, openLab, randomTask } from "../helpers/lab.ts";
import { fixtureModel } from "../helpers/model.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-transfer-"));
afterAll(() => rmSync(root, { recursive: true }));

const TRANSFER = [llmToVlm, instructions, taskConflict, arithmetic];

/** Two tasks of the same things, and one of others. */
function makeTasks(of: PatchableModel): Task[] {
  const alpha = randomTask(of, "alpha");
  const other = randomTask(of, "other outputs");
  const beta = {
    name: "beta",
    instruction: "The beta:",
    items: alpha.items.map((item, i) => ({ ...item, outputs: other.items[i]!.outputs })),
  };
  return [alpha, beta, randomTask(of, "gamma ray")];
}

let model: PatchableModel;
let llm: PatchableModel;
let tasks: Task[];
let lab: Lab;
let finished: Finished[];
beforeAll(async () => {
  model = await fixtureModel("llava");
  llm = await fixtureModel("llama");
  tasks = makeTasks(model);
  lab = await openLab(join(root, "run"), model, tasks, OPTIONS, llm);
  finished = await runExperiments(lab, TRANSFER);
});

type Split = "validation" | "test";

function fewShot(of: PatchableModel, task: Task, split: Split, seed: number): Prompt<PromptImage>[] {
  const items = picturedItemsOf(task, split);
  return items.map((item) => {
    const shown = drawItems(items, item, { count: OPTIONS.shots, seed }).map((one) => exampleOf(one));
    return fewShotPrompt(of, shown, item.input);
  });
}

async function pictureQueries(task: Task, split: Split): Promise<Prompt<PromptImage>[]> {
  const items = picturedItemsOf(task, split);
  const ask = await loadPictures(model, items);
  return items.map((item) => fewShotPrompt(model, [], ask(item)));
}

/** The mean over the whole few-shot prompts of validation items, at the last example's answer cue. */
async function plainVector(of: PatchableModel, task: Task, seed: number, layer: number): Promise<number[]> {
  const prompts = fewShot(of, task, "validation", seed);
  const rows = await Promise.all(prompts.map((prompt) => stream(of, prompt, layer, atLastExample(prompt))));
  return meanOf(rows);
}

async function stream(of: PatchableModel, prompt: Prompt, layer: number, at: number): Promise<number[]> {
  const { x } = of.run(prompt, { taps: { x: tap(`resid_post.${layer}`, at) } });
  return [...(await x.read())];
}

function meanOf(rows: readonly (readonly number[])[]): number[] {
  return rows[0]!.map((_, i) => rows.reduce((sum, row) => sum + row[i]! / rows.length, 0));
}

function cosine(a: readonly number[], b: readonly number[]): number {
  const dot = (u: readonly number[], v: readonly number[]) => u.reduce((sum, x, i) => sum + x * v[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** The answers to prompts by themselves, each under its own edits: a token each. */
async function plainTokens(
  prompts: readonly Prompt<PromptImage>[],
  edits: (prompt: Prompt, index: number) => Edit[] = () => [],
): Promise<number[]> {
  const answers: number[] = [];
  for (const [i, prompt] of prompts.entries()) {
    const { logits } = model.run(prompt, { edits: edits(prompt, i) });
    const values = [...(await logits!.read())];
    answers.push(values.indexOf(Math.max(...values)));
  }
  return answers;
}

const textsOf = (ids: readonly number[]) =>
  ids.map((id) => model.tokenizer.decode([id], { skipSpecial: true }));
const plainAnswers = async (...given: Parameters<typeof plainTokens>) => textsOf(await plainTokens(...given));

const put = (layer: number, vector: readonly number[]) => () => [set(`resid_post.${layer}`, -1, vector)];

describe("from the language model", () => {
  test("each pair of layers has the language model's vector of one in the other", async () => {
    const [task] = tasks;
    const items = picturedItemsOf(task!, "validation");
    const prompts = await pictureQueries(task!, "validation");
    const { sources, targets, patched } = lab.result(layerPairs({ task: "alpha", query: "image" }));
    expect([sources, targets]).toEqual([
      [0, 1, 2],
      [0, 1, 2],
    ]);
    const seen = new Set<string>();
    for (const source of sources) {
      const vector = await plainVector(llm, task!, 0, source);
      for (const target of targets) {
        const expected = scored(
          model.tokenizer,
          items,
          await plainTokens(prompts, put(target, vector)),
          OPTIONS,
        );
        expect(patched[source]![target]).toEqual(expected);
        seen.add(expected.hits);
      }
    }
    expect(seen.size).toBeGreaterThan(2);
  });

  test("the sweep of the same layers is their diagonal, and not that of the model's own vectors", () => {
    const setup = { specification: "text", query: "image" } as const;
    let differ = false;
    for (const { name } of tasks) {
      const [first] = lab.result(llmLayerSweep({ ...setup, task: name })).patched;
      const pairs = lab.result(layerPairs({ task: name, query: "image" })).patched;
      expect(first).toEqual(pairs.map((row, layer) => row[layer]));
      const own = lab.result(layerSweep({ ...setup, task: name })).patched[0]!;
      differ ||= own.some(({ hits }, layer) => hits !== first![layer]!.hits);
    }
    expect(differ).toBe(true);
  });

  test("test items are patched in the layer that validation items chose for these vectors", async () => {
    const [task] = tasks;
    const setup = { specification: "text", query: "image" } as const;
    const { layer, patched } = lab.result(llmTestPatch({ ...setup, task: "alpha" }));
    expect(layer).toBe(chosenLayer(lab, setup, task!, llmLayerSweep));
    const vector = await plainVector(llm, task!, 1, layer);
    const answers = await plainAnswers(await pictureQueries(task!, "test"), put(layer, vector));
    expect(patched[1]!.answers).toEqual(answers);
  });

  test("similarity is the cosine of the mean vectors of both models", async () => {
    const { own, others, centred } = lab.result(llmSimilarity({ task: "beta" }));
    const vectors = async (of: PatchableModel) =>
      Promise.all(
        tasks.map(async (task) =>
          meanOf(await Promise.all([0, 1].map((seed) => plainVector(of, task, seed, 1)))),
        ),
      );
    const [theirs, ours] = [await vectors(llm), await vectors(model)];
    expect(own[1]).toBeCloseTo(cosine(theirs[1]!, ours[1]!), 4);
    expect(others[1]).toBeCloseTo((cosine(theirs[1]!, ours[0]!) + cosine(theirs[1]!, ours[2]!)) / 2, 4);
    const less = (all: number[][]) => all[1]!.map((x, i) => x - meanOf(all)[i]!);
    expect(centred[1]).toBeCloseTo(cosine(less(theirs), less(ours)), 4);
  });

  test("deep models get a dozen layers, with both ends", () => {
    expect(spread(1)).toEqual([0]);
    const layers = spread(32);
    expect([layers.length, new Set(layers).size, layers[0], layers.at(-1)]).toEqual([12, 12, 0, 31]);
  });
});

test("ensembles are means of the instruction's vector and that of n prompts", async () => {
  const [task] = tasks;
  const result = lab.result(ensembleTest({ task: "alpha", query: "image" }));
  const { layers, counts, examples, ensemble, instruction } = result;
  // Four validation items, and two prompts more, as the paper has six.
  expect(counts).toEqual([1, 2, 3, 4, 5, 6]);
  const each = counts.indexOf(4);
  const prompts = await pictureQueries(task!, "test");
  const ofInstruction = (layer: number) => stream(model, model.prompt(task!.instruction!), layer, -1);
  const alone = put(layers.instruction, await ofInstruction(layers.instruction));
  expect(instruction.answers).toEqual(await plainAnswers(prompts, alone));
  const inEnsemble = await ofInstruction(layers.ensemble);
  for (const seed of [0, 1]) {
    const all = await plainVector(model, task!, seed, layers.text);
    expect(examples[each]![seed]!.answers).toEqual(await plainAnswers(prompts, put(layers.text, all)));
    const joined = meanOf([await plainVector(model, task!, seed, layers.ensemble), inEnsemble]);
    expect(ensemble[each]![seed]!.answers).toEqual(await plainAnswers(prompts, put(layers.ensemble, joined)));
    const singles: string[][] = [];
    for (const prompt of fewShot(model, task!, "validation", seed)) {
      const vector = await stream(model, prompt, layers.text, atLastExample(prompt));
      singles.push(await plainAnswers(prompts, put(layers.text, vector)));
    }
    expect(singles).toContainEqual(examples[0]![seed]!.answers);
    // Of the two more each is for another item, with the examples of a seed that is no other run's.
    const more = fewShot(model, task!, "validation", seed + OPTIONS.seeds);
    const rows = await Promise.all(
      more.map((prompt) => stream(model, prompt, layers.text, atLastExample(prompt))),
    );
    const pairs = rows.flatMap((a, i) => rows.slice(i + 1).map((b) => [a, b]));
    const six = pairs.map((two) =>
      plainAnswers(prompts, put(layers.text, meanOf([all, all, all, all, ...two]))),
    );
    expect(await Promise.all(six)).toContainEqual(examples.at(-1)![seed]!.answers);
  }
});

test("conflicts: the prompt is one task's, the patch the other's, and answers are scored by both", async () => {
  const [alpha, beta] = tasks;
  const pair = { task: "alpha", other: "beta", query: "image", seed: 0 } as const;
  const setup = { specification: "text", query: "image" } as const;
  for (const specification of ["text", "instruction"] as const) {
    const result = lab.result(conflictTest({ ...pair, specification }));
    expect(result.layer).toBe(chosenLayer(lab, setup, beta!));
    const items = picturedItemsOf(alpha!, "test");
    const ask = await loadPictures(model, items);
    const prompts = items.map((item) => {
      if (specification === "instruction") return instructedPrompt(model, alpha!.instruction!, ask(item));
      const shown = drawItems(items, item, { count: OPTIONS.shots }).map((one) => exampleOf(one));
      return fewShotPrompt(model, shown, ask(item));
    });
    expect(result.unpatched.own.answers).toEqual(await plainAnswers(prompts));
    const vector = await plainVector(model, beta!, 0, result.layer);
    for (const [s, scale] of SCALES.entries()) {
      const scaled = vector.map((x) => x * scale);
      const answers = await plainTokens(prompts, put(result.layer, scaled));
      const { own, other } = result.patched[s]!;
      expect(own.answers).toEqual(textsOf(answers));
      expect([own.hits, other.hits]).toEqual([
        scored(model.tokenizer, items, answers, OPTIONS).hits,
        scored(model.tokenizer, picturedItemsOf(beta!, "test"), answers, OPTIONS).hits,
      ]);
    }
    const sweep = lab.result(conflictSweep({ ...pair, specification }));
    expect(sweep.patched.map(({ length }) => length)).toEqual(SCALES.map(() => 3));
  }
});

test("arithmetic: every kind of edit is what its formula says", async () => {
  const [alpha, beta] = tasks;
  const cell = arithmeticCell({ task: "alpha", other: "beta", query: "image", split: "test" });
  const { layer, edited } = lab.result(cell);
  const prompts = await pictureQueries(alpha!, "test");
  const streams = await Promise.all(prompts.map((prompt) => stream(model, prompt, layer, -1)));
  const seed = 1;
  const vectors = await Promise.all(tasks.map((task) => plainVector(model, task, seed, layer)));
  const [a, b, m] = [vectors[0]!, vectors[1]!, meanOf(vectors)];
  const d = a.map((x, i) => x - m[i]!);
  const dot = (u: readonly number[], v: readonly number[]) => u.reduce((sum, x, i) => sum + x * v[i]!, 0);
  type Formula = (x: number, i: number, stream: readonly number[]) => number;
  const formulas: Record<string, Formula> = {
    set: (_, i) => a[i]!,
    add: (x, i) => x + a[i]!,
    "interpolate half-way": (x, i) => (x + a[i]!) / 2,
    "replace along the direction": (x, i, s) => x + ((dot(a, d) - dot(s, d)) / dot(d, d)) * d[i]!,
    "add direction × 4": (x, i) => x + 4 * d[i]!,
    "set mean + direction × 2": (_, i) => m[i]! + 2 * d[i]!,
    "mix 0.25": (_, i) => 0.75 * a[i]! + 0.25 * b[i]!,
    "mix 1": (_, i) => b[i]!,
    sum: (_, i) => a[i]! + b[i]!,
    "sum less mean": (_, i) => a[i]! + b[i]! - m[i]!,
    "set mean": (_, i) => m[i]!,
  };
  for (const [name, formula] of Object.entries(formulas)) {
    const answers = await plainTokens(prompts, (_, p) => put(layer, streams[p]!.map(formula))());
    const { hits } = scored(model.tokenizer, picturedItemsOf(beta!, "test"), answers, OPTIONS);
    expect(edited[name]![seed]!.own.answers, name).toEqual(textsOf(answers));
    expect(edited[name]![seed]!.other.hits, name).toBe(hits);
  }
  const given = Object.values(edited).map((seeds) => seeds[seed]!.own.answers.join(" "));
  expect(new Set(given).size).toBeGreaterThan(4);
});

describe("findings", () => {
  test("every experiment comes to a verdict, with figures, tables and controls", () => {
    for (const { experiment, findings } of finished) {
      expect(findings.verdict.outcome, experiment.name).not.toBe("not testable here");
      expect(findings.verdict.because).toMatch(/\[-?[\d.]+, -?[\d.]+\] n \d+/);
      for (const figure of findings.figures) expect(figure.rows.length, figure.name).toBeGreaterThan(0);
      for (const table of [...findings.tables, ...findings.controls]) {
        expect(table.rows.length, table.name).toBeGreaterThan(0);
        for (const row of table.rows) expect(row, table.name).toHaveLength(table.columns.length);
        expect(table.columns.some((column) => column.startsWith("majority"))).toBe(true);
        expect(table.columns.some((column) => column.startsWith("distinct"))).toBe(true);
      }
      expect(findings.controls).not.toEqual([]);
    }
  });

  test("the same seed gives the same cells and findings, whatever ran before", async () => {
    const again = await openLab(join(root, "again"), model, tasks, OPTIONS, llm);
    for (const experiment of TRANSFER.toReversed()) {
      for (const cell of experiment.cells(again)) await again.run(cell);
    }
    expect(again.store.records).toHaveLength(lab.store.records.length);
    for (const { key, result, cost } of again.store.records) {
      expect(lab.store.get(key)).toMatchObject({ result, cost });
    }
    for (const experiment of TRANSFER) expect(experiment.report(again)).toEqual(experiment.report(lab));
  });

  test("what cannot be tested says why", async () => {
    const [alpha, beta, gamma] = tasks;
    const alone = await openLab(join(root, "alone"), model, [alpha!, gamma!]);
    expect(llmToVlm.untestable!(alone)).toMatch(/--llm/);
    expect(taskConflict.untestable!(alone)).toMatch(/two tasks that ask about the same things/);
    expect(arithmetic.untestable!(alone)).toMatch(/two tasks that ask about the same things/);
    const { instruction: _, ...untold } = beta!;
    const mute = await openLab(join(root, "mute"), model, [untold]);
    expect(instructions.untestable!(mute)).toBe("no task has an instruction");
    const wider = { config: { ...llm.config, width: 64 } } as PatchableModel;
    const { options, setting, store, folder } = lab;
    const unequal = new Lab({ model, llm: wider, tasks, options, setting, store, folder });
    expect(llmToVlm.untestable!(unequal)).toMatch(/width 64, the model's 48/);
  });
});
