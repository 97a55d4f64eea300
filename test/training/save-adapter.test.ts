import { describe, expect, test } from "vitest";
import { loadImage } from "../../src/images/files/load.ts";
import { modulePath } from "../../src/model/checkpoint/entries/module-names.ts";
import { memoryFolder } from "../../src/model/checkpoint/source/folder.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import { Lora, type LoraOptions } from "../../src/training/lora.ts";
import { saveAdapter } from "../../src/training/save-adapter.ts";
import { collect } from "../helpers/bytes.ts";
import { expectSame, largest, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel, randomIds, TEXT_FIXTURES } from "../helpers/model.ts";
import type { Files } from "../helpers/nano.ts";

const device = await testDevice();

/** An adapter that is not 0, as if trained. */
function trained(model: PatchableModel, options: LoraOptions): Lora {
  const lora = new Lora(model, options);
  for (const [i, tensor] of Object.values(lora.parameters).entries()) {
    device.write(tensor, new Uint8Array(randomArray(tensor.size, i, 0.2).buffer));
  }
  return lora;
}

async function saved(lora: Lora, model: PatchableModel, base?: string): Promise<Files> {
  const files: Files = new Map();
  const sink = {
    async write(name: string, chunks: AsyncIterable<Uint8Array>) {
      files.set(name, await collect(chunks));
    },
  };
  await saveAdapter(lora, model, sink, base === undefined ? {} : { base });
  return files;
}

const configOf = (files: Files) => JSON.parse(new TextDecoder().decode(files.get("adapter_config.json")));

async function promptFor(model: PatchableModel) {
  const { encoder, vision } = model.config;
  if (!vision)
    return encoder
      ? model.promptFromIds(randomIds(7, 1), [], randomIds(3, 2))
      : model.promptFromIds(randomIds(9, 1));
  const picture = await loadImage("test/fixtures/images/photo.png");
  return model.prompt(["Q: ", picture, "\nA:"], encoder && { answer: "red" });
}

const PICTURED = [
  "llava",
  "llava-as-saved",
  "llava_next",
  "llava_onevision",
  "paligemma",
  "qwen2_vl",
  "qwen2_5_vl",
  "qwen3_vl",
  "mllama",
  "gemma3",
  "idefics",
  "idefics2",
  "fuyu",
  ...["smolvlm", "internvl", "internvl-qk-norm"],
  ...["blip2-opt", "blip2-t5", "instructblip-llama"],
];

describe.each([...TEXT_FIXTURES, "t5", "t5-relu-tied", ...PICTURED, "llava-pixtral"])("%s", (name) => {
  test("what is saved loads as what was trained, merged and beside the weights", async () => {
    const model = await fixtureModel(name);
    const prompt = await promptFor(model);
    const logits = () => model.run(prompt, { logits: "all" }).logits!.read();
    const without = await logits();
    const lora = trained(model, { rank: 3, alpha: 5, modules: "all-linear" });
    const expected = await logits();
    expect(largest(expected.map((value, i) => value - without[i]!))).toBeGreaterThan(
      0.01 * largest(expected),
    );
    const adapter = memoryFolder(await saved(lora, model), "saved");
    lora.dispose();
    expect(await logits()).toEqual(without);
    // Merged into 16 bits it is rounded.
    for (const merge of model.storedDtypes[0] === "F32" ? [true, false] : [false]) {
      using loaded = await loadModel(`test/fixtures/${name}/model`, { device, adapters: [adapter], merge });
      const found = await loaded.run(prompt, { logits: "all" }).logits!.read();
      expectSame(found, expected, merge ? "merged" : "beside the weights");
    }
  });
});

/** What the modules of transformers 5.24 are called, a number in place of each, by family or fixture. */
const MODULES = `
llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3_text, olmo2: model.layers.N. self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj
phi3: model.layers.N. self_attn.qkv_proj self_attn.o_proj mlp.gate_up_proj mlp.down_proj
fuyu: model.language_model.layers.N. self_attn.query_key_value self_attn.dense mlp.dense_h_to_Nh mlp.dense_Nh_to_h
fuyu: model. vision_embed_tokens
persimmon: model.layers.N. self_attn.query_key_value self_attn.dense mlp.dense_h_to_Nh mlp.dense_Nh_to_h
opt: model.decoder.layers.N. self_attn.k_proj self_attn.v_proj self_attn.q_proj self_attn.out_proj fcN
gpt2: transformer.h.N. attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj
gpt_neox: gpt_neox.layers.N. attention.query_key_value attention.dense mlp.dense_h_to_Nh mlp.dense_Nh_to_h
llava, llava_next, llava_onevision, paligemma, gemma3, qwen2_vl, qwen2_5_vl, qwen3_vl, mllama: model.language_model.layers.N. self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj
llava, llava_next, llava_onevision, paligemma, gemma3: model.vision_tower.encoder.layers.N. self_attn.k_proj self_attn.v_proj self_attn.q_proj self_attn.out_proj mlp.fcN
llava, llava_next, llava_onevision: model.multi_modal_projector. linear_N
paligemma: model.multi_modal_projector. linear
qwen2_vl: model.visual.blocks.N. attn.qkv attn.proj mlp.fcN
qwen2_5_vl: model.visual.blocks.N. attn.qkv attn.proj mlp.gate_proj mlp.up_proj mlp.down_proj
qwen2_vl, qwen2_5_vl: model.visual.merger.mlp. N
qwen3_vl: model.visual.blocks.N. attn.qkv attn.proj mlp.linear_fcN
qwen3_vl: model.visual. merger.linear_fcN deepstack_merger_list.N.linear_fcN
smolvlm: model.text_model.layers.N. self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj
smolvlm: model.vision_model.encoder.layers.N. self_attn.k_proj self_attn.v_proj self_attn.q_proj self_attn.out_proj mlp.fcN
smolvlm: model.connector.modality_projection. proj
internvl: model.language_model.layers.N. self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj
internvl: model.vision_tower.encoder.layer.N. attention.q_proj attention.k_proj attention.v_proj attention.projection_layer mlp.fcN
internvl: model.multi_modal_projector. linear_N
idefics2: model.text_model.layers.N. self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj
idefics2: model.vision_model.encoder.layers.N. self_attn.k_proj self_attn.v_proj self_attn.q_proj self_attn.out_proj mlp.fcN
idefics2: model.connector.modality_projection. gate_proj up_proj down_proj
idefics2: model.connector.perceiver_resampler.layers.N. self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj
mllama: model.language_model.layers.N. cross_attn.q_proj cross_attn.k_proj cross_attn.v_proj cross_attn.o_proj
mllama: model.vision_model.transformer.layers.N. self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.fcN
mllama: model.vision_model.global_transformer.layers.N. self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.fcN
mllama: model. multi_modal_projector
blip-2, instructblip: vision_model.encoder.layers.N. self_attn.qkv self_attn.projection mlp.fcN
blip-2, instructblip: qformer.encoder.layer.N. attention.attention.query attention.attention.key attention.attention.value attention.output.dense crossattention.attention.query crossattention.attention.key crossattention.attention.value crossattention.output.dense intermediate_query.dense output_query.dense
instructblip: qformer.encoder.layer.N. intermediate.dense output.dense
blip2-opt: language_model.model.decoder.layers.N. self_attn.k_proj self_attn.v_proj self_attn.q_proj self_attn.out_proj fcN
instructblip: language_model.model.layers.N. self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj
idefics: model.vision_model.encoder.layers.N. self_attn.k_proj self_attn.v_proj self_attn.q_proj self_attn.out_proj mlp.fcN
idefics: model.perceiver_resampler.blocks.N.N. q_proj k_proj v_proj output_proj fc c_proj
idefics: model.layers.N. self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj
idefics: model.gated_cross_attn_layers.N. cross_attn.q_proj cross_attn.k_proj cross_attn.v_proj cross_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj
blip2-t5: language_model.encoder.block.N.layer.N. SelfAttention.q SelfAttention.k SelfAttention.v SelfAttention.o DenseReluDense.wi_N DenseReluDense.wo
blip2-t5: language_model.decoder.block.N.layer.N. SelfAttention.q SelfAttention.k SelfAttention.v SelfAttention.o EncDecAttention.q EncDecAttention.k EncDecAttention.v EncDecAttention.o DenseReluDense.wi_N DenseReluDense.wo
t5: encoder.block.N.layer.N. SelfAttention.q SelfAttention.k SelfAttention.v SelfAttention.o DenseReluDense.wi_N DenseReluDense.wo
t5: decoder.block.N.layer.N. SelfAttention.q SelfAttention.k SelfAttention.v SelfAttention.o EncDecAttention.q EncDecAttention.k EncDecAttention.v EncDecAttention.o DenseReluDense.wi_N DenseReluDense.wo`;

test.each([...TEXT_FIXTURES, "t5", ...PICTURED])(
  "%s: modules are called what transformers calls them",
  async (name) => {
    const { family, loaded } = await fixtureModel(name);
    const known = MODULES.trim()
      .split("\n")
      .map((line) => line.split(": "))
      .filter(([families]) => families!.split(", ").some((each) => each === family || each === name))
      .flatMap(([, names]) => {
        const [prefix, ...ends] = names!.split(" ");
        return ends.map((end) => prefix + end);
      });
    const ends: Readonly<Record<string, string[]>> = {
      idefics: ["lm_head", "lm_head.additional_fc"],
      "blip-2": ["language_model.lm_head", "language_projection"],
      instructblip: ["language_model.lm_head", "language_projection"],
    };
    const heads = ends[family] ?? ["lm_head"];
    const found = [...loaded.linears.keys()].map((module) =>
      modulePath(family, module)!.replace(/\d+/g, "N"),
    );
    expect(new Set(found)).toEqual(new Set([...known, ...heads]));
  },
);

test("the config names what PEFT has to know", async () => {
  const llama = await fixtureModel("llama");
  const lora = trained(llama, { rank: 2, modules: ["q_proj", "v_proj"] });
  expect(configOf(await saved(lora, llama))).toEqual({
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    base_model_name_or_path: "test/fixtures/llama/model",
    r: 2,
    lora_alpha: 4,
    lora_dropout: 0,
    bias: "none",
    fan_in_fan_out: false,
    target_modules: ["q_proj", "v_proj"],
    inference_mode: true,
  });
  lora.dispose();

  const gpt2 = await fixtureModel("gpt2");
  // c_proj alone would be the one of the MLP as well.
  const part = trained(gpt2, { modules: ["attn.c_proj"] });
  const config = configOf(await saved(part, gpt2, "org/gpt2"));
  expect(config).toMatchObject({ fan_in_fan_out: true, base_model_name_or_path: "org/gpt2" });
  expect(config.target_modules[0]).toBe("transformer.h.0.attn.c_proj");
  part.dispose();
});

test("a tied output matrix is one, not the embedding: all-linear leaves it out, and lm_head is its name", async () => {
  const model = await fixtureModel("llama-gqa-tied");
  using all = new Lora(model, { modules: "all-linear" });
  expect(all.modules.filter((module) => /lm_head|embed/.test(module))).toEqual([]);
  using head = trained(model, { modules: ["lm_head"] });
  const prompt = await promptFor(model);
  const expected = await model.run(prompt).logits!.read();
  const adapter = memoryFolder(await saved(head, model), "saved");
  for (const merge of [true, false]) {
    using loaded = await loadModel("test/fixtures/llama-gqa-tied/model", {
      device,
      adapters: [adapter],
      merge,
    });
    expectSame(await loaded.run(prompt).logits!.read(), expected, "logits");
  }
});

test("what could not be read back is refused", async () => {
  const model = await fixtureModel("llama");
  using lora = trained(model, {});
  const adapter = memoryFolder(await saved(lora, model), "first");
  using onTop = await loadModel("test/fixtures/llama/model", { device, adapters: [adapter] });
  using second = trained(onTop, {});
  await expect(saved(second, onTop)).rejects.toThrow(/loaded with first; expected the option base/);
  await expect(saved(second, onTop, "both")).resolves.toBeDefined();

  await expect(saved(lora, await fixtureModel("gpt2"))).rejects.toThrow(
    /has no linear layer .* another model/,
  );
  const [name, tensor] = Object.entries(lora.parameters)[0]!;
  device.write(tensor, new Uint8Array(new Float32Array(tensor.size).fill(Number.NaN).buffer));
  await expect(saved(lora, model)).rejects.toThrow(`${name} holds infinities or NaN`);
  expect(modulePath("qwen9", "model.layers.0.mlp.up_proj")).toBeUndefined();
});
