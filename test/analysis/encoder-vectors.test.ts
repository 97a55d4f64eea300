import { beforeAll, describe, expect, test } from "vitest";
import { allLayers } from "../../src/analysis/layers.ts";
import { patchOf, sweepLayers } from "../../src/analysis/vectors/sweep-layers.ts";
import {
  decodeTaskVectors,
  encodeTaskVectors,
  extractActivations,
  extractTaskVectors,
  parseTaskVectors,
} from "../../src/analysis/vectors/task-vectors.ts";
import { ArgumentError, CheckpointError, SiteError } from "../../src/errors.ts";
import { SafetensorsFile } from "../../src/model/checkpoint/safetensors/safetensors.ts";
import { encodeSafetensors } from "../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { memorySource } from "../../src/model/checkpoint/source/sources.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import { set } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import { fewShotPrompt, upToLastExample } from "../../src/tasks/few-shot.ts";
import { taskSource } from "../../src/tasks/specification.ts";
import type { Task } from "../../src/tasks/task.ts";
import { expectClose, largest } from "../helpers/compare.ts";
import { fixtureModel, readAll } from "../helpers/model.ts";

// Task vectors of an encoder: read, saved, and put where the encoder's layers end, not the decoder's.

const CLOSE = { atol: 1e-5, rtol: 1e-5 };

const EXAMPLES = [
  { question: "Greece", answer: "Athens" },
  { question: "Egypt", answer: "Cairo" },
];

describe.each(["t5", "blip2-t5"])("%s", (name) => {
  let model: PatchableModel;
  let shots: Prompt[];
  let query: Prompt;
  beforeAll(async () => {
    model = await fixtureModel(name);
    shots = ["Norway", "Peru"].map((asked) => fewShotPrompt(model, EXAMPLES, asked));
    query = model.prompt("Q: Italy\nA:");
  });

  const logitsOf = async (edits: Parameters<PatchableModel["run"]>[1] = {}) =>
    (await readAll({ logits: model.run(query, edits).logits })).logits;

  test("a vector is the mean of what taps read in the encoder, at positions of the prompt", async () => {
    for (const at of [-1, -2, 3]) {
      using vectors = extractTaskVectors(model, shots, { site: "encoder.resid_post", at });
      const { layers } = model.config.encoder!;
      expect(vectors.vectors.shape).toEqual([layers, model.config.encoder!.width]);
      expect(vectors.origin.layers).toEqual(allLayers(model, "encoder.resid_post"));
      for (const layer of vectors.origin.layers) {
        const taps = { x: tap(`encoder.resid_post.${layer}`, at) };
        const each = await Promise.all(
          shots.map(async (shot) => (await readAll(model.run(shot, { taps }))).x),
        );
        const means = Float32Array.from(each[0]!, (value, i) => (value + each[1]![i]!) / 2);
        expectClose(await vectors.at(layer).read(), means, CLOSE);
      }
    }
  });

  test("patched into the encoder it is an edit by hand; the decoder's vector, or no patch, is something else", async () => {
    using vectors = extractTaskVectors(model, shots, { site: "encoder.resid_post" });
    using decoders = extractTaskVectors(model, shots);
    const plain = await logitsOf();
    for (const layer of vectors.origin.layers) {
      const patched = await logitsOf({ edits: [patchOf(vectors, layer)] });
      const value = Float32Array.from(await vectors.at(layer).read());
      const byHand = await logitsOf({ edits: [set(`encoder.resid_post.${layer}`, -1, value)] });
      expect(patched).toEqual(byHand);
      const inDecoder = await logitsOf({
        edits: [patchOf(decoders, Math.min(layer, model.config.layers - 1))],
      });
      for (const other of [plain, inDecoder]) {
        const effect = largest(patched.map((logit, i) => logit - other[i]!));
        expect(effect).toBeGreaterThan(1e-4 * largest(plain));
      }
    }
  });

  test("a sweep patches each of its layers, and counts the encoder's rows", async () => {
    using vectors = extractTaskVectors(model, shots, { site: "encoder.resid_post", at: -2 });
    const { layers, patched, unpatched, rowLayers, plainRowLayers } = await sweepLayers(
      model,
      [query],
      vectors,
      { at: -2 },
    );
    expect(layers).toEqual(vectors.origin.layers);
    for (const [l, layer] of layers.entries()) {
      const logits = await logitsOf({ edits: [patchOf(vectors, layer, -2)] });
      expect(patched[l]).toEqual([logits.indexOf(Math.max(...logits))]);
    }
    const plain = await logitsOf();
    expect(unpatched).toEqual([plain.indexOf(Math.max(...plain))]);
    // An edit in the encoder changes what comes before and behind it there, and all of the decoder: nothing is saved.
    const whole = query.length * model.config.encoder!.layers + model.config.layers;
    expect([rowLayers, plainRowLayers]).toEqual([whole * (layers.length + 1), whole * (layers.length + 1)]);
  });

  test("the file says whose they are, and they come back for that stack", async () => {
    using vectors = extractTaskVectors(model, shots, { site: "encoder.resid_post", layers: [1] });
    const bytes = await encodeTaskVectors(vectors);
    const { metadata } = await SafetensorsFile.open(memorySource(bytes, "vectors"));
    expect(metadata.get("site")).toBe("encoder.resid_post");
    using back = await decodeTaskVectors(bytes, model.device);
    expect(back.origin).toEqual(vectors.origin);
    expect(patchOf(back, 1).site).toBe("encoder.resid_post.1");
  });

  test("layers and sites that the encoder lacks are refused", () => {
    const { layers } = model.config.encoder!;
    expect(() => extractTaskVectors(model, shots, { site: "encoder.resid_post", layers: [layers] })).toThrow(
      `extract: expected layers from 0 to ${layers - 1} (the encoder has ${layers}), found ${layers}`,
    );
    expect(() => extractActivations(model, shots, { site: "encoder.embed" as never })).toThrow(ArgumentError);
  });

  test("prompts from a task end at the last example's cue: neither its answer nor the question reaches the vector", async () => {
    const task = (last: string): Task => ({
      name: "capitals",
      items: [
        ["Greece", "Athens"],
        ["Egypt", "Cairo"],
        [last, "Oslo"],
      ].map(([input, output]) => ({
        input: input!,
        outputs: [output!],
        split: "train",
      })),
    });
    const { prompts, at } = await taskSource(model, task("Norway"), "train", {
      kind: "text",
      count: 2,
      items: 1,
    });
    expect(at).toBe(-1);
    const [prompt] = prompts;
    const end = model.tokenizer.suffix;
    expect(prompt!.ids.slice(-end.length)).toEqual(end);
    expect(prompt!.tokens[prompt!.length - end.length - 1]).toMatch(/:$/);
    const whole = fewShotPrompt(model, EXAMPLES, "Norway");
    const other = fewShotPrompt(model, [EXAMPLES[0]!, { question: "Egypt", answer: "Oslo" }], "Chad");
    expect(upToLastExample(model, other).ids).toEqual(upToLastExample(model, whole).ids);
    expect(other.ids).not.toEqual(whole.ids);
  });
});

test("a model without an encoder has none to read, and takes no vectors of one", async () => {
  const [t5, llama] = [await fixtureModel("t5"), await fixtureModel("llama")];
  const prompts = [llama.prompt("Q: Italy\nA:")];
  const site = "encoder.resid_post";
  expect(() => extractTaskVectors(llama, prompts, { site })).toThrow(SiteError);
  expect(() => extractTaskVectors(llama, prompts, { site })).toThrow(
    `extract: ${llama.name} has no encoder of text, found the site encoder.resid_post`,
  );
  using vectors = extractTaskVectors(t5, [t5.prompt("Q: Italy\nA:")], { site });
  await expect(sweepLayers(llama, prompts, vectors)).rejects.toThrow("this model has no encoder");
});

test("a file of an unknown stack is no file of task vectors", async () => {
  const metadata = { format: "xpatch.task_vectors.1", site: "vision.resid_post", layers: "0", model: "m" };
  const bytes = await encodeSafetensors(
    [{ name: "vectors", stored: "F32", shape: [1, 2], data: new Uint8Array(8) }],
    metadata,
  );
  await expect(parseTaskVectors(bytes)).rejects.toThrow(CheckpointError);
});
