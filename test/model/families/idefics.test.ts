import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { CheckpointError, PromptError } from "../../../src/errors.ts";
import { loadImage } from "../../../src/images/files/load.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { loadModel } from "../../../src/patching/model.ts";
import { utf8 } from "../../helpers/bytes.ts";
import { testDevice } from "../../helpers/device.ts";
import { fixtureModel, readAll } from "../../helpers/model.ts";

type Json = Record<string, unknown>;

const FOLDER = "test/fixtures/idefics/model";

/** The fixture's model with its config (or another file) changed. */
async function loadChanged(change: (json: Json) => void, file = "config.json") {
  const files = new Map(
    readdirSync(FOLDER).map((name) => [name, readFileSync(`${FOLDER}/${name}`) as Uint8Array]),
  );
  const json = JSON.parse(readFileSync(`${FOLDER}/${file}`, "utf8"));
  change(json);
  files.set(file, utf8(JSON.stringify(json)));
  return await loadModel(memoryFolder(files, "idefics"), { device: await testDevice() });
}

const PROMPT = "Q: what color is the sky?";

describe("a config field that would change the numbers is refused by name", () => {
  test.each<[string, Json, RegExp]>([
    [
      "tied embeddings",
      { tie_word_embeddings: true },
      /tie_word_embeddings true is not supported; expected false/,
    ],
    ["no resampler", { use_resampler: false }, /use_resampler false is not supported; expected true/],
    ["heads of another size", { head_dim: 8 }, /expected head_dim to be .* 12, found 8/],
    [
      "layers that no block stands in front of",
      { cross_layer_interval: 3 },
      /multiple of cross_layer_interval \(3\), found 4/,
    ],
    ["an unknown gate", { alpha_type: "matrix" }, /alpha_type "float" or "vector", found "matrix"/],
    ["a gate of another size", { alpha_type: "vector" }, /alpha_cross_attn is \[1\] instead of \[1, 1, 48\]/],
    ["norms that are missing", { qk_layer_norms: false }, /q_layer_norm/],
    [
      "two widths of the tower",
      { vision_config: { embed_dim: 32, hidden_size: 64 } },
      /hidden_size 64 is not supported beside an embed_dim of 32/,
    ],
    [
      "fewer additional tokens",
      { additional_vocab_size: 1 },
      /additional_embedding.weight is \[2, 48\] instead of \[1, 48\]/,
    ],
    ["attention to later tokens", { is_causal: false }, /is_causal/],
  ])("%s", async (_, fields, message) => {
    const attempt = loadChanged((json) => Object.assign(json, fields));
    await expect(attempt).rejects.toThrow(CheckpointError);
    await expect(attempt).rejects.toThrow(message);
  });

  test("a tokenizer without the image token", async () => {
    const attempt = loadChanged((json) => {
      const tokens = json["added_tokens"] as { content: string }[];
      tokens.find(({ content }) => content === "<image>")!.content = "<picture>";
    }, "tokenizer.json");
    await expect(attempt).rejects.toThrow(/the tokenizer beside it has no token <image>/);
  });
});

test("fields that the class does not read change nothing; those that it lacks have its defaults", async () => {
  const plain = await fixtureModel("idefics");
  const logits = async (model: typeof plain) =>
    (await readAll({ logits: model.run(model.prompt(PROMPT)).logits })).logits;
  const expected = await logits(plain);
  using same = await loadChanged((json) => {
    Object.assign(json, {
      num_key_value_heads: 2,
      attention_bias: true,
      sliding_window: 3,
      freeze_lm_head: true,
    });
    delete json["hidden_act"];
    delete (json["vision_config"] as Json)["model_type"];
  });
  expect(await logits(same)).toEqual(expected);
  using other = await loadChanged((json) => Object.assign(json, { rope_theta: 500 }));
  expect(await logits(other)).not.toEqual(expected);
});

test("image_size of a preprocessor stands above its size", async () => {
  using model = await loadChanged((json) => {
    json["size"] = { height: 30, width: 30 };
  }, "preprocessor_config.json");
  expect(model.config.vision!.processor.resize!.to).toEqual({ height: 28, width: 28 });
});

describe("prompts are written as by the processor", () => {
  const FAKE = 431;
  const IMAGE = 432;

  test("text around pictures loses the blanks at its ends, and pictures side by side share a token", async () => {
    const model = await fixtureModel("idefics");
    const photo = await loadImage("test/fixtures/images/photo.png");
    const ids = (...parts: Parameters<typeof model.prompt>[0] & unknown[]) => model.prompt(parts).ids;
    const around = ids("Q:", photo, "A:");
    expect(ids(" Q:  ", photo, "  A: ")).toEqual(around);
    expect(ids("Q:\n", photo, "A:")).not.toEqual(around);
    expect(model.prompt(PROMPT).ids).toEqual(model.prompt(`  ${PROMPT} `).ids);
    const special = (list: readonly number[]) => list.filter((id) => id === 1 || id >= FAKE);
    expect(special(around)).toEqual([1, FAKE, IMAGE, FAKE]);
    const shared = [1, FAKE, IMAGE, FAKE, IMAGE, FAKE];
    expect(special(ids("Q:", photo, photo, "A:"))).toEqual(shared);
    expect(special(ids(photo, "  ", photo))).toEqual(shared);
    expect(special(ids(photo, "A", photo))).toEqual([1, FAKE, IMAGE, FAKE, FAKE, IMAGE, FAKE]);
    expect(special(model.prompt(["Q:", photo], { bos: false }).ids)).toEqual([FAKE, IMAGE, FAKE]);
  });

  test("named pieces lose their blanks with the text; one of nothing else is refused", async () => {
    const model = await fixtureModel("idefics");
    const photo = await loadImage("test/fixtures/images/photo.png");
    const named = model.prompt([{ text: " sky ", name: "x" }, photo, { text: " red", name: "y" }, " and"]);
    const { x, y, image } = named.spans;
    expect([x!.end, image!.end - image!.start]).toEqual([image!.start - 1, 1]);
    const piece = ({ start, end }: { start: number; end: number }) => named.tokens.slice(start, end).join("");
    expect(piece(x!)).toMatch(/^▁?sky$/);
    expect(piece(y!)).toMatch(/^▁?red$/);
    expect(() => model.prompt(["a", { text: "  ", name: "z" }, photo])).toThrow(PromptError);
    expect(() => model.prompt(["a", { text: "  ", name: "z" }, photo])).toThrow(/span "z", found blanks/);
  });
});
