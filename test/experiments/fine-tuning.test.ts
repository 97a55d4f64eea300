import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ARMS, type ArmName, projections, trained, untrained } from "../../experiments/cells/fine-tuning.ts";
import { labelledItems, tuningVector, tuningVectors } from "../../experiments/cells/tuning-vectors.ts";
import { sizesOf, tunedTasks } from "../../experiments/findings/fine-tuning.ts";
import { fineTuning, tuningContrasts } from "../../experiments/fine-tuning.ts";
import type { Lab } from "../../experiments/framework/lab.ts";
import { judged } from "../../experiments/framework/rule.ts";
import { type Finished, runExperiments } from "../../experiments/framework/runner.ts";
import { RULES } from "../../experiments/rules.ts";
import type { Hits } from "../../experiments/statistics/accuracy.ts";
import { mean } from "../../src/kernels/reduction/reduce.ts";
import { addVector, type Edit, set } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import { fewShotPrompt } from "../../src/tasks/few-shot.ts";
import { picturedItemsOf, type Task } from "../../src/tasks/task.ts";
import { Lora } from "../../src/training/lora.ts";
import { Trainer } from "../../src/training/trainer.ts";
import { OPTIONS, openLab, randomTask } from "../helpers/lab.ts";
import { fixtureModel } from "../helpers/model.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-fine-tuning-"));
afterAll(() => rmSync(root, { recursive: true }));

const FEWER = { ...OPTIONS, trainTasks: 1, trainSeeds: 1, trainSteps: 4 };

/** A task with items to train on, in whose answers there is something to learn. */
function trainable(task: Task, count: number): Task {
  const outputs = task.items[0]!.outputs.slice(0, 1);
  const train = Array.from({ length: count }, (_, i) => ({
    input: `${task.name} ${i}`,
    outputs: i % 2 === 0 ? outputs : task.items[1]!.outputs.slice(0, 1),
    split: "train" as const,
  }));
  return { ...task, items: [...task.items, ...train] };
}

let model: PatchableModel;
let tasks: Task[];
let lab: Lab;
let finished: Finished[];
beforeAll(async () => {
  model = await fixtureModel("llava");
  tasks = [trainable(randomTask(model, "alpha"), 4), trainable(randomTask(model, "gamma ray"), 3)];
  lab = await openLab(join(root, "run"), model, tasks, FEWER);
  finished = await runExperiments(lab, [fineTuning]);
});

const LABELLED = { task: "alpha", examples: 4, seed: 0 };

function armResult(arm: ArmName, examples = 4) {
  return lab.result(trained({ ...LABELLED, examples, arm, steps: 4 }));
}

async function plainAnswers(edits: Edit[]): Promise<string[]> {
  const answers: string[] = [];
  for (const { input } of picturedItemsOf(tasks[0]!, "test")) {
    const values = [...(await model.run(fewShotPrompt(model, [], input), { edits }).logits!.read())];
    answers.push(model.tokenizer.decode([values.indexOf(Math.max(...values))], { skipSpecial: true }));
  }
  return answers;
}

describe("what trainings begin from", () => {
  test("labelled items are train items, the fewer among the more, and others for another seed", () => {
    const inputs = (examples: number, seed = 0) =>
      labelledItems(lab, { ...LABELLED, examples, seed }).map(({ input }) => input);
    expect(inputs(3)).toHaveLength(3);
    expect(inputs(64)).toHaveLength(4);
    expect(inputs(64).slice(0, 3)).toEqual(inputs(3));
    expect(inputs(3).slice(0, 1)).toEqual(inputs(1));
    expect(inputs(64, 1)).not.toEqual(inputs(64));
    expect(sizesOf(lab)).toEqual([1, 4]);
    // Of two tasks about different things the user wants one.
    expect(tunedTasks(lab).map(({ name }) => name)).toEqual(["alpha"]);
  });

  test("the task vector is the mean over prompts that show labelled items alone", async () => {
    const labelled = labelledItems(lab, LABELLED).map(
      ({ input, outputs }) => `Q: ${input}\nA: ${outputs[0]}`,
    );
    const { prompts } = lab.result(tuningVectors(LABELLED));
    expect(prompts).toHaveLength(4);
    for (const text of prompts) {
      const shown = text.split("\n\n");
      const query = shown.pop();
      expect(shown).toHaveLength(OPTIONS.shots);
      expect(labelled).toEqual(expect.arrayContaining(shown));
      expect(query).toMatch(/^Q: alpha \d\nA:$/);
      for (const one of shown) expect(one.startsWith(query!)).toBe(false);
    }
    const { layer, vector, direction } = await tuningVector(lab, LABELLED);
    const meanOf = async (texts: readonly string[]) => {
      const { x } = model.run(
        texts.map((text) => model.prompt(text)),
        { taps: { x: tap(`resid_post.${layer}`, -1) } },
      );
      return [...(await mean(x, 0).read())];
    };
    const own = await meanOf(prompts);
    // The same questions, by themselves.
    const bare = await meanOf(prompts.map((text) => text.split("\n\n").at(-1)!));
    for (const [i, value] of vector.entries()) {
      expect(value).toBeCloseTo(own[i]!, 4);
      expect(direction[i]).toBeCloseTo(own[i]! - bare[i]!, 4);
    }
  });

  test("without training they are what full runs answer", async () => {
    const { layer, vector, direction } = await tuningVector(lab, LABELLED);
    const site = `resid_post.${layer}` as const;
    const { noContext, patch, added } = lab.result(untrained(LABELLED));
    expect(noContext.text.answers).toEqual(await plainAnswers([]));
    expect(patch.text.answers).toEqual(await plainAnswers([set(site, -1, vector)]));
    expect(added.text.answers).toEqual(await plainAnswers([addVector(site, -1, direction)]));
  });

  test("before the first step an arm is its start", () => {
    const { noContext, added, random } = lab.result(untrained(LABELLED));
    const start = (arm: ArmName) => armResult(arm).bySteps[0]!;
    const starts = {
      "vector-zero": noContext,
      "vector-task": added,
      "vector-random": random,
      lora: noContext,
      "lora-added": added,
      "lora-trained": added,
      "lora-towards": noContext,
      "lora-random": random,
    };
    expect(Object.keys(starts)).toEqual(Object.keys(ARMS));
    for (const [arm, { text }] of Object.entries(starts)) {
      const { answers: _, ...scores } = text;
      expect(start(arm as ArmName), arm).toEqual({ steps: 0, text: scores });
    }
    // Else all of this would be the same.
    expect(new Set([noContext, added, random].map(({ text }) => text.answers.join())).size).toBe(3);
  });
});

describe("a training", () => {
  test("lowers its loss, and looks at answers in its course", () => {
    for (const arm of Object.keys(ARMS) as ArmName[]) {
      const { losses, bySteps, end, elsewhere } = armResult(arm);
      expect(losses).toHaveLength(4);
      expect(losses.at(-1), arm).toBeLessThan(losses[0]!);
      expect(bySteps.map(({ steps }) => steps)).toEqual([0, 1, 2, 4]);
      expect(end.text.hits).toBe(bySteps.at(-1)!.text.hits);
      expect(end.image!.answers).toHaveLength(4);
      // A vector that is not added forgets nothing.
      expect(elsewhere !== undefined, arm).toBe("lora" in ARMS[arm]);
    }
    // The auxiliary loss comes on top: the distance from the task vector, 1 for the mean bare query.
    expect(armResult("lora-towards").losses[0]).toBeGreaterThan(armResult("lora").losses[0]! + 0.5);
  });

  test("leaves the model as it was", async () => {
    expect(await plainAnswers([])).toEqual(lab.result(untrained(LABELLED)).noContext.text.answers);
  });

  test("adapts the language model alone", () => {
    expect(projections(lab)).toHaveLength(2 * model.config.layers);
    expect(projections(lab).filter((name) => name.includes("vision"))).toEqual([]);
  });

  test("comes out the same a second time", async () => {
    for (const arm of ["lora-trained", "vector-random"] as const) {
      const cell = trained({ ...LABELLED, arm, steps: 4 });
      // The vector's file as well is made anew.
      const second = await openLab(join(root, `again-${arm}`), model, tasks, FEWER);
      for (const { key, kind, ...rest } of lab.store.records) {
        if (kind === "layer-sweep") second.store.add({ key, kind, ...rest });
      }
      expect(await second.run(cell)).toEqual(lab.result(cell));
    }
  });
});

test("what is found is a section of the report, with controls and constant answers", () => {
  const [{ findings }] = finished as [Finished];
  expect(findings.verdict.outcome).toBe("too few items to tell");
  expect(findings.verdict.checks.every(({ estimate }) => estimate !== undefined)).toBe(true);
  expect(findings.figures.map(({ name }) => name)).toEqual(["vectors", "lora", "steps"]);
  const [controls] = findings.controls;
  const whats = controls!.rows.map(([what]) => what);
  expect(whats).toContain("random vector added, untrained");
  expect(whats).toContain("the best constant answer");
  const arms = findings.tables.find(({ name }) => name === "arms")!;
  expect(arms.rows).toHaveLength(Object.keys(ARMS).length * 2);
});

test("without items to train on there is nothing to test", () => {
  const bare = tasks.map((task) => ({ ...task, items: task.items.filter(({ split }) => split !== "train") }));
  const { model: of, options, setting, store, folder } = lab;
  const LabOf = lab.constructor as new (parts: object) => Lab;
  const other = new LabOf({ model: of, tasks: bare, options, setting, store, folder });
  expect(fineTuning.untestable!(other)).toMatch(/no task has two train items/);
  expect(fineTuning.untestable!(lab)).toBeUndefined();
});

test.each(["gpt2", "gpt_neox", "qwen2_vl", "idefics"])("%s can be trained on texts", async (name) => {
  const LabOf = lab.constructor as new (parts: object) => Lab;
  const of = await fixtureModel(name);
  expect(fineTuning.untestable!(new LabOf({ ...lab, model: of, options: OPTIONS, tasks }))).toBeUndefined();
  using lora = new Lora(of, { rank: 2, modules: projections({ model: of }) });
  using trainer = new Trainer(of, { parameters: lora.parameters });
  const gradNorm = await trainer.step([of.prompt("a b c d")]).gradNorm.item();
  expect(gradNorm).toBeGreaterThan(0);
});

test.each(["paligemma", "t5"])("%s is no causal decoder", async (name) => {
  const LabOf = lab.constructor as new (parts: object) => Lab;
  const of = await fixtureModel(name);
  expect(fineTuning.untestable!(new LabOf({ ...lab, model: of, options: OPTIONS, tasks }))).toMatch(
    /no causal decoder/,
  );
});

describe("the verdict", () => {
  /** 40 inputs, of which in each ten `right` are answered right. */
  const hits = (right: number): Hits => [
    {
      inputs: Array.from({ length: 40 }, (_, i) => `${i}`),
      seeds: [0, 1].map((seed) =>
        Array.from({ length: 40 }, (_, i) => ((i * 7 + seed) % 10 < right ? "1" : "0")).join(""),
      ),
    },
  ];
  const constants = { frequent: hits(1), constant: hits(1) };
  const arms = {
    "vector-task": 8,
    "vector-zero": 2,
    "vector-random": 2,
    lora: 2,
    "lora-added": 8,
    "lora-random": 2,
  };
  const outcome = (changed: Partial<typeof arms>, constant = 1) => {
    const by = Object.fromEntries(
      Object.entries({ ...arms, ...changed }).map(([arm, right]) => [arm, hits(right)]),
    ) as Record<keyof typeof arms, Hits>;
    return judged(RULES["fine-tuning"], tuningContrasts(by, { ...constants, constant: hits(constant) }))
      .outcome;
  };

  test("the task vector helps both, one of them, or neither", () => {
    expect(outcome({})).toBe("replicates");
    expect(outcome({ "lora-added": 2 })).toBe("replicates in part");
    expect(outcome({ "vector-task": 2, "lora-added": 2 })).toBe("does not replicate");
  });

  test("a random vector, or a constant answer, that does as well sinks it", () => {
    expect(outcome({ "vector-random": 8, "lora-random": 8 })).toBe("does not replicate");
    expect(outcome({ "vector-random": 8 })).toBe("replicates in part");
    expect(outcome({}, 8)).toBe("too few items to tell");
  });
});
