import { describe, expect, test } from "vitest";
import { CheckpointError } from "../../../src/errors.ts";
import type { TensorToWrite } from "../../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { loadModel } from "../../../src/patching/model.ts";
import { fixtureFiles, tensorsOf, withTensors } from "../../helpers/checkpoints.ts";
import { testDevice } from "../../helpers/device.ts";
import type { Files } from "../../helpers/nano.ts";

// Tensors of a file that nobody asks for: what would make another model of it is refused by name, the rest left alone.

async function logitsOf(files: Files, ids: readonly number[] = [20, 31, 42, 53]): Promise<Float32Array> {
  using model = await loadModel(memoryFolder(files, "m"), { device: await testDevice() });
  return model.run(model.promptFromIds(ids)).logits!.read();
}

function numbers(name: string, shape: readonly number[], fill: number, stored = "F32"): TensorToWrite {
  const size = shape.reduce((a, b) => a * b, 1);
  const data = stored === "F32" ? new Float32Array(size).fill(fill) : new Uint8Array(size).fill(fill);
  return { name, stored, shape, data: new Uint8Array(data.buffer) };
}

async function withMore(fixture: string, ...more: TensorToWrite[]): Promise<Files> {
  const files = fixtureFiles(fixture);
  const tensors = new Map<string, TensorToWrite>(await tensorsOf(files));
  for (const tensor of more) tensors.set(tensor.name, tensor);
  return withTensors(files, tensors.values());
}

const Q = "model.layers.0.self_attn.q_proj";
const TEXT = "language_model.model.layers.0.self_attn.q_proj";

describe("refused by name", () => {
  test.each<[fixture: string, stray: string]>([
    ...[
      ...[
        "weight_scale",
        "weight_scale_inv",
        "input_scale",
        "weight_zero_point",
        "scale_weight",
        "SCB",
        "weight_format",
      ],
      ...["weight.absmax", "weight.quant_map", "weight.nested_absmax", "weight.absmax"],
      ...["qweight", "qzeros", "scales", "g_idx", "weight_packed", "weight_shape", "weight_g", "weight_v"],
      ...[
        "bias",
        "lora_A.weight",
        "lora_B.default.weight",
        "base_layer.weight",
        "parametrizations.weight.original0",
      ],
    ].map((part) => ["llama", `${Q}.${part}`] as [string, string]),
    ["llama", "model.layers.0.self_attn.q_norm.weight"],
    ["llama", "model.layers.1.pre_feedforward_layernorm.weight"],
    ["llama", "model.layers.2.mlp.experts.0.w1.weight"],
    ["llama", "model.norm.bias"],
    ["llama", "model.embed_positions.weight"],
    ["llama", "lm_head.bias"],
    ["llama", "lm_head.weight_scale"],
    ["llama", "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"],
    ["llama", "language_model.model.norm.weight"],
    ["llama-gqa-tied", "lm_head.bias"],
    ["llama-gqa-tied", "model.embed_tokens.weight_scale"],
    ["mistral", "model.layers.0.self_attn.o_proj.bias"],
    ["gpt2", "transformer.h.0.attn.c_attn.weight_scale"],
    ["gpt2", "transformer.h.1.crossattention.q_attn.weight"],
    ["gpt2", "transformer.h.1.ln_cross_attn.weight"],
    ["gpt2", "wte.weight"],
    ["gpt_neox", "gpt_neox.layers.0.attention.query_key_value.SCB"],
    ["gpt_neox", "lm_head.weight"],
    ["gpt_neox-sequential", "gpt_neox.layers.0.attention.dense.bias"],
    ["qwen2", "model.layers.0.self_attn.o_proj.bias"],
    ["qwen2", "model.layers.0.self_attn.q_norm.weight"],
    ["qwen3", "model.layers.0.self_attn.q_proj.bias"],
    ["gemma2", "model.layers.0.self_attn.k_norm.weight"],
    ["olmo2", "model.layers.0.input_layernorm.weight"],
    ["phi3", "model.layers.0.self_attn.q_proj.weight"],
    ["llava", `${TEXT}.SCB`],
    ["llava", "model.language_model.norm.weight"],
    ["llava", "vision_tower.vision_model.encoder.layers.0.layer_scale1.lambda1"],
    ["llava", "multi_modal_projector.linear_3.weight"],
  ])("%s: %s", async (fixture, stray) => {
    const load = logitsOf(await withMore(fixture, numbers(stray, [4], 1)));
    await expect(load).rejects.toThrow(CheckpointError);
    await expect(load).rejects.toThrow(`found ${stray} (`);
  });

  test("a state of bitsandbytes' 4 bits that is none", async () => {
    const stray = `${Q}.weight.quant_state.bitsandbytes__nf4`;
    const load = logitsOf(await withMore("llama", numbers(stray, [4], 1)));
    await expect(load).rejects.toThrow(CheckpointError);
    await expect(load).rejects.toThrow(`${stray}: expected JSON`);
  });

  test("weights that are no floats: bitsandbytes' int8, with a config that says nothing of it", async () => {
    const files = fixtureFiles("llama");
    const tensors = await tensorsOf(files);
    const { shape } = tensors.get(`${Q}.weight`)!;
    tensors.set(`${Q}.weight`, numbers(`${Q}.weight`, shape, 3, "I8") as never);
    const load = logitsOf(await withTensors(files, tensors.values()));
    await expect(load).rejects.toThrow(CheckpointError);
    await expect(load).rejects.toThrow(`${Q}.weight is I8 instead of floats`);
  });
});

describe("left in the file, as transformers does", () => {
  test.each<[fixture: string, stray: string, shape: number[]]>([
    ["llama", "model.layers.0.self_attn.rotary_emb.inv_freq", [6]],
    ["llama", "model.rotary_emb.inv_freq", [6]],
    ["llama", "model.layers.0.self_attn.masked_bias", []],
    ["llama", "model.layers.3.self_attn.q_proj.weight", [48, 48]], // a layer beyond the config's number
    ["llama", "score.weight", [2, 48]],
    ["gpt2", "transformer.h.0.attn.bias", [1, 1, 128, 128]],
    ["gpt2", "transformer.h.0.attn.masked_bias", []],
    ["gpt2", "score.weight", [2, 48]],
    ["llama", "v_head.summary.weight", [1, 48]],
    ["llama", "vision_tower.patch.weight", [2, 2]],
    ["llava", "vision_tower.vision_model.embeddings.position_ids", [1, 17]],
    ["llava", "vision_tower.visual_projection.weight", [24, 32]],
    ["llava", "vision_tower.vision_model.head.probe", [1, 1, 32]],
  ])("%s: %s", async (fixture, stray, shape) => {
    expect(await logitsOf(await withMore(fixture, numbers(stray, shape, 1)))).toEqual(
      await logitsOf(fixtureFiles(fixture)),
    );
  });

  test("a bias of zeros, which is none", async () => {
    const zeros = [`${Q}.bias`, "model.layers.1.mlp.up_proj.bias"].map((name) => numbers(name, [96], 0));
    expect(await logitsOf(await withMore("llama", ...zeros))).toEqual(await logitsOf(fixtureFiles("llama")));
  });
});

/** Rows the other way round, so that the right logits are the plain ones the other way round. */
function turned({ name, stored, shape, data }: TensorToWrite): TensorToWrite {
  const [rows] = shape as [number];
  const bytes = data as Uint8Array;
  const row = bytes.length / rows;
  const out = new Uint8Array(bytes.length);
  for (let i = 0; i < rows; i++) out.set(bytes.subarray(i * row, (i + 1) * row), (rows - 1 - i) * row);
  return { name, stored, shape, data: out };
}

// What transformers 5.24 does, tried out with it: all of the outcomes below are its own.
describe("tie_word_embeddings", () => {
  const EMBED = "model.embed_tokens.weight";
  const HEAD = "lm_head.weight";

  test("keeps an output matrix of the file that differs", async () => {
    const files = fixtureFiles("llama-gqa-tied");
    const tensors = await tensorsOf(files);
    const head = { ...turned(tensors.get(EMBED)!), name: HEAD };
    const plain = await logitsOf(files);
    expect(await logitsOf(await withTensors(files, [...tensors.values(), head]))).toEqual(plain.toReversed());
  });

  test("ties an identical copy, and one without the other", async () => {
    const files = fixtureFiles("llama-gqa-tied");
    const tensors = await tensorsOf(files);
    const plain = await logitsOf(files);
    const copy = { ...tensors.get(EMBED)!, name: HEAD };
    const both = await withTensors(files, [...tensors.values(), copy]);
    expect(await logitsOf(both)).toEqual(plain);
    tensors.delete(EMBED);
    expect(await logitsOf(await withTensors(files, [...tensors.values(), copy]))).toEqual(plain);
    const device = await testDevice();
    const bytes = async (of: Files) => {
      const before = device.memory.liveBytes;
      using _ = await loadModel(memoryFolder(of), { device });
      return device.memory.liveBytes - before;
    };
    expect(await bytes(both)).toBe(await bytes(files)); // the copy takes no memory
    tensors.delete(HEAD);
    const neither = logitsOf(await withTensors(files, tensors.values()));
    await expect(neither).rejects.toThrow(`has no tensor ${EMBED}`);
  });

  test("of a LLaVA holds if it or its text_config says so; its own matrix stays", async () => {
    const files = fixtureFiles("llava");
    const tensors = await tensorsOf(files);
    const text = JSON.parse(new TextDecoder().decode(files.get("config.json")!)).text_config;
    const config = (top: boolean | undefined, inner: boolean | undefined) => ({
      tie_word_embeddings: top,
      text_config: { ...text, tie_word_embeddings: inner },
    });
    const plain = await logitsOf(files);
    const bare = [...tensors.values()].filter(({ name }) => !name.endsWith(HEAD));
    const tied = await logitsOf(await withTensors(files, bare, config(true, true)));
    expect(tied).not.toEqual(plain);
    for (const [top, inner] of [
      [true, false],
      [true, undefined],
      [false, true],
      [undefined, true],
    ]) {
      expect(await logitsOf(await withTensors(files, bare, config(top, inner)))).toEqual(tied);
      expect(await logitsOf(await withTensors(files, tensors.values(), config(top, inner)))).toEqual(plain);
    }
    const untied = logitsOf(await withTensors(files, bare, config(false, false)));
    await expect(untied).rejects.toThrow(/has no tensor language_model\.lm_head\.weight/);
  });
});
