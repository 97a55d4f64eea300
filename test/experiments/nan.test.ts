import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { decodedSets } from "../../experiments/cells/decoded-sets.ts";
import { decodedVectors } from "../../experiments/cells/decoded-vectors.ts";
import { efficiency } from "../../experiments/cells/efficiency.ts";
import { layerSweep } from "../../experiments/cells/layer-sweep.ts";
import { lensPhases } from "../../experiments/cells/lens-phases.ts";
import type { Cell } from "../../experiments/framework/cell.ts";
import { NO_COST } from "../../experiments/framework/cost.ts";
import type { Lab } from "../../experiments/framework/lab.ts";
import { GenerationError } from "../../src/errors.ts";
import { mostProbableTokens } from "../../src/model/walk/sampling.ts";
import { loadModel } from "../../src/patching/model.ts";
import { fixtureFiles, tensorsOf, withTensors } from "../helpers/checkpoints.ts";
import { testDevice } from "../helpers/device.ts";
import { OPTIONS, openLab, randomTask } from "../helpers/lab.ts";

// A model whose logits are NaN, by its final norm: argmax would call that a token like any other.

const root = mkdtempSync(join(tmpdir(), "xpatch-nan-"));
afterAll(() => rmSync(root, { recursive: true }));

let lab: Lab;

beforeAll(async () => {
  const files = fixtureFiles("llama");
  const tensors = await tensorsOf(files);
  new Float32Array(tensors.get("model.norm.weight")!.data.buffer)[3] = Number.NaN;
  const folder = join(root, "spoilt");
  mkdirSync(folder);
  for (const [name, bytes] of await withTensors(files, tensors.values()))
    writeFileSync(join(folder, name), bytes);
  const model = await loadModel(folder, { device: await testDevice() });
  const alpha = randomTask(model, "alpha");
  const task = { ...alpha, items: alpha.items.map((item) => ({ ...item, outputs: ["Q"] })) };
  lab = await openLab(join(root, "run"), model, [task], { ...OPTIONS, seeds: 1 });
  // As if layers had been chosen.
  const setup = { specification: "text", query: "text" } as const;
  const { key, kind, params } = layerSweep({ ...setup, task: "alpha" });
  const patched = [[{ accuracy: 1 }, { accuracy: 0 }, { accuracy: 0 }]];
  lab.store.add({ key, kind, params, result: { layers: [0, 1, 2], patched }, cost: NO_COST, seconds: 1 });
});

async function errorOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(GenerationError);
  return (error as Error).message;
}

test("answers name the model and the prompt", async () => {
  const message = await errorOf(lab.answers(["Q: a\nA:", "Q: b\nA:"].map((text) => lab.model.prompt(text))));
  expect(message).toMatch(/spoilt, logits of the prompt "Q: a\\nA:": .*there is a NaN among the logits/);
});

test.each<[string, () => Cell<unknown>, RegExp]>([
  [
    "lens-phases",
    () => lensPhases({ task: "alpha", specification: "text", query: "text", split: "validation" }),
    /spoilt, resid_post\.0 at the last token of ".*" through the unembedding: .*NaN/s,
  ],
  [
    "decoded-vectors",
    () => decodedVectors({ task: "alpha", specification: "text" }),
    /spoilt, the text vector of alpha, layer 0, through the unembedding: .*NaN/,
  ],
  [
    "decoded-sets",
    () => decodedSets({ task: "alpha", specification: "text", seed: 0 }),
    /spoilt, resid_post\.0 of alpha validation \d through the unembedding: .*NaN/,
  ],
  [
    "efficiency",
    () => efficiency({ task: "alpha", query: "text" }),
    /spoilt, logits of the prompt ".*": .*NaN/s,
  ],
])("%s keeps nothing", async (_, cell, message) => {
  expect(await errorOf(lab.run(cell()))).toMatch(message);
  expect(lab.store.get(cell().key)).toBeUndefined();
});

test("of rows that have a most probable token these are given", async () => {
  const { device } = lab.model;
  const inf = Number.POSITIVE_INFINITY;
  using logits = device.tensor([1, 3, 3, -inf, 5, -inf, -inf, inf, 0], { shape: [3, 3] });
  expect(await mostProbableTokens(logits, String)).toEqual([1, 1, 1]);
  using none = device.tensor([1, 3, -inf, -inf], { shape: [2, 2] });
  await expect(mostProbableTokens(none, (row) => `row ${row}`)).rejects.toThrow(
    /^row 1: .*all logits are -Inf/,
  );
});
