import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { CheckpointError } from "../../../src/errors.ts";
import { openCheckpoint } from "../../../src/model/checkpoint/open-checkpoint.ts";
import { writeSafetensors } from "../../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { type Folder, memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { loadModel } from "../../../src/patching/model.ts";
import { collect, utf8 } from "../../helpers/bytes.ts";
import { fixtureFiles, tensorsOf, withTensors } from "../../helpers/checkpoints.ts";
import { testDevice } from "../../helpers/device.ts";
import { changeJson, type Files, randomTensors } from "../../helpers/nano.ts";

// Checkpoints as they were published, where that is another form than transformers saves today.

async function logitsOf(files: Files, adapters: readonly Folder[] = []): Promise<Float32Array> {
  using model = await loadModel(memoryFolder(files), { device: await testDevice(), adapters });
  return await model.run(model.promptFromIds([20, 31, 42])).logits!.read();
}

/** GPT-2's first files: no prefix, the causal mask as a buffer, a sparse config. */
async function firstGpt2(): Promise<Files> {
  const files = fixtureFiles("gpt2");
  const tensors = [...(await tensorsOf(files)).values()].map((tensor) => ({
    ...tensor,
    name: tensor.name.replace("transformer.", ""),
  }));
  const masks = [0, 1, 2].map((layer) => ({
    name: `h.${layer}.attn.bias`,
    stored: "F32",
    shape: [1, 1, 128, 128],
    data: new Uint8Array(4 * 128 ** 2).fill(1),
  }));
  const written = await withTensors(files, [...tensors, ...masks]);
  const config = JSON.parse(new TextDecoder().decode(written.get("config.json")));
  for (const field of ["tie_word_embeddings", "add_cross_attention", "n_inner", "scale_attn_weights"]) {
    delete config[field];
  }
  delete config.scale_attn_by_inverse_layer_idx;
  written.set("config.json", utf8(JSON.stringify({ ...config, n_ctx: 128 })));
  return written;
}

test("GPT-2 without a prefix, with masks among the weights and a config that says little", async () => {
  expect(await logitsOf(await firstGpt2())).toEqual(await logitsOf(fixtureFiles("gpt2")));
});

test.each(["conv1d", "wte", "wte-head"])("the adapter %s fits both forms of GPT-2", async (name) => {
  const adapters = [fixtureAdapter(name)];
  const found = await logitsOf(fixtureFiles("gpt2"), adapters);
  expect(await logitsOf(await firstGpt2(), adapters)).toEqual(found);
  expect(await logitsOf(fixtureFiles("gpt2"))).not.toEqual(found);
});

test("the halves of an adapter fit a layer's input and output, not the file's rows and columns", async () => {
  const device = await testDevice();
  const adapterOf = async (module: string, out: number, width: number) =>
    memoryFolder(
      new Map([
        [
          "adapter_config.json",
          utf8(JSON.stringify({ peft_type: "LORA", r: 2, target_modules: [module.split(".").at(-1)] })),
        ],
        [
          "adapter_model.safetensors",
          await randomTensors({
            [`base_model.model.${module}.lora_A.weight`]: [2, width],
            [`base_model.model.${module}.lora_B.weight`]: [out, 2],
          }),
        ],
      ]),
      "lora",
    );
  const load = async (fixture: string, module: string, out: number, width: number) => {
    using _ = await loadModel(memoryFolder(fixtureFiles(fixture)), {
      device,
      adapters: [await adapterOf(module, out, width)],
    });
  };
  await load("gpt2", "transformer.h.0.attn.c_attn", 144, 48);
  await load("gpt_neox", "gpt_neox.layers.0.attention.query_key_value", 192, 64);
  for (const turned of [
    load("gpt2", "transformer.h.0.attn.c_attn", 48, 144),
    load("gpt_neox", "gpt_neox.layers.0.attention.query_key_value", 64, 192),
    load("qwen2", "model.layers.0.mlp.up_proj", 48, 96),
  ]) {
    await expect(turned).rejects.toThrow(CheckpointError);
    await expect(turned).rejects.toThrow(/lora changes a layer \[\d+, \d+\] in place of/);
  }
});

test.each([
  ["conv1d", "gpt2", "c_attn"],
  ["fused", "gpt_neox", "query_key_value"],
  ["biases", "qwen2", "q_proj"],
])(
  "modules that the adapter %s does not name are PEFT's for %s, %s among them",
  async (name, base, layer) => {
    const files = adapterFiles(name);
    const tensors = await tensorsOf(
      new Map([["model.safetensors", files.get("adapter_model.safetensors")!]]),
    );
    const kept = [...tensors.values()].filter(
      ({ name }) => /lora_/.test(name) && name.includes(`.${layer}.`),
    );
    const { target_modules: _, ...config } = JSON.parse(
      new TextDecoder().decode(files.get("adapter_config.json")),
    );
    files.set("adapter_config.json", utf8(JSON.stringify({ ...config, bias: "none" })));
    files.set("adapter_model.safetensors", await collect(writeSafetensors(kept)));
    const adapters = [memoryFolder(files, "lora")];
    await using checkpoint = await openCheckpoint(memoryFolder(fixtureFiles(base)), { adapters });
    expect(checkpoint.updated.filter((weight) => weight.endsWith(`${layer}.weight`))).toHaveLength(3);
    const others = [...tensors.values()].filter(({ name }) => /lora_/.test(name));
    if (others.length === kept.length) return;
    files.set("adapter_model.safetensors", await collect(writeSafetensors(others)));
    const all = openCheckpoint(memoryFolder(fixtureFiles(base)), { adapters: [memoryFolder(files, "lora")] });
    await expect(all).rejects.toThrow(/has a LoRA, but is not among the target_modules/);
  },
);

function adapterFiles(name: string): Files {
  const folder = `test/fixtures/family-adapters/${name}`;
  const files = ["adapter_config.json", "adapter_model.safetensors"];
  return new Map(files.map((path) => [path, Uint8Array.from(readFileSync(`${folder}/${path}`))]));
}

function fixtureAdapter(name: string): Folder {
  return memoryFolder(adapterFiles(name), name);
}

test("several ids may end an answer, as generation_config.json has them", async () => {
  const device = await testDevice();
  const files = fixtureFiles("gpt_neox");
  const answer = async (generation?: object) => {
    if (generation) files.set("generation_config.json", utf8(JSON.stringify(generation)));
    using model = await loadModel(memoryFolder(files), { device });
    const prompt = model.prompt("The capital of France is");
    return (await model.generate(prompt, { maxNewTokens: 6, ...(!generation && { stopIds: [] }) })).ids;
  };
  const all = await answer();
  expect(all).toHaveLength(6);
  const at = all.findIndex((id, i) => i > 0 && !all.slice(0, i).includes(id));
  expect(at).toBeGreaterThan(0);
  expect(await answer({ eos_token_id: [447, all[at]], pad_token_id: 316 })).toEqual(all.slice(0, at + 1));
  expect(await answer({ eos_token_id: [all[at], 447] })).toEqual(all.slice(0, at + 1));
  expect(await answer({ eos_token_id: [446, 447] })).toEqual(all);
});

test("a Qwen 2.5 whose window is switched off has none, and one that has it on has it in its upper layers", async () => {
  const device = await testDevice();
  const windows = async (change: Record<string, unknown>) => {
    const files = fixtureFiles("qwen2");
    changeJson(files, "config.json", change);
    using model = await loadModel(memoryFolder(files), { device });
    return [model.config.window, model.config.windowedLayers];
  };
  expect(await windows({ rope_scaling: null })).toEqual([undefined, undefined]);
  expect(await windows({ use_sliding_window: true })).toEqual([4, [false, true, true]]);
});

test("past GPT-2's learned positions there is nothing", async () => {
  using model = await loadModel("test/fixtures/gpt2/model", { device: await testDevice() });
  const ids = (count: number) => Array.from({ length: count }, (_, i) => 20 + (i % 100));
  const full = model.promptFromIds(ids(128));
  expect((await model.run(full).logits!.read()).every(Number.isFinite)).toBe(true);
  expect((await model.generate(full, { maxNewTokens: 1, stopIds: [] })).ids).toHaveLength(1);
  expect(() => model.run(model.promptFromIds(ids(129)))).toThrow(/128/);
  await expect(model.generate(full, { maxNewTokens: 2, stopIds: [] })).rejects.toThrow(/128/);
});
