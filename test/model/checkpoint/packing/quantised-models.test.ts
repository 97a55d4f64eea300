import { describe, expect, it } from "vitest";
import type { Quantise } from "../../../../src/model/checkpoint/weights/quantise.ts";
import { set } from "../../../../src/patching/edit.ts";
import { generate } from "../../../../src/patching/generate.ts";
import { logProbability } from "../../../../src/patching/metric.ts";
import { loadModel } from "../../../../src/patching/model.ts";
import { resume } from "../../../../src/patching/resume.ts";
import { run } from "../../../../src/patching/run.ts";
import { tap } from "../../../../src/patching/tap.ts";
import type { Tensor } from "../../../../src/tensor/tensor.ts";
import { Lora } from "../../../../src/training/lora.ts";
import { weightTensors } from "../../../../src/training/trainer.ts";
import { largest, randomArray } from "../../../helpers/compare.ts";
import { testDevice } from "../../../helpers/device.ts";
import { randomIds } from "../../../helpers/model.ts";
import { quantisedFixture } from "../../../helpers/quantised.ts";

/** Largest difference, as a part of the largest number. */
function distance(a: Float32Array, b: Float32Array): number {
  return largest(a.map((value, i) => value - b[i]!)) / largest(b);
}

const all = (format: "int8" | "int4" | "nf4" | "q8_0"): Quantise => ({ linear: format, embedding: "stored" });

describe("models kept in few bits", () => {
  // Plain projections; GPT-2's are stored as [in, out] and fused; GPT-NeoX's are fused head by head; Phi-3's one after the other.
  it.each<[string, Quantise]>([
    ["llama", { linear: "nf4", head: "int8" }],
    ["gpt2", all("q8_0")],
    ["gpt_neox", { linear: { format: "int4", group: 8, zeros: true } }],
    ["phi3", all("int8")],
    ["llama-gqa-tied", { linear: "int4", embedding: "q4_1", head: "q4_1" }],
  ])("%s computes what its unpacked weights do, to 1e-4", async (name, quantise) => {
    const { quantised, unpacked } = await quantisedFixture(name, quantise);
    const prompt = quantised.promptFromIds(randomIds(9, 1));
    const logits = async (model: typeof quantised) => {
      const { logits } = run(model, prompt, { logits: "all" });
      return await logits!.read();
    };
    const [found, expected] = [await logits(quantised), await logits(unpacked)];
    expect(distance(found, expected)).toBeLessThan(1e-4);
    const floats = [...quantised.loaded.linears].filter(([, { layers }]) => layers[0]!.layer.weight.tensor);
    expect(floats.map(([module]) => module).filter((module) => !/lm_head|embed_out/.test(module))).toEqual(
      [],
    );
    quantised.dispose();
    unpacked.dispose();
  });

  it("give the same taps, patches, resumed runs, gradients and answers as their unpacked weights", async () => {
    const { quantised, unpacked } = await quantisedFixture("llama", "nf4");
    const prompt = quantised.promptFromIds(randomIds(7, 2));
    const edit = set("resid_post.0", -1, quantised.device.tensor(randomArray(quantised.config.width, 3)));
    const results = async (model: typeof quantised) => {
      const patched = run(model, prompt, { taps: { z: tap("z.1", -1) }, edits: [edit] });
      using recording = model.record([prompt]);
      const { logits: resumed } = resume(recording, [{ prompt: 0, edits: [edit] }]);
      const { gradients } = model.gradients(prompt, logProbability(7), { of: "resid_post.0" });
      const [answer] = await generate(model, [prompt], { maxNewTokens: 4 });
      const tensors: Tensor[] = [patched.logits!, patched.z, resumed, gradients["resid_post.0"]];
      return { values: await quantised.device.read(tensors), ids: answer!.ids };
    };
    const [found, expected] = [await results(quantised), await results(unpacked)];
    found.values.forEach((values, i) => {
      expect(distance(values as Float32Array, expected.values[i] as Float32Array)).toBeLessThan(1e-4);
    });
    expect(found.ids).toEqual(expected.ids);
    expect(distance(found.values[2] as Float32Array, found.values[0] as Float32Array)).toBeLessThan(1e-5);
    quantised.dispose();
    unpacked.dispose();
  });

  it("have LoRA beside them, with the same logits as beside their unpacked weights", async () => {
    const { quantised, unpacked } = await quantisedFixture("llama", "nf4");
    const prompt = quantised.promptFromIds(randomIds(7, 4));
    const logits = async (model: typeof quantised, adapted: boolean) => {
      using lora = new Lora(model, { rank: 2, modules: ["q_proj", "down_proj"], seed: 5 });
      const ups = Object.entries(lora.parameters).filter(
        ([name]) => adapted && name.endsWith("lora_B.weight"),
      );
      for (const [i, [, b]] of ups.entries()) {
        model.device.write(b, new Uint8Array(randomArray(b.size, 6 + i).buffer));
      }
      return await run(model, prompt, { logits: "all" }).logits!.read();
    };
    const found = await logits(quantised, true);
    expect(distance(found, await logits(unpacked, true))).toBeLessThan(1e-4);
    expect(distance(found, await logits(quantised, false))).toBeGreaterThan(0.01);
    quantised.dispose();
    unpacked.dispose();
  });

  it("refuse what cannot be: formats, names, gradients of weights", async () => {
    const device = await testDevice();
    const load = (quantise: unknown) =>
      loadModel("test/fixtures/llama/model", { device, quantise: quantise as Quantise });
    await expect(load("int5")).rejects.toThrow("expected quantise to be one of int8, int4, nf4");
    await expect(load({ linear: "int5" })).rejects.toThrow("quantise: expected one of int8, int4, nf4");
    await expect(load({ linears: "nf4" })).rejects.toThrow('the nearest is "linear"');
    await expect(load({ modules: { dwon_proj: "nf4" } })).rejects.toThrow('the nearest is "down_proj"');
    await expect(load({ linear: { format: "int4", group: 12 } })).rejects.toThrow("a multiple of 8");
    // Its embedding is stacked from two tensors, and stays as stored.
    await expect(
      loadModel("test/fixtures/idefics/model", { device, quantise: { embedding: "int8" } }),
    ).rejects.toThrow("no embedding that can be kept in few bits");
    const model = await load({ modules: { "layers.0": "int8" } });
    const [name] = model.parameterNames.filter((name) => name.endsWith("layers.0.mlp.down_proj.weight"));
    expect(() => model.gradients(model.promptFromIds([30]), logProbability(7), { weights: [name!] })).toThrow(
      "is kept in int8",
    );
    expect(() => weightTensors(model, [name!])).toThrow("adapt it (Lora)");
    model.dispose();
  });
});
