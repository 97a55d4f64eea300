import { readFile } from "node:fs/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { CheckpointError, PromptError, SiteError } from "../../src/errors.ts";
import { decodeImage } from "../../src/images/decode.ts";
import type { RgbImage } from "../../src/images/rgb.ts";
import { memoryFolder } from "../../src/model/checkpoint/source/folder.ts";
import { loadDualEncoder, type PatchableDualEncoder } from "../../src/patching/dual-encoder.ts";
import { set, zero } from "../../src/patching/edit.ts";
import { tap } from "../../src/patching/tap.ts";
import { utf8 } from "../helpers/bytes.ts";
import { expectClose } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { randomTensors } from "../helpers/nano.ts";

// That the numbers are those of transformers is the business of parity.test.ts.
describe.each(["clip", "siglip"])("%s", (kind) => {
  let model: PatchableDualEncoder;
  let images: RgbImage[];
  beforeAll(async () => {
    model = await loadDualEncoder(`test/fixtures/${kind}/model`, { device: await testDevice() });
    const files = ["photo.png", "gray.png"].map((name) => readFile(`test/fixtures/images/${name}`));
    images = await Promise.all(files.map(async (file) => decodeImage(await file)));
    return () => model.dispose();
  });

  test("embeddings have unit length, and a batch gives what its members give alone", async () => {
    const texts = ["a photo of a dog", "two cats"];
    const together = await model.texts(texts).embeds.read();
    const width = model.config.embeddingWidth;
    for (const [i, text] of texts.entries()) {
      const row = together.slice(i * width, (i + 1) * width);
      expectClose([Math.hypot(...row)], [1], { label: "length" });
      expectClose(row, await model.texts([text]).embeds.read(), { atol: 1e-6 });
    }
    const both = await model.images(images).embeds.read();
    expectClose(both.slice(width), await model.images([images[1]!]).embeds.read(), { atol: 1e-6 });
  });

  test("similarity is [images, texts]", async () => {
    const logits = model.similarity(model.images(images).embeds, model.texts(["a", "b", "c"]).embeds);
    expect(logits.shape).toEqual([2, 3]);
    const [first] = await model
      .similarity(model.images([images[1]!]).embeds, model.texts(["c"]).embeds)
      .read();
    expectClose([(await logits.read())[5]!], [first!], { atol: 1e-4 });
  });

  test("an edit with the tapped value changes nothing, another one changes the embedding", async () => {
    const plain = model.images(images, { taps: { rows: tap("vision.resid_mid.1", "all") } });
    const rows = plain.rows[0]!;
    const same = model.images([images[0]!], { edits: [set("vision.resid_mid.1", "all", rows)] });
    const width = model.config.embeddingWidth;
    const expected = (await plain.embeds.read()).slice(0, width);
    expectClose(await same.embeds.read(), expected, { atol: 1e-6 });
    const changed = model.images([images[0]!], { edits: [zero("vision.resid_mid.1", [0, 3])] });
    expect(await changed.embeds.read()).not.toEqual(await same.embeds.read());
  });

  test("sites of the text tower have plain names; edits reach single texts", async () => {
    const plain = model.texts(["a dog", "a cat"], { taps: { x: tap("resid_post.2", -1) } });
    expect(plain.x.shape).toEqual([2, model.config.text.width]);
    const edits = [zero("resid_post.0", "all", { prompt: 1 })];
    const changed = await model.texts(["a dog", "a cat"], { edits }).embeds.read();
    const before = await plain.embeds.read();
    const width = model.config.embeddingWidth;
    expectClose(changed.slice(0, width), before.slice(0, width), { atol: 1e-6 });
    expect(changed.slice(width)).not.toEqual(before.slice(width));
  });

  test("what cannot be is refused", async () => {
    expect(() => model.images([])).toThrow(PromptError);
    expect(() => model.texts(["a"], { taps: { x: tap("logits", -1) } })).toThrow(SiteError);
    expect(() => model.images(images, { taps: { x: tap("projector", 0) } })).toThrow(SiteError);
    expect(() => model.images(images, { taps: { x: tap("vision.q.0", 99) } })).toThrow(PromptError);
    // A tap at the other tower would never fire.
    expect(() => model.texts(["a"], { taps: { x: tap("vision.q.0", 0) } })).toThrow(SiteError);
  });

  test("a text longer than the context is cut, the end token kept", () => {
    const { context } = model.config.text;
    const eosTokenId = model.tokenizer.eosId;
    const prompt = model.prompt("many words ".repeat(50));
    expect(prompt.length).toBe(context);
    expect(prompt.ids.at(-1)).toBe(eosTokenId);
  });
});

test("a LoRA of one tower changes that tower, merged or beside its weights alike", async () => {
  const device = await testDevice();
  const key = "base_model.model.vision_model.encoder.layers.0.mlp.fc1";
  const weights = await randomTensors({
    [`${key}.lora_A.weight`]: [2, 32],
    [`${key}.lora_B.weight`]: [64, 2],
  });
  const config = utf8('{"peft_type": "LORA", "r": 2, "lora_alpha": 1, "target_modules": ["fc1"]}');
  const files = new Map([
    ["adapter_config.json", config],
    ["adapter_model.safetensors", weights],
  ]);
  const adapters = [memoryFolder(files, "lora")];
  const ref = "test/fixtures/clip/model";
  const picture = await decodeImage(await readFile("test/fixtures/images/photo.png"));
  using plain = await loadDualEncoder(ref, { device });
  using merged = await loadDualEncoder(ref, { device, adapters });
  using beside = await loadDualEncoder(ref, { device, adapters, merge: false });
  const images = [plain, merged, beside].map((model) => model.images([picture]).embeds.read());
  const [before, after, same] = await Promise.all(images);
  expect(Math.max(...after!.map((x, i) => Math.abs(x - before![i]!)))).toBeGreaterThan(1e-3);
  expectClose(same!, after!, { atol: 1e-6 });
  const [a, b] = await Promise.all([plain, merged].map((model) => model.texts(["a dog"]).embeds.read()));
  expect(a).toEqual(b);
  expect([plain.adapters, merged.adapters]).toEqual([[], ["lora"]]);
});

test("a language model is no dual encoder", async () => {
  const device = await testDevice();
  await expect(loadDualEncoder("test/fixtures/llama/model", { device })).rejects.toThrow(CheckpointError);
});
