import { describe, expect, test } from "vitest";
import { CheckpointError, PromptError } from "../../../src/errors.ts";
import { loadImage } from "../../../src/images/files/load.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { OpenModel } from "../../../src/model/open-model.ts";
import { loadModel, type PatchableModel } from "../../../src/patching/model.ts";
import { tap } from "../../../src/patching/tap.ts";
import { fixtureFiles, tensorsOf, withTensors } from "../../helpers/checkpoints.ts";
import { expectSame } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";
import { fixtureModel, readAll } from "../../helpers/model.ts";

type Json = Record<string, unknown>;

const gray = () => loadImage("test/fixtures/images/gray.png");

describe("a prompt", () => {
  test("has pictures that come first in front of BOS, and others where they stand", async () => {
    const model = await fixtureModel("blip2-opt");
    const image = await gray();
    const text = model.prompt("a photo of").ids;
    const inFront = model.prompt([image, "a photo of"]);
    expect(inFront.ids).toEqual([...Array(6).fill(320), ...text]);
    expect(inFront.span("image")).toEqual({ start: 0, end: 6 });
    // As the processor has it, for a text that has no place for the picture.
    expect(model.prompt("a photo of", { images: [image] }).ids).toEqual(inFront.ids);
    const among = model.prompt(["a ", image, { text: "photo", name: "what" }]);
    expect(among.tokens[0]).toBe("</s>");
    const { start, end } = among.span("image");
    expect([end - start, start > 0]).toEqual([6, true]);
    expect(among.span("what").start).toBe(end);
    const both = model.prompt([image, "a ", image, { text: "photo", name: "what" }]);
    expect(both.span("image").start).toBe(0);
    expect(both.span("image2").start).toBe(start + 6);
    expect(both.span("what")).toEqual({
      start: among.span("what").start + 6,
      end: among.span("what").end + 6,
    });
    expect(model.prompt([image, "x"], { bos: false }).tokens).not.toContain("</s>");
  });

  test("of an encoder ends in its end token, and is answered by the decoder", async () => {
    const model = await fixtureModel("blip2-t5");
    const prompt = model.prompt([await gray(), "a photo of"], { answer: "red" });
    expect(prompt.ids.slice(0, 6)).toEqual(Array(6).fill(155));
    expect(prompt.tokens.at(-1)).toBe("</s>");
    expect(model.sequenceOf(prompt).ids[0]).toBe(0);
  });

  test("has spans where characters are unknown to the tokenizer", async () => {
    const model = await fixtureModel("blip2-t5");
    const { spans, tokens } = model.prompt([
      "Q: ",
      { text: "Lxebanon", name: "x" },
      "\nA: ",
      { text: "ŁŁ", name: "y" },
      " red",
    ]);
    const named = (name: string) => tokens.slice(spans[name]!.start, spans[name]!.end);
    expect(named("x")[0]).toBe("<unk>");
    expect(named("x").join("")).toMatch(/n$/);
    expect(named("y")).toEqual(["<unk>"]);
    expect(spans["x"]!.end).toBeLessThanOrEqual(spans["y"]!.start);
    expect(model.prompt(["Q: <unk>", { text: "red", name: "x" }]).spans["x"]).toBeDefined();
  });

  test("has its text read by InstructBLIP's Q-Former, without the places of pictures", async () => {
    const model = await fixtureModel("instructblip-llama");
    const image = await gray();
    const { instruction } = model.prompt([image, "a photo of"]);
    expect(model.prompt(["a photo", image, "of"]).instruction).toEqual(instruction);
    const again = model.promptFromIds(model.prompt([image, "a photo of"]).ids, [image]);
    expect(again.instruction).toEqual(instruction);
    expect(model.prompt("a photo of").instruction).toBeUndefined();
    const other = await fixtureModel("blip2-opt");
    expect(other.prompt([image, "a photo of"]).instruction).toBeUndefined();
    const long = "what color is the sky? ".repeat(10);
    expect(() => model.prompt([image, long])).toThrow(PromptError);
    expect(() => model.prompt([image, long])).toThrow("at most 64 tokens for the Q-Former");
  });

  test("changes what the Q-Former makes of a picture where that reads it, and only there", async () => {
    const image = await gray();
    for (const [name, reads] of [
      ["instructblip-llama", true],
      ["blip2-opt", false],
    ] as const) {
      const model = await fixtureModel(name);
      const features = async (text: string) => {
        const { projector } = model.run(model.prompt([image, text]), {
          taps: { projector: tap("projector") },
        });
        return (await readAll({ projector })).projector;
      };
      const [a, b] = [await features("a photo of"), await features("what color?")];
      expect([...a].join() !== [...b].join()).toBe(reads);
    }
  });
});

describe("a config", () => {
  const open = async (fixture: string, change: (config: Json) => unknown, gone: readonly string[] = []) => {
    const files = fixtureFiles(fixture);
    const config = JSON.parse(new TextDecoder().decode(files.get("config.json"))) as Json;
    change(config);
    files.set("config.json", new TextEncoder().encode(JSON.stringify(config)));
    for (const name of gone) files.delete(name);
    return await OpenModel.open(memoryFolder(files, fixture));
  };
  const part = (config: Json, name: string) => config[`${name}_config`] as Json;

  test.each<[string, string, (config: Json) => unknown]>([
    ["opt", "do_layer_norm_before false", (c) => Object.assign(c, { do_layer_norm_before: false })],
    ["opt", "_remove_final_layer_norm true", (c) => Object.assign(c, { _remove_final_layer_norm: true })],
    [
      "opt",
      "layer_norm_elementwise_affine false",
      (c) => Object.assign(c, { layer_norm_elementwise_affine: false }),
    ],
    ["opt", "word_embed_proj_dim 24", (c) => Object.assign(c, { word_embed_proj_dim: 24 })],
    ["opt", "num_attention_heads", (c) => Object.assign(c, { num_attention_heads: 5 })],
    ["blip2-opt", "image_token_index is missing", (c) => Object.assign(c, { image_token_index: null })],
    ["blip2-opt", "no token of the id 440", (c) => Object.assign(c, { image_token_index: 440 })],
    [
      "blip2-opt",
      "use_qformer_text_input true",
      (c) => Object.assign(part(c, "qformer"), { use_qformer_text_input: true }),
    ],
    [
      "blip2-opt",
      'position_embedding_type "relative_key"',
      (c) => Object.assign(part(c, "qformer"), { position_embedding_type: "relative_key" }),
    ],
    ["blip2-opt", "hidden_size", (c) => Object.assign(part(c, "qformer"), { num_attention_heads: 5 })],
    [
      "blip2-opt",
      'over "gpt2" is not supported',
      (c) => Object.assign(part(c, "text"), { model_type: "gpt2" }),
    ],
    ["blip2-t5", "is_encoder_decoder", (c) => Object.assign(part(c, "text"), { is_encoder_decoder: false })],
  ])("%s: %s is refused", async (fixture, message, change) => {
    const opening = open(fixture, change);
    await expect(opening).rejects.toThrow(CheckpointError);
    await expect(opening).rejects.toThrow(message);
  });

  test("without the Q-Former's tokenizer is refused", async () => {
    const opening = open("instructblip-llama", () => {}, ["qformer_tokenizer/tokenizer.json"]);
    await expect(opening).rejects.toThrow("no qformer_tokenizer/tokenizer.json");
  });

  test("may say image_token_id, leave out what its classes have, and have no bias on q, k and v", async () => {
    const model = await open("blip2-opt", (config) => {
      config["image_token_id"] = config["image_token_index"];
      config["image_token_index"] = undefined;
      for (const field of ["cross_attention_frequency", "hidden_act", "layer_norm_eps"]) {
        part(config, "qformer")[field] = undefined;
      }
    });
    expect(model.outline.config.vision!.imageTokenId).toBe(320);
    expect(model.outline.config.vision!.qformer!.crossLayers).toEqual([0, 2]);
  });
});

test("OPT's positions begin behind two rows of the table", async () => {
  const model = await fixtureModel("opt");
  const weights = model.weight("W_pos");
  expect(weights.shape).toEqual([160, 48]);
  const prompt = model.promptFromIds([20, 31]);
  const { embed: tapped } = model.run(prompt, { taps: { embed: tap("embed") } });
  const read = await readAll({ embed: tapped, positions: weights, words: model.weight("W_E") });
  const { embed, positions, words } = read;
  const expected = [20, 31].flatMap((id, p) =>
    Array.from({ length: 48 }, (_, i) => Math.fround(words[id * 48 + i]! + positions[p * 48 + i]!)),
  );
  expectSame(embed, Float32Array.from(expected), "embed");
});

test("a base model's OPT has no prefix", async () => {
  const renamed = [...(await tensorsOf(fixtureFiles("opt"))).values()].map((tensor) => ({
    ...tensor,
    name: tensor.name.replace(/^model\./, ""),
  }));
  const files = await withTensors(fixtureFiles("opt"), renamed);
  using model = await loadModel(memoryFolder(files, "opt"), { device: await testDevice() });
  const logits = async (of: PatchableModel) =>
    (await readAll({ x: of.run(of.promptFromIds([20, 31])).logits })).x;
  expectSame(await logits(model), await logits(await fixtureModel("opt")), "logits");
});
