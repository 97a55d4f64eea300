import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { entityTest, lastOfName } from "../../experiments/cells/entity.ts";
import { chosenLayer, layerSweep, patchAt } from "../../experiments/cells/layer-sweep.ts";
import { taskVectors, vectorsIn } from "../../experiments/cells/task-vectors.ts";
import { testPatch } from "../../experiments/cells/test-answers.ts";
import { clustering } from "../../experiments/clustering.ts";
import { crossModal } from "../../experiments/cross-modal.ts";
import { entity } from "../../experiments/entity.ts";
import { defineCell } from "../../experiments/framework/cell.ts";
import type { Experiment } from "../../experiments/framework/experiment.ts";
import type { Lab } from "../../experiments/framework/lab.ts";
import { queries } from "../../experiments/framework/prompts.ts";
import { runExperiments } from "../../experiments/framework/runner.ts";
import { EXPERIMENTS } from "../../experiments/index.ts";
import { llmToVlm } from "../../experiments/llm-to-vlm.ts";
import { sweep } from "../../experiments/sweep.ts";
import { readShippedTasks } from "../../src/cli/options/task-file.ts";
import { PromptError } from "../../src/errors.ts";
import { set } from "../../src/patching/edit.ts";
import { tap } from "../../src/patching/tap.ts";
import { drawItems, exampleOf, fewShotPrompt, upToLastExample } from "../../src/tasks/few-shot.ts";
import type { Task } from "../../src/tasks/task.ts";
import { expectClose } from "../helpers/compare.ts";
import { OPTIONS, openLab, randomTask } from "../helpers/lab.ts";
import { fixtureModel, readAll } from "../helpers/model.ts";

// Experiments on models that are no LLaVA: an end of their own behind pictures, none in the embedding, an encoder.

const root = mkdtempSync(join(tmpdir(), "xpatch-families-"));
afterAll(() => rmSync(root, { recursive: true }));

const FEW = { ...OPTIONS, seeds: 1 };

async function labOf(name: string, stack?: "encoder", tasks?: readonly Task[]): Promise<Lab> {
  const model = await fixtureModel(name);
  const folder = mkdtempSync(join(root, `${name}-`));
  const items = tasks ? {} : { validationItems: 2, testItems: 2 };
  const options = { ...FEW, ...items, ...(stack && { stack }) };
  return openLab(folder, model, tasks ?? [randomTask(model, "alpha")], options);
}

/** Why each experiment cannot be run that cannot be. */
function untestable(lab: Lab): Record<string, string> {
  return Object.fromEntries(
    EXPERIMENTS.flatMap((experiment) => {
      const reason = experiment.untestable?.(lab);
      return reason === undefined ? [] : [[experiment.name, reason]];
    }),
  );
}

const ALWAYS = { "llm-to-vlm": /--llm/ };
const NOT_EMBEDDED = { clustering: /do not enter the model's embedding/ };
const IN_DECODER = { "fine-tuning": /causal/, entity: /--stack encoder/, grounding: /--stack encoder/ };
const IN_ENCODER = { "fine-tuning": /causal/, lens: /unembedding/, decoded: /unembedding/ };

test.each<[string, "encoder" | undefined, Record<string, RegExp>]>([
  ["fuyu", undefined, {}],
  ["smolvlm", undefined, {}],
  ["idefics", undefined, NOT_EMBEDDED],
  ["mllama", undefined, NOT_EMBEDDED],
  ["blip2-t5", undefined, IN_DECODER],
  ["blip2-t5", "encoder", IN_ENCODER],
])("on %s (%s) what cannot be run is named with its reason", async (name, stack, others) => {
  const shipped = await readShippedTasks();
  const tasks = shipped.filter((task) => task.name.startsWith("country-"));
  const found = untestable(await labOf(name, stack, tasks));
  const expected = { ...ALWAYS, ...others };
  expect(Object.keys(found).sort()).toEqual(Object.keys(expected).sort());
  for (const [experiment, reason] of Object.entries(expected)) expect(found[experiment]).toMatch(reason);
});

describe("Fuyu, whose prompts with pictures have an end of their own", () => {
  test("a name ends before what follows it, whatever stands behind that in the prompt with the picture", async () => {
    const model = await fixtureModel("fuyu");
    const lab = await labOf("fuyu");
    const task = lab.task("alpha");
    const [picture] = await queries(lab, task, "test", "image");
    const [name] = await queries(lab, task, "test", "text");
    expect(picture!.tokens.at(-1)).toBe("<0x04>");
    expect(name!.tokens.at(-1)).not.toBe("<0x04>");
    const at = lastOfName(name!, picture!);
    const { input } = lab.items(task, "test")[0]!;
    const named = model.prompt(["Q: ", { text: input, name: "name" }, "\nA:"]);
    expect(named.ids).toEqual(name!.ids);
    expect(at).toBe(named.span("name").end - 1);
    // Another question ends otherwise.
    expect(() => lastOfName(model.prompt("Q: x\nB = z"), picture!)).toThrow(PromptError);
  });

  test("entity runs", async () => {
    const lab = await labOf("fuyu");
    const [found] = await runExperiments(lab, [entity]);
    expect(found!.findings.verdict.outcome).not.toBe("not testable here");
  });
});

describe.each(["decoder", "encoder"] as const)("a BLIP-2 over T5, vectors of the %s", (stack) => {
  const isEncoder = stack === "encoder";
  const setup = { specification: "text", query: "image" } as const;

  test("vectors and patched answers are those by hand", async () => {
    const lab = await labOf("blip2-t5", isEncoder ? "encoder" : undefined);
    const { model } = lab;
    const finished = await runExperiments(lab, [crossModal, sweep]);
    const site = isEncoder ? "encoder.resid_post" : "resid_post";
    const layers = isEncoder ? model.config.encoder!.layers : model.config.layers;
    const task = lab.task("alpha");
    const vectors = await vectorsIn(
      lab,
      lab.result(taskVectors({ source: "model", task: "alpha", specification: "text", seed: 0 })),
    );
    expect(vectors.length).toBe(layers);

    const [first] = await queries(lab, task, "test", "image");
    const layer = chosenLayer(lab, setup, task);
    const edits = [set(`${site}.${layer}`, -1, vectors[layer]!)];
    expect(patchAt(lab, layer, vectors[layer]!)).toEqual(edits);
    const { patched } = lab.result(testPatch({ ...setup, task: "alpha" }));
    const { logits } = await readAll({ logits: model.run(first!, { edits }).logits });
    const answer = model.tokenizer.decodePrefix([logits.indexOf(Math.max(...logits))], { skipSpecial: true });
    expect(patched[0]!.answers[0]).toBe(answer.text);
    expect(lab.result(layerSweep({ ...setup, task: "alpha" })).layers.length).toBe(layers);

    const [cross, swept] = finished.map(({ findings }) => findings);
    expect(cross!.text.join(" ")).toContain(`Vectors are of the ${stack}`);
    const names = swept!.tables.map(({ name }) => name);
    expect(names.includes("positions")).toBe(isEncoder);
  });
});

test("in an encoder a name's residual stream goes to the picture's last token, where both are read", async () => {
  const lab = await labOf("blip2-t5", "encoder");
  const { model } = lab;
  await runExperiments(lab, [entity]);
  const { layer, entity: found } = lab.result(entityTest({ task: "alpha", way: "prompt", seed: 0 }));
  const task = lab.task("alpha");
  const { prompts } = lab.result(entityTest({ task: "alpha", way: "prompt", seed: 0 }));
  expect(prompts.length).toBe(2);
  // By hand, for the first item behind its examples.
  const [item] = lab.items(task, "test");
  const ask = await lab.asker(task, "test", "image");
  const shown = drawItems(lab.pool(task, "test"), item!, { count: 2, seed: 0 }).map((one) => exampleOf(one));
  const picture = fewShotPrompt(model, shown, ask(item!));
  const name = fewShotPrompt(model, shown, item!.input);
  const at = lastOfName(name, picture);
  const site = `encoder.resid_post.${layer}` as const;
  const { x } = model.run(name, { taps: { x: tap(site, at) } });
  const edits = [set(site, picture.span("image").end - 1, x)];
  const { logits } = await readAll({ logits: model.run(picture, { edits }).logits });
  const answer = model.tokenizer.decodePrefix([logits.indexOf(Math.max(...logits))], { skipSpecial: true });
  expect(found.answers[0]).toBe(answer.text);
});

test("llm-to-vlm asks for a language model with the stack", async () => {
  const model = await fixtureModel("blip2-t5");
  const llm = await fixtureModel("llama");
  const tasks = [randomTask(model, "alpha")];
  const lab = await openLab(join(root, "llm"), model, tasks, { ...FEW, stack: "encoder" }, llm);
  expect(llmToVlm.untestable?.(lab)).toMatch(/has no encoder/);
});

test("an experiment that the model refuses is named in the report, and the others are run", async () => {
  const lab = await labOf("llama");
  const fails = (error: Error): Experiment => ({
    ...clustering,
    name: "fails",
    untestable: () => undefined,
    cells: () => [
      defineCell("fails", async () => {
        throw error;
      })({}),
    ],
  });
  const refused = fails(new PromptError("too long"));
  await expect(runExperiments(lab, [refused])).rejects.toThrow("too long");
  const [first, second] = await runExperiments(lab, [refused, clustering], undefined, { goOn: true });
  expect(first!.findings.verdict).toMatchObject({
    outcome: "not testable here",
    because: "it cannot be run: too long",
  });
  expect(second!.experiment).toBe(clustering);
  // What goes wrong otherwise is no refusal.
  const broken = [fails(new Error("broken")), clustering];
  await expect(runExperiments(lab, broken, undefined, { goOn: true })).rejects.toThrow("broken");
});

test("up to the last example a prompt has the pictures that stand before its cue", async () => {
  const model = await fixtureModel("blip2-t5");
  const lab = await labOf("blip2-t5");
  const task = lab.task("alpha");
  const ask = await lab.asker(task, "test", "image");
  const examples = lab.items(task, "test").map((item) => ({ question: ask(item), answer: "a" }));
  const whole = fewShotPrompt(model, examples, examples[0]!.question);
  const cut = upToLastExample(model, whole);
  expect([whole.images.length, cut.images.length]).toEqual([3, 2]);
  const { x } = await readAll(model.run(cut, { taps: { x: tap("encoder.embed", 2) } }));
  const { x: same } = await readAll(model.run(whole, { taps: { x: tap("encoder.embed", 2) } }));
  expectClose(x, same);
});
