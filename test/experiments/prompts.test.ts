import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { chosenLayer, layerSweep } from "../../experiments/cells/layer-sweep.ts";
import {
  NOISES,
  type Noise,
  noisyInstructions,
  noisyTest,
} from "../../experiments/cells/noisy-instructions.ts";
import { OTHER_TEMPLATE } from "../../experiments/cells/task-vectors.ts";
import { testPatch, testPrompt } from "../../experiments/cells/test-answers.ts";
import { IRRELEVANT_WORDS } from "../../experiments/data/instruction-noise.ts";
import type { Lab } from "../../experiments/framework/lab.ts";
import { type Finished, runExperiments } from "../../experiments/framework/runner.ts";
import { scored } from "../../experiments/framework/scored.ts";
import { instructions } from "../../experiments/instructions.ts";
import { templates } from "../../experiments/templates.ts";
import { readShippedTasks } from "../../src/cli/options/task-file.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import type { PromptImage } from "../../src/model/prompt/prompt-image.ts";
import { set } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import {
  atLastExample,
  drawItems,
  exampleOf,
  fewShotPrompt,
  PAPER_TEMPLATE,
} from "../../src/tasks/few-shot.ts";
import { loadPictures } from "../../src/tasks/pictures.ts";
import { picturedItemsOf, type Task } from "../../src/tasks/task.ts";
import { OPTIONS, openLab, randomTask } from "../helpers/lab.ts";
import { fixtureModel } from "../helpers/model.ts";

describe("noise", () => {
  const text = "The scientific name of the animal's species in latin:";
  const letters = (word: string) => [...word].sort().join("");

  test("typing mistakes swap letters within words; the start of a word and the end of the text stay", () => {
    const variants = noisyInstructions(text, "typos");
    expect(noisyInstructions(text, "typos")).toEqual(variants);
    expect(new Set([text, ...variants]).size).toBe(1 + variants.length);
    for (const variant of variants) {
      const words = variant.split(" ");
      expect(words.map(letters)).toEqual(text.split(" ").map(letters));
      expect(words.map((word) => word[0])).toEqual(text.split(" ").map((word) => word[0]));
      expect(variant.at(-1)).toBe(":");
    }
    expect(noisyInstructions("A b:", "typos")).toEqual(["A b:", "A b:", "A b:"]);
  });

  test("irrelevant words stand between the others, which keep their order", () => {
    const variants = noisyInstructions(text, "irrelevant");
    expect(noisyInstructions(text, "irrelevant")).toEqual(variants);
    expect(new Set(variants).size).toBe(variants.length);
    for (const variant of variants) {
      const words = variant.split(" ");
      expect(words.filter((word) => !IRRELEVANT_WORDS.includes(word))).toEqual(text.split(" "));
      expect(words.length).toBe(text.split(" ").length + 4);
    }
    for (const word of IRRELEVANT_WORDS) expect(text).not.toContain(word);
  });

  test("every shipped task's instruction is put otherwise, with its end, and another's is not known", async () => {
    for (const { name, instruction } of await readShippedTasks()) {
      const variants = noisyInstructions(instruction!, "paraphrase");
      expect(new Set([instruction, ...variants]).size, name).toBe(4);
      for (const variant of variants) expect(variant, name).toMatch(/[a-z]:$/);
    }
    expect(noisyInstructions("The toString:", "paraphrase")).toEqual([]);
    expect(noisyInstructions("toString", "paraphrase")).toEqual([]);
  });
});

describe("on a model", () => {
  const root = mkdtempSync(join(tmpdir(), "xpatch-prompts-"));
  afterAll(() => rmSync(root, { recursive: true }));

  let model: PatchableModel;
  let tasks: Task[];
  let lab: Lab;
  let finished: Finished[];
  beforeAll(async () => {
    model = await fixtureModel("llava");
    const told = ["The capital city of the country:", "The color of the food:"];
    tasks = ["alpha", "gamma ray"].map((name, i) => ({
      ...randomTask(model, name),
      instruction: told[i]!,
    }));
    lab = await openLab(join(root, "run"), model, tasks);
    finished = await runExperiments(lab, [instructions, templates]);
  });

  async function pictureQueries(task: Task, split: "validation" | "test", template?: string) {
    const items = picturedItemsOf(task, split);
    const ask = await loadPictures(model, items);
    return items.map((item) => fewShotPrompt(model, [], ask(item), template));
  }

  async function stream(prompt: Prompt, layer: number, at: number): Promise<number[]> {
    const { x } = model.run(prompt, { taps: { x: tap(`resid_post.${layer}`, at) } });
    return [...(await x.read())];
  }

  async function answersTo(
    prompts: readonly Prompt<PromptImage>[],
    patch?: { layer: number; vector: readonly number[] },
  ): Promise<number[]> {
    const edits = patch ? [set(`resid_post.${patch.layer}`, -1, patch.vector)] : [];
    const ids: number[] = [];
    for (const prompt of prompts) {
      const values = [...(await model.run(prompt, { edits }).logits!.read())];
      ids.push(values.indexOf(Math.max(...values)));
    }
    return ids;
  }

  test("each noisy instruction's vector is patched where the one without noise is", async () => {
    const [task] = tasks;
    const query = "image";
    const { layer, texts, patched } = lab.result(noisyTest({ task: task!.name, query }));
    expect(layer).toBe(chosenLayer(lab, { specification: "instruction", query }, task!));
    const prompts = await pictureQueries(task!, "test");
    const items = picturedItemsOf(task!, "test");
    const all = new Set<string>();
    for (const noise of NOISES) {
      expect(texts[noise]).toEqual(noisyInstructions(task!.instruction!, noise));
      for (const [v, text] of texts[noise].entries()) {
        const vector = await stream(model.prompt(text), layer, -1);
        const ids = await answersTo(prompts, { layer, vector });
        expect(patched[noise][v]!.hits).toBe(scored(model.tokenizer, items, ids, {}).hits);
        all.add(vector.join());
      }
    }
    expect(all.size).toBe(9);
  });

  test.each([PAPER_TEMPLATE, OTHER_TEMPLATE])(
    "under %j vectors, queries, prompts and the layer are made with it",
    async (template) => {
      const [task] = tasks;
      const setup = { specification: "text", query: "image", template } as const;
      const seed = 1;
      const prompts = (split: "validation" | "test") => {
        const items = picturedItemsOf(task!, split);
        return items.map((item) => {
          const shown = drawItems(items, item, { count: OPTIONS.shots, seed });
          return { item, shown: shown.map((one) => exampleOf(one)) };
        });
      };
      const sweep = lab.result(layerSweep({ ...setup, task: task!.name }));
      const validation = picturedItemsOf(task!, "validation");
      const asked = await pictureQueries(task!, "validation", template);
      const vectors: number[][] = [];
      for (const layer of [0, 1, 2]) {
        const rows = await Promise.all(
          prompts("validation").map(({ item, shown }) => {
            const prompt = fewShotPrompt(model, shown, item.input, template);
            return stream(prompt, layer, atLastExample(prompt));
          }),
        );
        vectors.push(rows[0]!.map((_, d) => rows.reduce((sum, row) => sum + row[d]! / rows.length, 0)));
        const ids = await answersTo(asked, { layer, vector: vectors[layer]! });
        expect(sweep.patched[seed]![layer]!.hits).toBe(scored(model.tokenizer, validation, ids, {}).hits);
      }
      const { layer, patched } = lab.result(testPatch({ ...setup, task: task!.name }));
      expect(layer).toBe(chosenLayer(lab, setup, task!));
      const tested = picturedItemsOf(task!, "test");
      const ids = await answersTo(await pictureQueries(task!, "test", template), {
        layer,
        vector: vectors[layer]!,
      });
      expect(patched[seed]!.hits).toBe(scored(model.tokenizer, tested, ids, {}).hits);

      const ask = await loadPictures(model, tested);
      const whole = prompts("test").map(({ item, shown }) =>
        fewShotPrompt(model, shown, ask(item), template),
      );
      const behind = lab.result(testPrompt({ ...setup, task: task!.name, seed }));
      expect(behind.prompts).toEqual(whole.map(({ text }) => text));
      expect(behind.hits).toBe(scored(model.tokenizer, tested, await answersTo(whole), {}).hits);
    },
  );

  test("what the run's own template gives is the other experiments', and is there once", () => {
    const keys = lab.store.records.map(({ key }) => key);
    expect(keys).toContain("layer-sweep query=image specification=text task=alpha");
    expect(keys.filter((key) => key.includes(JSON.stringify(OPTIONS.template).slice(1, -1)))).toEqual([]);
    expect(keys.filter((key) => key.startsWith("layer-sweep") && key.includes("template="))).toHaveLength(4);
  });

  test("findings: noise and templates have verdicts of their own, the paper's axis a figure", () => {
    const [told, written] = finished.map(({ findings }) => findings);
    expect(told!.text.at(-1)).toMatch(/^With noise in the instruction: too few items to tell\. /);
    const axis = told!.figures.find(({ name }) => name === "examples")!;
    expect([...new Set(axis.rows.map((row) => (row as { x: number }).x))]).toEqual(
      [1, 2, 3, 4, 5, 6].map((n) => n * OPTIONS.shots),
    );
    const kinds = told!.tables.find(({ name }) => name === "noise")!.rows.map(([kind]) => kind);
    expect(kinds).toEqual(["as written", "typing mistakes", "put otherwise", "irrelevant words in it"]);
    expect(written!.tables[0]!.rows.map(([template]) => template)).toEqual(
      [OPTIONS.template, PAPER_TEMPLATE, OTHER_TEMPLATE].map((one) => JSON.stringify(one.trimEnd())),
    );
    expect(written!.verdict.outcome).toBe("too few items to tell");
    for (const { rows, columns } of [...written!.tables, ...written!.controls]) {
      for (const row of rows) expect(row).toHaveLength(columns.length);
    }
  });

  test("without paraphrases what rests on them stays open", async () => {
    const untold = tasks.map((task) => ({ ...task, instruction: `The ${task.name} of it:` }));
    const other = await openLab(join(root, "untold"), model, untold);
    const noises: Noise[] = ["typos", "irrelevant"];
    const [found] = await runExperiments(other, [instructions]);
    const { rows } = found!.findings.tables.find(({ name }) => name === "noise")!;
    expect(rows).toHaveLength(1 + noises.length);
  });
});
