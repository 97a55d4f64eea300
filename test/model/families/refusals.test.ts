import { describe, expect, test } from "vitest";
import { openCheckpoint } from "../../../src/model/checkpoint/open-checkpoint.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { exportModel } from "../../../src/model/export/export.ts";
import { familyFiles } from "../../../src/model/families/pictures/parts/family-files.ts";
import { familyOf } from "../../../src/model/families/registry.ts";
import { fixtureFiles } from "../../helpers/checkpoints.ts";
import { testDevice } from "../../helpers/device.ts";
import { changeJson } from "../../helpers/nano.ts";

describe("an architecture that is not supported is named, with what is nearest", () => {
  test.each<[config: Record<string, unknown>, says: RegExp]>([
    [{ model_type: "llama4_text" }, /"llama4_text" are not supported; the nearest by name is llama; docs/],
    [
      { model_type: "llama4", vision_config: {} },
      /by name is llama; of its kind \(with pictures\) there is llava;/,
    ],
    [
      { model_type: "qwen3_moe", architectures: ["Qwen3MoeForCausalLM"] },
      /\(Qwen3MoeForCausalLM\).* is qwen3;/,
    ],
    [{ model_type: "qwen3_vl_moe", vision_config: {} }, /by name is qwen3_vl; docs/],
    [{ model_type: "mixtral" }, /by name is mistral;/],
    [{ model_type: "olmo" }, /by name is olmo2;/],
    [{ model_type: "llava_next_video", vision_config: {} }, /by name is llava_next;/],
    [{ model_type: "bart", is_encoder_decoder: true }, /of its kind \(encoder and decoder\) there is t5;/],
    [{ model_type: "deepseek_v3" }, /not supported; of its kind \(of texts\) there is llama;/],
    [{ model_type: "siglip" }, /loadDualEncoder takes them/],
    [{}, /model_type undefined are not supported; of its kind/],
  ])("%j", (config, says) => {
    expect(() => familyOf(config, "m")).toThrow(says);
    if (!String(says).includes("Dual"))
      expect(() => familyOf(config, "m")).toThrow(/docs\/families\/README\.md/);
  });
});

test.each([
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
  "pytorch_model.pt",
  "consolidated.00.pth",
  "model.pt",
])("a folder with %s alone is refused with the way out", async (name) => {
  const files = fixtureFiles("llama");
  files.delete("model.safetensors");
  files.set(name, Uint8Array.of(0x50, 0x4b));
  await expect(openCheckpoint(memoryFolder(files, "m"))).rejects.toThrow(
    /pickle.*(from_pretrained.* save_pretrained|get the files for transformers)/,
  );
});

/** Fields that would change numbers and are not supported; each refusal names its field. */
test.each<[fixture: string, field: string, value: unknown]>([
  ["llama", "rope_scaling", { rope_type: "yarn", factor: 4 }],
  ["gpt2", "add_cross_attention", true],
  ["gemma2", "use_bidirectional_attention", true],
  ["idefics", "use_resampler", false],
  ["gpt_neox", "hidden_act", "mish2"],
  ["t5", "is_encoder_decoder", false],
  ["qwen2", "per_layer_config", { "0": { num_attention_heads: 1 } }],
  ["llava", "vision_feature_layer", [-2, -5]],
])("%s refuses %s by its name", async (fixture, field, value) => {
  const files = fixtureFiles(fixture);
  changeJson(files, "config.json", { [field]: value });
  await using checkpoint = await openCheckpoint(memoryFolder(files, "m"));
  const config = checkpoint.config!;
  const read = async () => {
    const family = familyOf(config, "m");
    return family.readConfig(config, "m", await familyFiles(checkpoint, family, undefined, undefined));
  };
  const name = field === "rope_scaling" ? "yarn" : field === "hidden_act" ? "mish2" : field;
  await expect(read()).rejects.toThrow(name);
});

test.each([
  ["clip", /loadDualEncoder/],
  ["siglip", /loadDualEncoder/],
  ["siglip2", /loadDualEncoder/],
])("%s is not exported, and says so", async (fixture, message) => {
  await using checkpoint = await openCheckpoint(`test/fixtures/${fixture}/model`);
  const exported = exportModel(checkpoint, await testDevice(), { write: async () => {} });
  await expect(exported).rejects.toThrow(message);
});
