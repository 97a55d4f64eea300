import { readFile } from "node:fs/promises";
import { beforeAll, describe, expect, test } from "vitest";
import { CheckpointError, PromptError, SiteError } from "../../src/errors.ts";
import { decodeImage } from "../../src/images/files/decode.ts";
import type { RgbImage } from "../../src/images/files/rgb.ts";
import { type PixelValues, preprocess } from "../../src/images/preprocess.ts";
import { memoryFolder } from "../../src/model/checkpoint/source/folder.ts";
import {
  contrastiveLoss,
  loadDualEncoder,
  type PatchableDualEncoder,
} from "../../src/patching/dual-encoder.ts";
import { addVector, type Edit, set, zero } from "../../src/patching/edit.ts";
import { tap } from "../../src/patching/tap.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { utf8 } from "../helpers/bytes.ts";
import { fixtureFiles, tensorsOf, withTensors } from "../helpers/checkpoints.ts";
import { expectClose, largest, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { changeJson, type Files, randomTensors } from "../helpers/nano.ts";
import { expectSlope } from "../helpers/slopes.ts";

// That the numbers are those of transformers is the business of parity.test.ts.
describe.each(["clip", "siglip", "siglip2"])("%s", (kind) => {
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

  test("gradients are slopes: of activations of both towers, and of pixel values", async () => {
    const texts = ["a dog", "two cats"];
    const pictures = images.map((image) => preprocess(image, model.processor));
    const sites = ["vision.embed", "vision.resid_post.0", "vision.attn_out.1", "embed", "mlp_out.1"] as const;
    const { gradients, pixels } = model.gradients({ texts, images: pictures }, contrastiveLoss, {
      of: sites,
      pixels: true,
    });
    const lossOf = async (seen: readonly PixelValues[], edits: { images?: Edit[]; texts?: Edit[] } = {}) => {
      const image = model.images(seen, { edits: edits.images });
      const text = model.texts(texts, { edits: edits.texts });
      const similarity = model.similarity(image.embeds, text.embeds);
      return (await contrastiveLoss({ similarity }).read())[0]!;
    };
    const step = 1e-2;
    for (const [i, site] of sites.entries()) {
      const own = (await (gradients[site] as readonly Tensor[])[1]!.read()) as Float32Array;
      const direction = randomArray(32, 30 + i, 4);
      const slope = own.reduce((sum, x, j) => sum + x * direction[j % 32]!, 0);
      const at = (h: number) => {
        const along = direction.map((x) => x * h);
        const edits = [addVector(site, "all", along, { prompt: 1 })];
        return lossOf(pictures, site.startsWith("vision.") ? { images: edits } : { texts: edits });
      };
      expectSlope(await at(step), await at(-step), slope, step, site);
    }
    const all = (await pixels!.read()) as Float32Array;
    const slope = all.reduce((sum, x) => sum + x, 0);
    const brighter = (h: number) =>
      lossOf(pictures.map((each) => ({ ...each, data: each.data.map((x) => x + h) })));
    expectSlope(await brighter(step), await brighter(-step), slope, step, "pixels");
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

describe("SigLIP 2's pictures of any size", () => {
  let model: PatchableDualEncoder;
  let images: RgbImage[];
  beforeAll(async () => {
    model = await loadDualEncoder("test/fixtures/siglip2/model", { device: await testDevice() });
    const files = ["photo.png", "tall.png"].map((name) => readFile(`test/fixtures/images/${name}`));
    images = await Promise.all(files.map(async (file) => decodeImage(await file)));
    return () => model.dispose();
  });

  test("each has as many rows as its patches, and sees itself only", async () => {
    const grids = images.map((image) => model.layout(image).grid);
    expect(grids).toEqual([
      { rows: 4, columns: 6 },
      { rows: 8, columns: 3 },
    ]);
    const taps = { x: tap("vision.embed", "all"), pattern: tap("vision.pattern.1") };
    const { x, pattern } = model.images(images, { taps });
    expect(x.map((rows) => rows.shape)).toEqual([24, 24].map((rows) => [rows, 32]));
    expect(pattern.map((each) => each.shape)).toEqual([24, 24].map((rows) => [4, rows, rows]));
    const small = { ...images[0]!, width: 4, height: 3, data: images[0]!.data.slice(0, 36) };
    expect(model.layout(small).grid).toEqual({ rows: 4, columns: 6 }); // enlarged
    const line = { width: 900, height: 2, data: new Uint8Array(3 * 900 * 2) };
    expect(model.layout(line).grid).toEqual({ rows: 1, columns: 24 });
  });

  test("pixel values of one's own have to fill patches", () => {
    const values = { shape: [3, 16, 20] as const, data: new Float32Array(3 * 16 * 20) };
    expect(() => model.images([values])).toThrow(/multiples of 8 pixels .* found 20 x 16/);
    const fits = { shape: [3, 16, 24] as const, data: new Float32Array(3 * 16 * 24) };
    expect(model.layout(fits)).toMatchObject({ towerRows: 6, grid: { rows: 2, columns: 3 } });
  });

  test("texts are put into lower case, as its tokenizer in transformers does whatever the file says", async () => {
    const files = fixtureFiles("siglip2");
    const json = JSON.parse(new TextDecoder().decode(files.get("tokenizer.json")));
    json.normalizer.normalizers = json.normalizer.normalizers.filter(
      ({ type }: { type: string }) => type !== "Lowercase",
    );
    files.set("tokenizer.json", utf8(JSON.stringify(json)));
    using other = await loadDualEncoder(memoryFolder(files), { device: await testDevice() });
    expect(other.prompt("Two CATS, ΟΔΟΣ").ids).toEqual(model.prompt("two cats, οδοσ").ids);
    expect(model.prompt("Two CATS").ids).toEqual(model.prompt("two cats").ids);
  });

  test("gradients are slopes: of activations, positions and pixel values", async () => {
    const texts = ["a dog", "two cats"];
    const options = {
      of: ["vision.resid_post.0", "vision.embed"] as const,
      weights: [
        "vision_model.embeddings.position_embedding.weight",
        "vision_model.embeddings.patch_embedding.bias",
      ],
      pixels: true,
    };
    const { gradients, weights, pixels } = model.gradients({ texts, images }, contrastiveLoss, options);
    const lossOf = async (edits: Edit[]) => {
      const image = model.images(images, { edits });
      const text = model.texts(texts);
      const similarity = model.similarity(image.embeds, text.embeds);
      return (await contrastiveLoss({ similarity }).read())[0]!;
    };
    for (const site of options.of) {
      const [first] = gradients[site] as readonly Tensor[];
      const own = (await first!.read()) as Float32Array;
      const direction = randomArray(32, 3, 5);
      const expected = own.reduce((sum, x, i) => sum + x * direction[i % 32]!, 0);
      const at = async (h: number) =>
        await lossOf([
          addVector(
            site,
            "all",
            direction.map((x) => x * h),
            { prompt: 0 },
          ),
        ]);
      const slope = ((await at(0.02)) - (await at(-0.02))) / 0.04;
      expect(Math.abs(slope - expected), site).toBeLessThan(2e-2 * Math.abs(expected) + 1e-4);
      expect(Math.abs(expected), site).toBeGreaterThan(1e-3);
    }
    // What all patches get is the bias of each.
    const embeds = await Promise.all(
      (gradients["vision.embed"] as readonly Tensor[]).map((each) => each.read() as Promise<Float32Array>),
    );
    const bias = (await weights[options.weights[1]!]!.read()) as Float32Array;
    const sums = bias.map((_, j) =>
      embeds.reduce((all, each) => each.reduce((sum, x, i) => (i % 32 === j ? sum + x : sum), all), 0),
    );
    expectClose(bias, sums, { atol: 1e-5, rtol: 1e-3 });
    // Positions are resampled with weights that are 1 together: each picture's patches share its whole gradient out.
    const table = (await weights[options.weights[0]!]!.read()) as Float32Array;
    const columns = bias.map((_, j) => table.reduce((sum, x, i) => (i % 32 === j ? sum + x : sum), 0));
    expectClose(columns, sums, { atol: 1e-5, rtol: 1e-3 });
    expect(pixels!.shape).toEqual([48, 192]);
  });

  test.each([
    ["config.json", { vision_config: { num_patches: 15 } }, /num_patches to be a square, found 15/],
    ["config.json", { vision_config: { patch_size: 16 } }, /whose patch_size is the tower's, 16, found 8/],
    ["config.json", { vision_config: { num_channels: 1 } }, /num_channels 1 is not supported/],
    ["config.json", { vision_config: { vision_use_head: false } }, /vision_use_head false is not supported/],
    [
      "preprocessor_config.json",
      { image_processor_type: "SiglipImageProcessor" },
      /one of Siglip2ImageProcessor/,
    ],
    ["preprocessor_config.json", { resample: 9 }, /resample to be one of/],
  ])("%s with %o is refused", async (file, change, message) => {
    const files = fixtureFiles("siglip2");
    changeJson(files, file, change);
    await expect(loadDualEncoder(memoryFolder(files), { device: await testDevice() })).rejects.toThrow(
      message,
    );
  });
});

describe.each(["clip", "siglip", "siglip2"])("LoRA of %s", (name) => {
  const ref = `test/fixtures/${name}/model`;
  const RANK = 2;
  const ALPHA = 3;

  /** An adapter in PEFT's layout of modules of this shape, [out, in]. */
  async function adapterOf(shapes: Readonly<Record<string, readonly [number, number]>>) {
    const factors = Object.entries(shapes).flatMap(([module, [out, width]]) => [
      [`base_model.model.${module}.lora_A.weight`, [RANK, width]],
      [`base_model.model.${module}.lora_B.weight`, [out, RANK]],
    ]);
    const files = new Map([
      ["adapter_model.safetensors", await randomTensors(Object.fromEntries(factors))],
      [
        "adapter_config.json",
        utf8(
          JSON.stringify({
            peft_type: "LORA",
            r: RANK,
            lora_alpha: ALPHA,
            target_modules: Object.keys(shapes),
          }),
        ),
      ],
    ]);
    return { files, folder: memoryFolder(files, "lora") };
  }

  /** The checkpoint with B A added to its weights by hand. */
  async function mergedByHand(adapter: Files): Promise<Files> {
    const tensors = await tensorsOf(fixtureFiles(name));
    const lora = await tensorsOf(new Map([["model.safetensors", adapter.get("adapter_model.safetensors")!]]));
    for (const [key, a] of lora) {
      const module = /^base_model\.model\.(.*)\.lora_A\.weight$/.exec(key)?.[1];
      if (module === undefined) continue;
      const weight = tensors.get(`${module}.weight`)!;
      const [out, width] = weight.shape as [number, number];
      const A = new Float32Array(a.data.buffer); // [rank, in]
      const B = new Float32Array(lora.get(key.replace("lora_A", "lora_B"))!.data.buffer); // [out, rank]
      const merged = Float32Array.from(new Float32Array(weight.data.slice().buffer), (x, i) => {
        const [row, column] = [Math.floor(i / width), i % width];
        const low = Array.from({ length: RANK }, (_, r) => B[row * RANK + r]! * A[r * width + column]!);
        return x + (ALPHA / RANK) * low.reduce((sum, each) => sum + each, 0);
      });
      expect(merged.length).toBe(out * width);
      tensors.set(`${module}.weight`, { ...weight, data: new Uint8Array(merged.buffer) });
    }
    return await withTensors(fixtureFiles(name), tensors.values());
  }

  const embedded = async (model: PatchableDualEncoder) => {
    const picture = await decodeImage(await readFile("test/fixtures/images/photo.png"));
    return await Promise.all([
      model.images([picture]).embeds.read(),
      model.texts(["a photo of a dog"]).embeds.read(),
    ]);
  };

  test("merged, beside the weights and merged by hand give the same, in both towers", async () => {
    const device = await testDevice();
    const square = [32, 32] as const;
    const { files, folder } = await adapterOf({
      "vision_model.encoder.layers.0.mlp.fc1": [64, 32],
      "vision_model.encoder.layers.1.self_attn.q_proj": square,
      "vision_model.encoder.layers.2.self_attn.out_proj": square,
      "text_model.encoder.layers.0.self_attn.v_proj": square,
      "text_model.encoder.layers.1.mlp.fc2": [32, 64],
      ...(name === "clip" ? {} : { "vision_model.head.mlp.fc1": [64, 32], "text_model.head": square }),
    });
    using plain = await loadDualEncoder(ref, { device });
    using merged = await loadDualEncoder(ref, { device, adapters: [folder] });
    using beside = await loadDualEncoder(ref, { device, adapters: [folder], merge: false });
    using byHand = await loadDualEncoder(memoryFolder(await mergedByHand(files)), { device });
    expect([plain.adapters, merged.adapters]).toEqual([[], ["lora"]]);
    const without = await embedded(plain);
    const expected = await embedded(byHand);
    for (const model of [merged, beside]) {
      for (const [i, found] of (await embedded(model)).entries()) {
        expect(largest(found.map((x, j) => x - without[i]![j]!))).toBeGreaterThan(1e-2);
        expectClose(found, expected[i]!, { atol: 2e-6 });
      }
    }
  });

  test("of one tower changes that tower alone", async () => {
    const device = await testDevice();
    const { folder } = await adapterOf({ "vision_model.encoder.layers.0.mlp.fc1": [64, 32] });
    using plain = await loadDualEncoder(ref, { device });
    using adapted = await loadDualEncoder(ref, { device, adapters: [folder] });
    const [before, after] = [await embedded(plain), await embedded(adapted)];
    expect(largest(after[0]!.map((x, i) => x - before[0]![i]!))).toBeGreaterThan(1e-3);
    expect(after[1]).toEqual(before[1]);
  });
});

test("a language model is no dual encoder", async () => {
  const device = await testDevice();
  await expect(loadDualEncoder("test/fixtures/llama/model", { device })).rejects.toThrow(CheckpointError);
});
