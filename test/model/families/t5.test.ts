import { describe, expect, test } from "vitest";
import { CheckpointError } from "../../../src/errors.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { t5 } from "../../../src/model/families/text/t5.ts";
import { loadModel } from "../../../src/patching/model.ts";
import { fixtureFiles, type Tensors, tensorsOf, withTensors } from "../../helpers/checkpoints.ts";
import { testDevice } from "../../helpers/device.ts";
import { randomIds, readAll } from "../../helpers/model.ts";
import { changeJson, type Files } from "../../helpers/nano.ts";

const START = { decoder_start_token_id: 0 };
const read = (values: object) =>
  t5.readConfig({ ...START, ...values }, "config.json", {
    preprocessor: undefined,
    tokenOf: String,
    idOf: () => undefined,
    eosId: 1,
  });

// What T5Config of transformers 5.24 makes of the same fields.
describe("the config", () => {
  test.each([
    [{}, { activation: "relu", gated: false, width: 512, scaledHead: true, layers: 6 }],
    [{ feed_forward_proj: "gated-gelu" }, { activation: "gelu_tanh", gated: true }],
    [{ feed_forward_proj: "gated-silu" }, { activation: "silu", gated: true }],
    [
      { feed_forward_proj: "relu", dense_act_fn: "silu" },
      { activation: "silu", gated: false },
    ],
    [
      { feed_forward_proj: "gated-gelu", dense_act_fn: "relu", is_gated_act: false },
      { activation: "relu", gated: false },
    ],
    [{ hidden_size: 64, d_model: 32 }, { width: 64 }],
    [{ tie_word_embeddings: null }, { scaledHead: true }],
    [{ tie_word_embeddings: false }, { scaledHead: false }],
    [{ scale_decoder_outputs: false }, { scaledHead: false }],
    [{ tie_word_embeddings: false, scale_decoder_outputs: true }, { scaledHead: true }],
    [{ num_layers: 4 }, { layers: 4, encoder: { layers: 4 } }],
    [
      { num_hidden_layers: 3, num_decoder_layers: null },
      { layers: 6, encoder: { layers: 3 } },
    ],
    [
      { num_layers: 4, num_decoder_layers: 2 },
      { layers: 2, encoder: { layers: 4, startId: 0 } },
    ],
  ])("%j", (values, expected) => {
    expect(read(values)).toMatchObject(expected);
  });

  test.each([
    [{ feed_forward_proj: "gelu-x" }, /feed_forward_proj.*found "gelu-x"/],
    [{ feed_forward_proj: "gated-foo" }, /activation "foo" is not supported/],
    [{ decoder_start_token_id: null }, /decoder_start_token_id is missing/],
    [{ relative_attention_num_buckets: 3 }, /relative_attention_num_buckets/],
    [
      { relative_attention_max_distance: 16 },
      /relative_attention_max_distance to be above half of the 32 buckets/,
    ],
    [{ is_causal: false }, /is_causal/],
    [{ is_encoder_decoder: false }, /is_encoder_decoder false is not supported/],
  ])("refuses %j", (values, message) => {
    expect(() => read(values)).toThrow(CheckpointError);
    expect(() => read(values)).toThrow(message);
  });
});

const load = async (files: Files) => loadModel(memoryFolder(files, "t5"), { device: await testDevice() });

async function logitsOf(files: Files): Promise<Float32Array> {
  using model = await load(files);
  const { logits } = model.run(model.promptFromIds(randomIds(9, 1), [], [20, 30]));
  return (await readAll({ logits })).logits;
}

async function changedTensors(change: (tensors: Tensors) => void): Promise<Files> {
  const files = fixtureFiles("t5-relu-tied");
  const tensors = await tensorsOf(files);
  change(tensors);
  return withTensors(files, tensors.values());
}

describe("the tensors", () => {
  test("of a tied model may be there under all their names; embeddings of a stack's own count", async () => {
    const plain = await logitsOf(fixtureFiles("t5-relu-tied"));
    const twins = (name: string, change?: (bytes: Uint8Array) => void) => (tensors: Tensors) => {
      const shared = tensors.get("shared.weight")!;
      const data = shared.data.slice();
      change?.(data);
      tensors.set(name, { ...shared, name, data });
    };
    const reverse = (bytes: Uint8Array) => new Uint16Array(bytes.buffer).reverse();
    for (const name of ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"]) {
      expect(await logitsOf(await changedTensors(twins(name)))).toEqual(plain);
      expect(await logitsOf(await changedTensors(twins(name, reverse)))).not.toEqual(plain);
    }
  });

  test("that no class reads are left alone, others refused", async () => {
    const bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
    const copiedTo = (name: string) => (tensors: Tensors) => {
      tensors.set(name, { ...tensors.get(bias)!, name });
    };
    const old = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
    expect(await logitsOf(await changedTensors(copiedTo(old)))).toEqual(
      await logitsOf(fixtureFiles("t5-relu-tied")),
    );
    const other = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight";
    await expect(load(await changedTensors(copiedTo(other)))).rejects.toThrow(other);
    await expect(load(await changedTensors((tensors) => tensors.delete(bias)))).rejects.toThrow(bias);
  });

  test("have one start token, whatever generation_config.json says", async () => {
    const files = fixtureFiles("t5");
    files.set("generation_config.json", new TextEncoder().encode('{"decoder_start_token_id": 0}'));
    (await load(files)).dispose();
    changeJson(files, "generation_config.json", { decoder_start_token_id: 5 });
    await expect(load(files)).rejects.toThrow(/one decoder_start_token_id, found 0 in config.json and 5/);
  });
});
