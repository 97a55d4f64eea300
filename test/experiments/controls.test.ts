import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import {
  chosenEntityLayer,
  entitySweep,
  entityTest,
  WAYS,
  type Way,
} from "../../experiments/cells/entity.ts";
import { chosenLayer } from "../../experiments/cells/layer-sweep.ts";
import { bareAnswers, givenName, type PictureAnswers, regurgitated } from "../../experiments/cells/naming.ts";
import { OTHER_TEMPLATE, variantVectors } from "../../experiments/cells/task-vectors.ts";
import { testPatch } from "../../experiments/cells/test-answers.ts";
import { crossModal } from "../../experiments/cross-modal.ts";
import { entity } from "../../experiments/entity.ts";
import type { Lab } from "../../experiments/framework/lab.ts";
import { permutedAnswers } from "../../experiments/framework/prompts.ts";
import type { OwnPatches } from "../../experiments/framework/recorded.ts";
import { patchOwn } from "../../experiments/framework/recorded.ts";
import { type Finished, runExperiments } from "../../experiments/framework/runner.ts";
import { scored } from "../../experiments/framework/scored.ts";
import { randomLike } from "../../experiments/statistics/vectors.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import type { PromptImage } from "../../src/model/prompt/prompt-image.ts";
import { type Edit, set } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import { isCorrect } from "../../src/tasks/correct.ts";
import { atLastExample, drawItems, exampleOf, fewShotPrompt } from "../../src/tasks/few-shot.ts";
import { loadPictures } from "../../src/tasks/pictures.ts";
import { picturedItemsOf, type Task } from "../../src/tasks/task.ts";
import { OPTIONS, openLab, randomTask } from "../helpers/lab.ts";
import { fixtureModel } from "../helpers/model.ts";

/** The edits that cells ask for: a model of random weights answers many of them alike. */
const asked = vi.hoisted(() => [] as { prompts: readonly Prompt[]; patches: OwnPatches }[]);
vi.mock("../../experiments/framework/recorded.ts", async (original) => {
  const actual = await original<{ patchOwn: typeof patchOwn }>();
  return {
    patchOwn: (...[of, prompts, patches]: Parameters<typeof patchOwn>) => {
      asked.push({ prompts, patches });
      return actual.patchOwn(of, prompts, patches);
    },
  };
});

const root = mkdtempSync(join(tmpdir(), "xpatch-controls-"));
afterAll(() => rmSync(root, { recursive: true }));

const SETUP = { specification: "text", query: "image" } as const;

let model: PatchableModel;
let tasks: Task[];
let lab: Lab;
let finished: Finished[];
beforeAll(async () => {
  model = await fixtureModel("llava");
  const alpha = randomTask(model, "alpha");
  const other = randomTask(model, "other outputs");
  // In this order the next task of alpha is not the one about the same things.
  const beta = {
    ...other,
    name: "beta",
    items: alpha.items.map((item, i) => ({ ...item, outputs: other.items[i]!.outputs })),
  };
  tasks = [alpha, randomTask(model, "gamma ray"), beta];
  lab = await openLab(join(root, "run"), model, tasks, { ...OPTIONS, shots: 3 });
  finished = await runExperiments(lab, [crossModal, entity]);
});

async function next(prompt: Prompt, edits: readonly Edit[] = []): Promise<number> {
  const values = [...(await model.run(prompt, { edits }).logits!.read())];
  return values.indexOf(Math.max(...values));
}

async function stream(prompt: Prompt, layer: number, at: number): Promise<number[]> {
  const { x } = model.run(prompt, { taps: { x: tap(`resid_post.${layer}`, at) } });
  return [...(await x.read())];
}

const meanOf = (rows: readonly (readonly number[])[]) =>
  rows[0]!.map((_, i) => rows.reduce((sum, row) => sum + row[i]! / rows.length, 0));
function expectClose(found: ArrayLike<number>, expected: readonly number[]): void {
  expect(found).toHaveLength(expected.length);
  const apart = Math.max(...expected.map((x, i) => Math.abs(x - found[i]!)));
  expect(apart).toBeLessThan(1e-5 * Math.max(1, ...expected.map(Math.abs)));
}

const textOf = (id: number) => model.tokenizer.decode([id], { skipSpecial: true });

/** From whole few-shot prompts of validation items, in any template. */
async function plainVector(task: Task, seed: number, layer: number, template?: string): Promise<number[]> {
  const items = picturedItemsOf(task, "validation");
  const prompts = items.map((item) => {
    const shown = drawItems(items, item, { count: 3, seed }).map((one) => exampleOf(one));
    return fewShotPrompt(model, shown, item.input, template);
  });
  return meanOf(await Promise.all(prompts.map((prompt) => stream(prompt, layer, atLastExample(prompt)))));
}

async function bareQueries(task: Task): Promise<Prompt<PromptImage>[]> {
  const items = picturedItemsOf(task, "test");
  const ask = await loadPictures(model, items);
  return items.map((item) => fewShotPrompt(model, [], ask(item)));
}

async function patchedAnswers(task: Task, layer: number, vector: readonly number[]): Promise<string[]> {
  const answers: string[] = [];
  for (const query of await bareQueries(task)) {
    answers.push(textOf(await next(query, [set(`resid_post.${layer}`, -1, vector)])));
  }
  return answers;
}

describe("permuted answers", () => {
  const examples = (answers: string) => [...answers].map((answer, i) => ({ question: `${i}`, answer }));

  test("are the same answers, each of another example", () => {
    for (let seed = 0; seed < 50; seed++) {
      const moved = permutedAnswers(examples("abcde"), seed);
      expect(moved.map(({ question }) => question)).toEqual(["0", "1", "2", "3", "4"]);
      expect(moved.map(({ answer }) => answer).sort()).toEqual([..."abcde"]);
      expect(moved.filter(({ answer }, i) => answer === "abcde"[i])).toEqual([]);
      // Two that are alike could change places.
      expect(
        permutedAnswers(examples("aabcd"), seed).filter(({ answer }, i) => answer === "aabcd"[i]),
      ).toEqual([]);
    }
    const orders = Array.from({ length: 50 }, (_, seed) =>
      permutedAnswers(examples("abcde"), seed)
        .map(({ answer }) => answer)
        .join(""),
    );
    expect(new Set(orders).size).toBeGreaterThan(15);
    expect(permutedAnswers(examples("abcde"), 3)).toEqual(permutedAnswers(examples("abcde"), 3));
    expect(permutedAnswers(examples("a"), 0)).toEqual(examples("a"));
  });

  test("stand in the prompts in place of the examples' own", () => {
    const params = { source: "model", task: "alpha", specification: "text", seed: 1 } as const;
    const { prompts } = lab.result(variantVectors({ ...params, variant: "permuted-answers" }));
    const items = picturedItemsOf(tasks[0]!, "validation");
    items.forEach((item, i) => {
      const shown = drawItems(items, item, { count: 3, seed: 1 });
      const after = (mark: string) =>
        [...prompts[i]!.matchAll(new RegExp(`${mark}: (.*)`, "g"))].map((m) => m[1]);
      expect(after("Q")).toEqual(shown.map(({ input }) => input));
      // That of the last one is not read.
      const answers = after("A");
      expect(answers).toHaveLength(2);
      const own = shown.map(({ outputs }) => outputs[0]);
      answers.forEach((answer, a) => {
        expect(own).toContain(answer);
        if (new Set(own).size === own.length) expect(answer).not.toBe(own[a]);
      });
    });
  });
});

describe("vectors in place of the task's own, against full recomputation", () => {
  test("the nearest task is the one about the same things, another one is not", async () => {
    const { layer, controls } = lab.result(testPatch({ ...SETUP, task: "alpha" }));
    const of = async (index: number) => {
      const vector = await plainVector(tasks[index]!, 0, layer);
      return patchedAnswers(tasks[0]!, layer, vector);
    };
    expect(controls.nearestTask![0]!.answers).toEqual(await of(2));
    expect(controls.anotherTask![0]!.answers).toEqual(await of(1));
    // About nothing that others ask about: the next ones.
    const { controls: gamma } = lab.result(testPatch({ ...SETUP, task: "gamma ray" }));
    expect(gamma.nearestTask).toEqual(gamma.anotherTask);
  });

  test("another template", async () => {
    const { layer, controls } = lab.result(testPatch({ ...SETUP, task: "alpha" }));
    expect(controls.otherTemplate).toHaveLength(1);
    const vector = await plainVector(tasks[0]!, 0, layer, OTHER_TEMPLATE);
    expect(controls.otherTemplate![0]!.answers).toEqual(await patchedAnswers(tasks[0]!, layer, vector));
  });

  test("examples with permuted answers, each seed; of text examples alone", async () => {
    const { layer, controls } = lab.result(testPatch({ ...SETUP, task: "alpha" }));
    expect(controls.permutedAnswers).toHaveLength(2);
    const items = picturedItemsOf(tasks[0]!, "validation");
    const prompts = items.map((item, i) => {
      const shown = drawItems(items, item, { count: 3, seed: 1 }).map((one) => exampleOf(one));
      return fewShotPrompt(model, permutedAnswers(shown, 1009 + i), item.input);
    });
    const rows = prompts.map((prompt) => stream(prompt, layer, atLastExample(prompt)));
    const vector = meanOf(await Promise.all(rows));
    const answers = await patchedAnswers(tasks[0]!, layer, vector);
    expect(controls.permutedAnswers![1]!.answers).toEqual(answers);
    for (const specification of ["instruction", "image"] as const) {
      const result = lab.result(testPatch({ ...SETUP, specification, task: "alpha" }));
      expect(Object.keys(result.controls)).toEqual(["nearestTask", "anotherTask", "meanOfTasks", "random"]);
    }
  });
});

describe("entity patching, against full recomputation", () => {
  /** The same questions about pictures and names, and what tells the task. */
  async function questions(task: Task, way: Way, split: "validation" | "test", seed: number) {
    const items = picturedItemsOf(task, split);
    const ask = await loadPictures(model, items);
    const shown = (i: number) =>
      way === "patch" ? [] : drawItems(items, items[i]!, { count: 3, seed }).map((one) => exampleOf(one));
    const pictures = items.map((item, i) => fewShotPrompt(model, shown(i), ask(item)));
    const names = items.map((item, i) => fewShotPrompt(model, shown(i), item.input));
    const base: Edit[] = [];
    if (way === "patch") {
      const layer = chosenLayer(lab, SETUP, task);
      base.push(set(`resid_post.${layer}`, -1, await plainVector(task, seed, layer)));
    }
    return { items, pictures, names, base };
  }

  /** The last token of a name, found by its text: what is before it ends in the name. */
  function endOf(prompt: Prompt, name: string): number {
    const end = [...prompt.ids.keys()].findLast((i) =>
      model.tokenizer.decode(prompt.ids.slice(0, i + 1)).endsWith(name),
    );
    return end!;
  }

  test("a name's residual stream at the picture's last token, in every layer", async () => {
    const { layers, patched } = lab.result(entitySweep({ task: "alpha", seed: 0 }));
    expect(layers).toEqual([0, 1, 2]);
    const { items, pictures, names, base } = await questions(tasks[0]!, "patch", "validation", 0);
    asked.length = 0;
    await entitySweep({ task: "alpha", seed: 0 }).compute(lab);
    const edits = pictures.map((_, i) => asked.at(-1)!.patches.edits!(i));
    for (const layer of layers) {
      const ids: number[] = [];
      for (const [i, picture] of pictures.entries()) {
        const state = await stream(names[i]!, layer, endOf(names[i]!, items[i]!.input));
        const at = picture.span("image").end - 1;
        ids.push(await next(picture, [set(`resid_post.${layer}`, at, state), ...base]));
        const [put, ...others] = edits[i]![layer]!;
        expect([put!.site, put!.at]).toEqual([`resid_post.${layer}`, at]);
        expectClose(put!.value as Float32Array, state);
        expect(others.map(({ site, at: where }) => [site, where])).toEqual(
          base.map(({ site }) => [site, -1]),
        );
      }
      expect(patched[layer]).toEqual(scored(model.tokenizer, items, ids, {}));
    }
  });

  test("edits of each prompt's own change that prompt alone, over several batches", async () => {
    const { pictures, items } = await questions(tasks[1]!, "prompt", "test", 0);
    // More tokens than a batch has.
    const prompts = Array.from({ length: 40 }, (_, i) => pictures[i % items.length]!);
    const edits = (i: number) =>
      [1, 2].map((set_) => {
        const noise = randomLike(new Float32Array(model.config.width).fill(100), 100 * set_ + i);
        return [set("resid_post.1", prompts[i]!.span("image").end - 1, noise)];
      });
    const read = (i: number) => i % 5;
    const { states, unpatched, patched } = await patchOwn(lab, prompts, { read, edits });
    expect(prompts.reduce((sum, { length }) => sum + length, 0)).toBeGreaterThan(1024);
    for (const [i, prompt] of prompts.entries()) {
      expect(unpatched[i]).toBe(await next(prompt));
      for (const set_ of [0, 1]) expect(patched[set_]![i]).toBe(await next(prompt, edits(i)[set_]));
      for (const layer of [0, 2]) expectClose(states[i]![layer]!, await stream(prompt, layer, i % 5));
    }
    expect(new Set(patched.flat()).size).toBeGreaterThan(4);
  });

  test.each(WAYS)("%s: test items, and controls, in the layer that validation items chose", async (way) => {
    const task = tasks[0]!;
    const result = lab.result(entityTest({ task: "alpha", way, seed: 0 }));
    const means = [0, 1, 2].map((layer) => {
      const sweeps = tasks.map(({ name }) => lab.result(entitySweep({ task: name, seed: 0 })));
      return sweeps.reduce((sum, { patched }) => sum + patched[layer]!.accuracy, 0);
    });
    expect(result.layer).toBe(means.indexOf(Math.max(...means)));
    expect(result.layer).toBe(chosenEntityLayer(lab, task));
    const { items, pictures, names, base } = await questions(task, way, "test", 0);
    const states: number[][] = [];
    for (const [i, name] of names.entries()) {
      states.push(await stream(name, result.layer, endOf(name, items[i]!.input)));
    }
    const other = (i: number) => {
      const order = [1, 2, 3].map((step) => (i + step) % items.length);
      return (
        order.find((o) => !items[o]!.outputs.some((output) => items[i]!.outputs.includes(output))) ??
        order[0]!
      );
    };
    const under = async (stateOf: (i: number) => readonly number[] | Float32Array) => {
      const answers: number[] = [];
      for (const [i, picture] of pictures.entries()) {
        const at = picture.span("image").end - 1;
        answers.push(await next(picture, [set(`resid_post.${result.layer}`, at, stateOf(i)), ...base]));
      }
      return answers;
    };
    const plain = async (prompts: readonly Prompt[]) => {
      const ids: number[] = [];
      for (const prompt of prompts) ids.push(await next(prompt, base));
      return ids;
    };
    const texts = (ids: readonly number[]) => ids.map(textOf);
    expect(result.picture.answers).toEqual(texts(await plain(pictures)));
    expect(result.name.answers).toEqual(texts(await plain(names)));
    expect(result.entity.answers).toEqual(texts(await under((i) => states[i]!)));
    const another = await under((i) => states[other(i)]!);
    expect(result.another.answers).toEqual(texts(another));
    const asAsked = items.map((_, i) => items[other(i)]!);
    expect(result.anotherAsked.hits).toBe(scored(model.tokenizer, asAsked, another, {}).hits);
    expect(result.meanName.answers).toEqual(texts(await under(() => meanOf(states))));
    asked.length = 0;
    await entityTest({ task: "alpha", way, seed: 0 }).compute(lab);
    items.forEach((_, i) => {
      const [own, theirs, middle, noise] = asked.at(-1)!.patches.edits!(i).map(([put]) => put!.value);
      expectClose(own as Float32Array, states[i]!);
      expectClose(theirs as Float32Array, states[other(i)]!);
      expectClose(middle as Float32Array, meanOf(states));
      expect(Math.hypot(...(noise as Float32Array))).toBeCloseTo(Math.hypot(...states[i]!), 3);
    });
    const random = (i: number) => randomLike(Float32Array.from(states[i]!), result.layer * items.length + i);
    expect(result.random.answers).toEqual(texts(await under(random)));
  });

  test("costs are counted: one pass over the questions, and rows from the picture's last token on", () => {
    const { cost } = lab.store.get(entitySweep({ task: "alpha", seed: 0 }).key)!;
    // Four names without edits and under the task vector, four pictures without edits and in three layers.
    expect(cost.plainPasses).toBe(4 * 2 + 4 * (1 + 3));
    expect(cost.rowLayers).toBeLessThan(cost.plainRowLayers / 1.5);
  });

  test("comes to a verdict, with all that it shows", async () => {
    const { findings } = finished.find(({ experiment }) => experiment === entity)!;
    expect(findings.verdict.outcome).toBe("too few items to tell");
    expect(findings.verdict.checks).toHaveLength(6 + 6 + 2);
    for (const table of [...findings.tables, ...findings.controls]) {
      expect(table.rows.length, table.name).toBeGreaterThan(0);
      for (const row of table.rows) expect(row, table.name).toHaveLength(table.columns.length);
    }
    const text = await fixtureModel("llama");
    const words = await openLab(join(root, "text"), text, [randomTask(text, "alpha")]);
    expect(entity.untestable!(words)).toMatch(/takes no pictures/);
  });
});

describe("regurgitation", () => {
  const item = (input: string, output: string) => ({ input, outputs: [output], split: "test" as const });
  const items = [item("Greece", "Athens"), item("Singapore", "Singapore"), item("Italy", "Rome")];

  test("is to name the item where that is not right", () => {
    const task = { name: "t", items };
    const seeds = [
      { named: "110", hits: "010" },
      { named: "001", hits: "110" },
    ];
    const answers = [{ task, items, seeds }] as unknown as PictureAnswers[];
    expect(regurgitated(answers)).toEqual([
      { inputs: ["Greece", "Singapore", "Italy"], seeds: ["100", "001"] },
    ]);
  });

  test("named is the rule for right answers, with the input", () => {
    for (const { name } of tasks) {
      const { answers, named, hits } = lab.result(bareAnswers({ task: name, query: "image", split: "test" }));
      const asked = picturedItemsOf(lab.task(name), "test");
      const marks = (of: (i: number) => readonly string[]) =>
        answers.map((answer, i) => (isCorrect(answer, of(i)) ? "1" : "0")).join("");
      expect(named).toBe(marks((i) => [asked[i]!.input]));
      expect(hits).toBe(marks((i) => asked[i]!.outputs));
      expect(lab.result(testPatch({ ...SETUP, task: name })).noContext).toMatchObject({ answers, named });
    }
  });

  test("accuracy given a right name is that of the items that the bare question's answer names", () => {
    const known = (named: string) =>
      ({
        items: () => items,
        result: () => ({ named }),
      }) as unknown as Lab;
    const task = { name: "t", items } as unknown as Task;
    const given = (named: string, some = items) => {
      const seeds = [{ hits: "101" }, { hits: "011" }];
      const answers = [{ task, items: some, seeds }] as unknown as PictureAnswers[];
      return givenName(known(named), answers);
    };
    expect(given("101")).toEqual([{ inputs: ["Greece", "Italy"], seeds: ["11", "01"] }]);
    expect(given("000")).toBeUndefined();
    // Of some of the items, in another order.
    expect(given("100", [items[2]!, items[1]!, items[0]!])).toEqual([
      { inputs: ["Greece"], seeds: ["1", "1"] },
    ]);
  });

  test("stands beside every accuracy of questions about pictures", () => {
    const { findings } = finished.find(({ experiment }) => experiment === crossModal)!;
    const naming = findings.tables.find(({ name }) => name === "naming")!;
    // Three specifications by three methods as means, and text examples by task.
    expect(naming.rows).toHaveLength(9 + 9);
    expect(naming.columns.slice(-5)).toEqual([
      "majority",
      "accuracy",
      "names the item instead",
      "accuracy given a right name",
      "distinct answers",
    ]);
  });
});
