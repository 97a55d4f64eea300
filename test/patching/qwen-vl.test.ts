import { beforeAll, describe, expect, test } from "vitest";
import { ImageError, PromptError } from "../../src/errors.ts";
import { loadImage } from "../../src/images/files/load.ts";
import type { RgbImage } from "../../src/images/files/rgb.ts";
import { memoryFolder } from "../../src/model/checkpoint/source/folder.ts";
import { llavaImageRules } from "../../src/model/families/pictures/llava.ts";
import { qwen25Vl } from "../../src/model/families/pictures/qwen2-5-vl.ts";
import { qwen2Vl } from "../../src/model/families/pictures/qwen2-vl.ts";
import { promptCoordinates } from "../../src/model/layers/rope/picture-rope.ts";
import { promptFromIds } from "../../src/model/prompt/build-prompt.ts";
import { chatPrompt } from "../../src/model/prompt/chat-template.ts";
import { type Prompt, patchRow } from "../../src/model/prompt/prompt.ts";
import type { PromptImage } from "../../src/model/prompt/prompt-image.ts";
import type { SiteName } from "../../src/model/walk/sites.ts";
import { addVector, type Edit, scale, set, zero } from "../../src/patching/edit.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import { resume } from "../../src/patching/resume.ts";
import { tap } from "../../src/patching/tap.ts";
import { fixtureFiles, tensorsOf, withTensors } from "../helpers/checkpoints.ts";
import { expectClose, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel } from "../helpers/model.ts";
import { changeJson } from "../helpers/nano.ts";

// Qwen2-VL and Qwen2.5-VL: pictures of unequal sizes, and positions that follow from them.

const TOLERANCE = { atol: 1e-4, rtol: 1e-4 };
/** Widths of the tower and of the language model. */
const [TOWER, WIDTH] = [32, 64];

let photo: RgbImage;
let tall: RgbImage;
beforeAll(async () => {
  photo = await loadImage("test/fixtures/images/photo.png");
  tall = await loadImage("test/fixtures/images/tall.png");
});

const distance = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Math.max(...Array.from(a, (x, i) => Math.abs(x - b[i]!)));

describe.each(["qwen2_vl", "qwen2_5_vl"])("%s", (name) => {
  let model: PatchableModel;
  let one: Prompt<PromptImage>;
  let two: Prompt<PromptImage>;
  beforeAll(async () => {
    model = await fixtureModel(name);
    one = model.prompt(["What is ", photo, "? A:"]);
    two = model.prompt(["Q:", tall, " and ", photo, " A:"]);
  });

  const logitsOf = async (prompt: Prompt, edits: readonly Edit[] = []) =>
    (await model.run(prompt, { edits }).logits!.read()) as Float32Array;
  const read = async (prompt: Prompt, site: SiteName, image?: number, edits: readonly Edit[] = []) =>
    (await model.run(prompt, { taps: { x: tap(site, "all", { image }) }, edits }).x.read()) as Float32Array;

  test("each picture has as many rows and places as its size gives", () => {
    expect(one.span("image").grid).toEqual({ rows: 2, columns: 3 });
    const { grid, start } = two.span("image");
    expect(grid).toEqual({ rows: 4, columns: 2 });
    expect(patchRow(two.span("image"), 3)).toEqual({ start: start + 6, end: start + 8 });
    for (const [image, tokens] of [8, 6].entries()) {
      const at = (site: SiteName) => model.run(two, { taps: { x: tap(site, "all", { image }) } }).x.shape;
      expect(at("vision.embed")).toEqual([4 * tokens, TOWER]);
      expect(at("vision.pattern.1")).toEqual([2, 4 * tokens, 4 * tokens]);
      expect(at("projector")).toEqual([tokens, WIDTH]);
    }
    expect(() => model.run(two, { taps: { x: tap("projector", 6, { image: 1 }) } })).toThrow(PromptError);
  });

  test("each of two pictures is the one that it is alone, and takes the places of its span", async () => {
    for (const site of ["vision.resid_post.2", "projector"] as const) {
      expectClose(await read(two, site, 1), await read(one, site), TOLERANCE);
    }
    const { start, end } = two.span("image2");
    const { rows } = model.run(two, { taps: { rows: tap("embed", { start, end }) } });
    expectClose((await rows.read()) as Float32Array, await read(two, "projector", 1), TOLERANCE);
  });

  test("a batch gives what its prompts give alone", async () => {
    const prompts = [two, model.prompt("What is it?"), one];
    const { logits } = model.run(prompts);
    const together = (await (
      logits as typeof logits & { read(): Promise<Float32Array> }
    ).read()) as Float32Array;
    const vocab = together.length / prompts.length;
    for (const [i, prompt] of prompts.entries()) {
      expectClose(together.subarray(i * vocab, (i + 1) * vocab), await logitsOf(prompt), TOLERANCE);
    }
    expect(distance(await logitsOf(one), await logitsOf(two))).toBeGreaterThan(1e-2);
  });

  test("generation with a cache is recomputation, several prompts at once too", async () => {
    const answers = await model.generate([two, one], { maxNewTokens: 4, stopIds: [] });
    for (const [i, prompt] of [two, one].entries()) {
      const ids = [...answers[i]!.ids];
      for (let step = 0; step < 4; step++) {
        const longer = model.promptFromIds([...prompt.ids, ...ids.slice(0, step)], prompt.images);
        const logits = await logitsOf(longer);
        expect(logits.indexOf(Math.max(...logits))).toBe(ids[step]);
      }
    }
  });

  test("resumed runs equal full ones, in the tower, the projector and the language model", async () => {
    using recording = model.record([one, two]);
    const { start } = one.span("image");
    const second = two.span("image2").start;
    const variants = [
      { prompt: 0, edits: [zero("vision.embed", 4)] },
      {
        prompt: 1,
        edits: [addVector("vision.resid_post.0", { start: 3, end: 7 }, randomArray(TOWER, 5), { image: 1 })],
      },
      { prompt: 1, edits: [scale("vision.z.1", "all", 0, { head: 1, image: 0 })] },
      { prompt: 0, edits: [set("vision.resid_mid.2", 9, randomArray(TOWER, 6))] },
      { prompt: 1, edits: [zero("projector", "all", { image: 1 })] },
      { prompt: 0, edits: [addVector("embed", start + 1, randomArray(WIDTH, 7))] },
      { prompt: 1, edits: [zero("resid_post.0", second + 2)] },
      { prompt: 0, edits: [zero("vision.mlp_out.1", 2), addVector("q.2", -1, randomArray(WIDTH, 8, 3))] },
      { prompt: 1, edits: [addVector("k.1", second - 1, randomArray(16, 9, 3))] },
    ];
    const { logits, rowLayers } = resume(recording, variants);
    const found = (await logits.read()) as Float32Array;
    const vocab = logits.dim(1);
    for (const [i, { prompt, edits }] of variants.entries()) {
      const input = [one, two][prompt]!;
      const full = await logitsOf(input, edits);
      expectClose(found.subarray(i * vocab, (i + 1) * vocab), full, { ...TOLERANCE, label: `variant ${i}` });
      expect(distance(full, await logitsOf(input)), `variant ${i}`).toBeGreaterThan(1e-3);
    }
    expect(rowLayers).toBeLessThan(variants.reduce((sum, v) => sum + 3 * [one, two][v.prompt]!.length, 0));
  });

  test("generations at the same time share steps and give what each gives alone", async () => {
    const options = { maxNewTokens: 3, stopIds: [] };
    const alone = [await model.generate(one, options), await model.generate(two, options)];
    const shared = await Promise.all([model.generate(one, options), model.generate(two, options)]);
    expect(shared.map(({ ids }) => ids)).toEqual(alone.map(({ ids }) => ids));
  });

  test("a picture's places that do not follow each other are refused", () => {
    const { start } = one.span("image");
    const ids = [...one.ids];
    ids.splice(start + 2, 0, 20);
    const message = /6 <\|image_pad\|> tokens of image 0 one after the other/;
    expect(() => model.promptFromIds(ids, one.images)).toThrow(message);
    const made = promptFromIds(model.tokenizer, ids, { images: one.images });
    expect(() => model.run(made)).toThrow(message);
    expect(() => model.record(made)).toThrow(message);
  });

  test("a video's token is refused", () => {
    expect(() => model.promptFromIds([20, 322, 21])).toThrow(/without videos, found <\|video_pad\|>/);
  });

  test("pictures that do not fill blocks of patches are refused", () => {
    const values = { shape: [3, 56, 30] as const, data: new Float32Array(3 * 56 * 30) };
    expect(() => model.prompt(["Q:", values])).toThrow(ImageError);
    expect(() => model.prompt(["Q:", values])).toThrow(/multiples of 28 pixels .* found 30 x 56/);
    const line = { width: 900, height: 2, data: new Uint8Array(3 * 900 * 2) };
    expect(() => model.prompt(["Q:", line])).toThrow(/200 times .* found 900 x 2/);
  });

  test.each([
    [{ patch_size: 7 }, /whose patch_size is the tower's patch_size, 14, found 7/],
    [{ merge_size: 1 }, /whose merge_size is the tower's spatial_merge_size, 2, found 1/],
    [{ temporal_patch_size: 1 }, /temporal_patch_size, 2, found 1/],
    [{ image_processor_type: "CLIPImageProcessor", size: 56 }, /of class Qwen2VLImageProcessor/],
  ])("a processor with %o is refused", async (change, message) => {
    const files = fixtureFiles(name);
    changeJson(files, "preprocessor_config.json", change);
    await expect(loadModel(memoryFolder(files), { device: await testDevice() })).rejects.toThrow(message);
  });

  test("the names and the nested or flat configs of all versions are one model", async () => {
    const files = fixtureFiles(name);
    const config = JSON.parse(new TextDecoder().decode(files.get("config.json")));
    const { rope_parameters: rope, model_type: _, ...text } = config.text_config;
    const published = {
      ...text,
      text_config: null,
      rope_theta: rope.rope_theta,
      rope_scaling: { type: "mrope", mrope_section: rope.mrope_section },
      vision_config: { ...config.vision_config, model_type: name, rope_parameters: null },
      tie_word_embeddings: config.tie_word_embeddings,
    };
    const tensors = [...(await tensorsOf(files)).values()].map((tensor) => ({
      ...tensor,
      name: tensor.name.replace(/^model\./, "model.language_model.").replace(/^visual\./, "model.visual."),
      data: async function* () {
        yield tensor.data;
      },
    }));
    const expected = await logitsOf(two);
    const device = await testDevice();
    for (const changed of [await withTensors(files, tensors), await withTensors(files, tensors, published)]) {
      using other = await loadModel(memoryFolder(changed), { device });
      expect([...((await other.run(two).logits!.read()) as Float32Array)]).toEqual([...expected]);
    }
  });

  test("a chat by the published template holds its pictures in order", () => {
    const template =
      "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}" +
      "{% if content['type'] == 'image' or 'image' in content %}<|vision_start|><|image_pad|><|vision_end|>" +
      "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}" +
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    const image = (picture: RgbImage) => ({ type: "image" as const, image: picture as PromptImage });
    const content = [image(tall), image(photo), { type: "text" as const, text: "Which?" }];
    const rules = { imageRules: llavaImageRules(model.config.vision!) };
    const chat = chatPrompt({ default: template }, model.tokenizer, [{ role: "user", content }], rules);
    const vision = "<|vision_start|><|image_pad|><|vision_end|>";
    expect(chat.text).toBe(`<|im_start|>user\n${vision}${vision}Which?<|im_end|>\n<|im_start|>assistant\n`);
    expect(chat.images).toEqual([tall, photo]);
    expect(chat.span("image").grid).toEqual({ rows: 4, columns: 2 });
    expect(chat.span("image2").grid).toEqual({ rows: 2, columns: 3 });
    expect(chat.ids).toEqual(model.prompt(chat.text, { images: [tall, photo] }).ids);
  });
});

test("text counts on, a picture's rows and columns count from where it starts, and text goes on behind the farther", async () => {
  const model = await fixtureModel("qwen2_vl");
  const prompt = model.promptFromIds(
    [20, 21, ...Array(6).fill(321), 22, ...Array(8).fill(321), 23],
    [photo, tall],
  );
  const { axes, next } = promptCoordinates(prompt, model.config.vision!);
  expect(axes.map((axis) => [...axis])).toEqual([
    [0, 1, 2, 2, 2, 2, 2, 2, 5, 6, 6, 6, 6, 6, 6, 6, 6, 10],
    [0, 1, 2, 2, 2, 3, 3, 3, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10],
    [0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 7, 6, 7, 6, 7, 6, 7, 10],
  ]);
  expect(next).toBe(11);
});

test("Qwen2.5-VL's blocks attend within windows, but for those that its config names", async () => {
  const model = await fixtureModel("qwen2_5_vl");
  const prompt = model.prompt([tall]); // 4 by 2 features: two windows of 2 by 2, 16 patches each
  const rowsChanged = async (site: SiteName, at: number) => {
    const taps = { x: tap(site) };
    const plain = (await model.run(prompt, { taps }).x.read()) as Float32Array;
    const edits = [zero("vision.embed", at)];
    const edited = (await model.run(prompt, { taps, edits }).x.read()) as Float32Array;
    return Array.from({ length: 32 }, (_, row) => row).filter(
      (row) =>
        distance(
          plain.subarray(row * TOWER, (row + 1) * TOWER),
          edited.subarray(row * TOWER, (row + 1) * TOWER),
        ) > 0,
    );
  };
  // Equal scores are spread over the window, and nowhere else.
  const edits = [scale("vision.scores.0", "all", 0)];
  const { pattern } = model.run(prompt, { taps: { pattern: tap("vision.pattern.0") }, edits });
  const weights = (await pattern.read()) as Float32Array;
  for (const [i, weight] of weights.entries()) {
    const [row, column] = [Math.floor(i / 32) % 32, i % 32];
    expect(weight).toBe(Math.floor(row / 16) === Math.floor(column / 16) ? 1 / 16 : 0);
  }

  const window = (start: number) => Array.from({ length: 16 }, (_, i) => start + i);
  expect(await rowsChanged("vision.resid_post.0", 3)).toEqual(window(0));
  expect(await rowsChanged("vision.resid_post.0", 20)).toEqual(window(16));
  expect(await rowsChanged("vision.resid_post.1", 3)).toEqual([...window(0), ...window(16)]);
});

test("configs as sparse as the published ones are read with the classes' defaults", () => {
  const text = {
    ...{ hidden_size: 1536, intermediate_size: 8960, num_hidden_layers: 28, num_attention_heads: 12 },
    ...{ num_key_value_heads: 2, max_position_embeddings: 32768, rms_norm_eps: 1e-6, vocab_size: 151936 },
    ...{ sliding_window: 32768, use_sliding_window: false, max_window_layers: 28, tie_word_embeddings: true },
    ...{ rope_theta: 1000000, rope_scaling: { type: "mrope", mrope_section: [16, 24, 24] } },
  };
  const tower = { patch_size: 14, spatial_merge_size: 2, spatial_patch_size: 14, temporal_patch_size: 2 };
  const preprocessor = {
    ...{ min_pixels: 3136, max_pixels: 12845056, patch_size: 14, temporal_patch_size: 2, merge_size: 2 },
    ...{ image_processor_type: "Qwen2VLImageProcessor", processor_class: "Qwen2VLProcessor" },
  };
  const files = { preprocessor, tokenOf: (id: number) => `<${id}>`, idOf: () => undefined, eosId: undefined };
  const first = qwen2Vl.readConfig(
    { ...text, model_type: "qwen2_vl", vision_config: { ...tower, in_chans: 3, hidden_size: 1536 } },
    "config.json",
    files,
  );
  const windowed = { ...tower, in_chans: 3, hidden_size: 1280, out_hidden_size: 1536, tokens_per_second: 2 };
  const second = qwen25Vl.readConfig(
    { ...text, model_type: "qwen2_5_vl", vision_config: windowed },
    "config.json",
    files,
  );
  const picture = { width: 230, height: 460, data: new Uint8Array(3 * 230 * 460) };
  for (const config of [first, second]) {
    expect(config).toMatchObject({
      tied: true,
      axes: [16, 24, 24].flatMap((count, axis) => Array(count).fill(axis)),
      rope: { theta: 1000000 },
      headDim: 128,
    });
    expect(config.window).toBeUndefined();
    const { vision } = config;
    expect(vision).toMatchObject({ imageTokenId: 151655, imageToken: "<151655>", featureLayer: 32 });
    expect(vision.tower).toMatchObject({ layers: 32, width: 1280, heads: 16, theta: 10000 });
    expect(vision.layout(picture)).toMatchObject({
      towerRows: 512,
      tokens: 128,
      grid: { rows: 16, columns: 8 },
    });
  }
  expect(first.vision.tower).toMatchObject({ mlpWidth: 5120, activation: "quick_gelu" });
  expect(second.vision.tower).toMatchObject({ mlpWidth: 3420, activation: "silu" });
  expect(second.fullBlocks).toEqual([7, 15, 23, 31]);
  // Windows of 112 pixels are 4 by 4 features; the second begins in the fifth column.
  expect(second.windowsOf(picture).order.slice(0, 17)).toEqual(
    [0, 1, 2, 3].flatMap((row) => [0, 1, 2, 3].map((column) => row * 8 + column)).concat(4),
  );
});
