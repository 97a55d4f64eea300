import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { layerSweep } from "../../experiments/cells/layer-sweep.ts";
import { positionSweep } from "../../experiments/cells/position-sweep.ts";
import { SHIPPED } from "../../experiments/trained-for.ts";
import { extractTaskVectors } from "../../src/analysis/vectors/task-vectors.ts";
import { readTask } from "../../src/cli/options/task-file.ts";
import { checkFolder } from "../../src/parity/check-folder.ts";
import { set } from "../../src/patching/edit.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import { isCorrect } from "../../src/tasks/correct.ts";
import { fewShotPrompt } from "../../src/tasks/few-shot.ts";
import { loadPictures } from "../../src/tasks/pictures.ts";
import { taskSource } from "../../src/tasks/specification.ts";
import { picturedItemsOf } from "../../src/tasks/task.ts";
import { testDevice } from "../helpers/device.ts";
import { OPTIONS, openLab } from "../helpers/lab.ts";

/** Validation items only: a test must not be a reason to look at the test style. */
const FLAGS = 24;

async function flags(model: PatchableModel) {
  const task = await readTask("country-capital");
  const items = picturedItemsOf(task, "validation").slice(0, FLAGS);
  const pictures = await loadPictures(model, items);
  return { task, items, queries: items.map((item) => fewShotPrompt(model, [], pictures(item))) };
}

test("what was trained takes at most 25 MB", () => {
  const files = ["weights/llm", "weights/vlm"].flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: "utf8" }).map((file) => statSync(join(folder, file))),
  );
  const bytes = files.filter((f) => f.isFile()).reduce((sum, { size }) => sum + size, 0);
  expect(bytes).toBeGreaterThan(10e6);
  expect(bytes).toBeLessThanOrEqual(25e6);
});

test("the shipped VLM agrees with transformers, which loaded what `xpatch export` made of it", async () => {
  const { checks, passed, notRun } = await checkFolder("test/fixtures/vlm", await testDevice());
  expect(checks.filter((check) => !check.passed).map((check) => check.name)).toEqual([]);
  expect([passed, notRun]).toEqual([true, []]);
  const names = checks.map((check) => check.name);
  for (const site of ["projector.out", "resid_post.20", "logits_last", "generate.ids"]) {
    expect(names).toContain(`case0/${site}`);
  }
});

test("the shipped VLM names flags, and names their capitals when patched with the vector of text examples", async () => {
  const model = await loadModel("xpatch:vlm", { device: await testDevice() });
  const { task, items, queries } = await flags(model);
  const layer = model.config.taskVectorLayer;
  if (layer === undefined) throw new Error("weights/vlm/config.json names no task_vector_layer");

  const named = await model.generate(queries, { maxNewTokens: 8 });
  const names = named.filter(
    ({ text }, i) => text.trim().split("\n")[0]!.toLowerCase() === items[i]!.input.toLowerCase(),
  );
  expect(names.length).toBeGreaterThanOrEqual(FLAGS * 0.75);

  const source = await taskSource(model, task, "validation", { kind: "text", items: 8 });
  using vectors = extractTaskVectors(model, source.prompts, { at: source.at, layers: [layer] });
  const edits = queries.map((_, prompt) => set(`resid_post.${layer}`, -1, vectors.at(layer), { prompt }));
  const right = async (answers: Promise<readonly { text: string }[]>) =>
    (await answers).filter(({ text }, i) => isCorrect(text, items[i]!.outputs)).length;
  const unpatched = await right(model.generate(queries, { maxNewTokens: 1 }));
  const patched = await right(model.generate(queries, { maxNewTokens: 1, edits }));
  expect(unpatched).toBeLessThanOrEqual(1);
  expect(patched).toBeGreaterThanOrEqual(FLAGS / 2);
});

test("the sweep over tokens, of some layers of a deep model, has the layer sweep's answers at the delimiter", async () => {
  const folder = mkdtempSync(join(tmpdir(), "xpatch-tokens-"));
  using model = await loadModel("weights/vlm", { device: await testDevice() });
  try {
    const task = await readTask("country-capital");
    const lab = await openLab(folder, model, [task], { ...OPTIONS, seeds: 1, shots: 3, validationItems: 3 });
    // What its training asked for is said of this model, and of no other.
    expect(lab.setting.model.hash).toBe(SHIPPED.hash);
    const about = { task: task.name, query: "text" } as const;
    const tokens = await lab.run(positionSweep(about));
    const byLayer = (await lab.run(layerSweep({ ...about, specification: "text" }))).patched[0]!;
    expect([tokens.layers.length, tokens.layers.at(-1)]).toEqual([12, model.config.layers - 1]);
    expect(tokens.positions.slice(2, 4)).toEqual(["A", ":"]);
    const hits = tokens.patched[3]!.map((scored) => scored.hits);
    expect(hits).toEqual(tokens.layers.map((layer) => byLayer[layer]!.hits));
    expect(new Set(hits).size).toBeGreaterThan(1);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
