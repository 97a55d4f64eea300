import { beforeAll, describe, expect, test } from "vitest";
import { SiteError } from "../../src/errors.ts";
import { loadImage } from "../../src/images/files/load.ts";
import type { RgbImage } from "../../src/images/files/rgb.ts";
import { memoryFolder } from "../../src/model/checkpoint/source/folder.ts";
import { llavaImageRules } from "../../src/model/families/pictures/llava.ts";
import { qwen3Vl } from "../../src/model/families/pictures/qwen3-vl.ts";
import { chatPrompt } from "../../src/model/prompt/chat-template.ts";
import { type Prompt, patchColumn, patchRow } from "../../src/model/prompt/prompt.ts";
import type { PromptImage } from "../../src/model/prompt/prompt-image.ts";
import { siteNames } from "../../src/model/walk/site-info.ts";
import type { SiteName } from "../../src/model/walk/sites.ts";
import { addVector, type Edit, scale, set, zero } from "../../src/patching/edit.ts";
import { logitDifference } from "../../src/patching/metric.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import { resume } from "../../src/patching/resume.ts";
import { tap } from "../../src/patching/tap.ts";
import { fixtureFiles, tensorsOf, withTensors } from "../helpers/checkpoints.ts";
import { expectClose, expectSame, largest, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel, readAll } from "../helpers/model.ts";
import { changeJson } from "../helpers/nano.ts";

// Qwen3-VL: features of inner blocks of the tower are added to the stream behind the first layers of the language model.

const [TOWER, WIDTH, LAYERS] = [32, 48, 3];

let model: PatchableModel;
let photo: RgbImage;
let tall: RgbImage;
let one: Prompt<PromptImage>;
let two: Prompt<PromptImage>;
beforeAll(async () => {
  photo = await loadImage("test/fixtures/images/photo.png");
  tall = await loadImage("test/fixtures/images/tall.png");
  model = await fixtureModel("qwen3_vl");
  one = model.prompt(["What is ", photo, "? A:"]);
  two = model.prompt(["Q:", tall, " and ", photo, " A:"]);
});

const logitsOf = async (prompt: Prompt, edits: readonly Edit[] = [], of = model) =>
  (await readAll({ logits: of.run(prompt, { edits }).logits })).logits;
const read = async (prompt: Prompt, site: SiteName, image?: number) =>
  (await model.run(prompt, { taps: { x: tap(site, "all", { image }) } }).x.read()) as Float32Array;
const distance = (a: Float32Array, b: Float32Array) => largest(a.map((x, i) => x - b[i]!));

test("pictures have the places, rows and columns that their size gives", () => {
  const { grid, start } = two.span("image");
  expect(grid).toEqual({ rows: 5, columns: 2 });
  expect(one.span("image").grid).toEqual({ rows: 2, columns: 4 });
  expect(patchRow(two.span("image"), 3)).toEqual({ start: start + 6, end: start + 8 });
  expect(patchColumn(one.span("image"), 1)).toEqual([1, 5].map((i) => one.span("image").start + i));
});

test("deepstack.N is what lies between resid_post.N and resid_pre.N+1, at the pictures' places and nowhere else", async () => {
  for (const layer of [0, 1]) {
    const sum = Float32Array.from(await read(two, `resid_post.${layer}`));
    const before = Float32Array.from(sum);
    for (const [image, name] of ["image", "image2"].entries()) {
      const features = await read(two, `deepstack.${layer}`, image);
      const { start, end } = two.span(name);
      expect(features.length).toBe((end - start) * WIDTH);
      for (const [i, x] of features.entries()) sum[start * WIDTH + i]! += x;
    }
    const after = await read(two, `resid_pre.${layer + 1}`);
    expectClose(after, sum, { atol: 1e-5 });
    expect(distance(after, before)).toBeGreaterThan(0.1);
  }
});

test("sites come by in the order in which they are listed; layers without deepstack, and prompts without pictures, have none", () => {
  const seen: string[] = [];
  for (const { site } of model.walk(one)) if (seen.at(-1) !== site) seen.push(site);
  const ordinary = siteNames(model.sites).filter((site) => !/(scores|pattern)\./.test(site));
  expect(seen.filter((site) => !/(scores|pattern)\./.test(site))).toEqual(ordinary);
  expect(() => model.run(one, { taps: { x: tap("deepstack.2") } })).toThrow(/no deepstack .* added behind/);
  const text = model.prompt("What?");
  expect(() => model.run(text, { taps: { x: tap("deepstack.0") } })).toThrow(SiteError);
  expect(() => model.run(two, { taps: { x: tap("deepstack.0") } })).toThrow(/2 images; name one/);
  // What is added behind a layer is added by the next one.
  expect(() => model.run(one, { taps: { x: tap("deepstack.0") }, stopAfter: 0 })).toThrow(SiteError);
});

describe("resumed runs equal full ones", () => {
  const second = () => two.span("image2").start;
  const variantsOf = () => [
    { prompt: 0, edits: [zero("vision.embed", 4)] },
    { prompt: 1, edits: [addVector("vision.resid_post.0", 3, randomArray(TOWER, 5, 3), { image: 1 })] },
    { prompt: 1, edits: [scale("vision.z.1", "all", 0, { head: 1, image: 0 })] },
    { prompt: 1, edits: [zero("projector", "all", { image: 1 })] },
    { prompt: 0, edits: [addVector("embed", one.span("image").start + 1, randomArray(WIDTH, 7))] },
    { prompt: 1, edits: [zero("deepstack.0", "all", { image: 1 })] },
    { prompt: 0, edits: [set("deepstack.1", [2, 5], randomArray(WIDTH, 8, 4))] },
    { prompt: 1, edits: [zero("resid_post.0", second() + 2)] },
    { prompt: 1, edits: [set("resid_pre.1", second() + 1, randomArray(WIDTH, 9))] },
    { prompt: 0, edits: [addVector("resid_post.1", -1, randomArray(WIDTH, 10))] },
    { prompt: 0, edits: [zero("vision.mlp_out.2", 2), addVector("deepstack.0", 3, randomArray(WIDTH, 11))] },
    { prompt: 1, edits: [addVector("k.2", second() - 1, randomArray(32, 9, 3))] },
  ];

  test("of edits in the tower, of what is added, and in the language model", async () => {
    using recording = model.record([one, two]);
    const variants = variantsOf();
    const { logits, rowLayers } = resume(recording, variants);
    const found = (await logits.read()) as Float32Array;
    const vocab = logits.dim(1);
    for (const [i, { prompt, edits }] of variants.entries()) {
      const input = [one, two][prompt]!;
      const full = await logitsOf(input, edits);
      expectSame(found.subarray(i * vocab, (i + 1) * vocab), full, `variant ${i}`);
      expect(distance(full, await logitsOf(input)), `variant ${i}`).toBeGreaterThan(1e-3);
    }
    expect(rowLayers).toBeLessThan(
      variants.reduce((sum, v) => sum + LAYERS * [one, two][v.prompt]!.length, 0),
    );
  });

  test("behind a recording with edits of its own, in the tower and of what is added", async () => {
    const own = [
      addVector("vision.resid_post.0", 5, randomArray(TOWER, 20), { image: 0, prompt: 1 }),
      scale("deepstack.0", "all", -2, { image: 1, prompt: 1 }),
      addVector("deepstack.1", [0, 3], randomArray(WIDTH, 21), { prompt: 0 }),
    ];
    using recording = model.record([one, two], { edits: own });
    const variants = variantsOf();
    const found = (await resume(recording, variants).logits.read()) as Float32Array;
    const vocab = found.length / variants.length;
    for (const [i, { prompt, edits }] of variants.entries()) {
      const before = own.filter((edit) => edit.prompt === prompt).map((edit) => ({ ...edit, prompt: 0 }));
      const full = await logitsOf([one, two][prompt]!, [...before, ...edits]);
      expectSame(found.subarray(i * vocab, (i + 1) * vocab), full, `variant ${i}`);
    }
  });

  test("an edit of what is added costs the rows from its picture on, from the layer on that adds it", () => {
    using recording = model.record([two]);
    const { rowLayers } = resume(recording, [{ edits: [zero("deepstack.1", "all", { image: 1 })] }]);
    expect(rowLayers).toBe(two.length - second());
    expect(resume(recording, [{ edits: [zero("resid_post.1", -1)] }]).rowLayers).toBe(1);
  });

  test("taps of what is added hold what full runs hold", async () => {
    using recording = model.record([one, two]);
    const edits = [addVector("deepstack.0", 1, randomArray(WIDTH, 30), { image: 1 })];
    const taps = { x: tap("deepstack.0", "all", { image: 1 }) };
    const { x } = resume(recording, [{ prompt: 1, edits }], { taps });
    const full = model.run(two, { taps, edits });
    expectClose((await x[0]!.read()) as Float32Array, (await full.x.read()) as Float32Array);
  });
});

test("generation under edits of what is added is recomputation, several prompts at once too", async () => {
  const edits = [scale("deepstack.0", "all", -3)];
  const answers = await model.generate([two, one], { maxNewTokens: 4, stopIds: [], edits });
  for (const [i, prompt] of [two, one].entries()) {
    const ids = [...answers[i]!.ids];
    for (let step = 0; step < 4; step++) {
      const longer = model.promptFromIds([...prompt.ids, ...ids.slice(0, step)], prompt.images);
      const logits = await logitsOf(longer, edits);
      expect(logits.indexOf(Math.max(...logits))).toBe(ids[step]);
    }
  }
  expect(await logitsOf(two, edits)).not.toEqual(await logitsOf(two));
});

test("generations at the same time share steps and give what each gives alone", async () => {
  const options = { maxNewTokens: 3, stopIds: [] };
  const prompts = [one, two, model.prompt("Q: what?\nA:")];
  const alone = [];
  for (const prompt of prompts) alone.push(await model.generate(prompt, options));
  const shared = await Promise.all(prompts.map((prompt) => model.generate(prompt, options)));
  expect(shared.map(({ ids }) => ids)).toEqual(alone.map(({ ids }) => ids));
});

test("gradients are slopes: of what is added, the tower, weights, pixel values", async () => {
  const [a, b] = ["A", "B"].map((token) => model.tokenizer.encode(token, { specials: false })[0]!);
  const value = (logits: Float32Array) => logits[a!]! - logits[b!]!;
  const sites = ["deepstack.0", "deepstack.1", "vision.resid_post.0", "resid_post.0", "embed"] as const;
  const weight = "model.visual.deepstack_merger_list.0.linear_fc2.bias";
  const { gradients, weights, pixels } = model.gradients(one, logitDifference(a!, b!), {
    of: sites,
    weights: [weight, "model.visual.pos_embed.weight"],
    pixels: true,
  });
  for (const [i, site] of sites.entries()) {
    const own = (await gradients[site]!.read()) as Float32Array;
    const width = gradients[site]!.dim(1);
    const direction = randomArray(width, 40 + i);
    const slope = own.reduce((sum, x, j) => sum + x * direction[j % width]!, 0);
    const step = 2e-2;
    const [up, down] = await Promise.all(
      [step, -step].map(async (h) =>
        value(
          await logitsOf(one, [
            addVector(
              site,
              "all",
              direction.map((x) => x * h),
            ),
          ]),
        ),
      ),
    );
    expect(Math.abs((up! - down!) / (2 * step) - slope), site).toBeLessThan(2e-2 * Math.abs(slope) + 2e-3);
    expect(Math.abs(slope), site).toBeGreaterThan(1e-3);
  }
  // A bias of the merger is added at every place.
  const ofBias = (await weights[weight]!.read()) as Float32Array;
  const added = (await gradients["deepstack.0"]!.read()) as Float32Array;
  const sums = ofBias.map((_, j) => added.reduce((sum, x, i) => (i % WIDTH === j ? sum + x : sum), 0));
  expectClose(ofBias, sums, { atol: 1e-4, rtol: 1e-3 });
  expect(largest((await weights["model.visual.pos_embed.weight"]!.read()) as Float32Array)).toBeGreaterThan(
    0,
  );
  expect(pixels[0]!.shape).toEqual([32, 384]);
  expect(largest(await pixels[0]!.read())).toBeGreaterThan(0);
});

test("the names of all versions, and both spellings of the config, are one model", async () => {
  const files = fixtureFiles("qwen3_vl");
  const config = JSON.parse(new TextDecoder().decode(files.get("config.json")));
  const { rope_theta, rope_scaling, ...text } = config.text_config;
  const newer = { ...config, text_config: { ...text, rope_parameters: { ...rope_scaling, rope_theta } } };
  const tensors = [...(await tensorsOf(files)).values()].map((tensor) => ({
    ...tensor,
    name: tensor.name.replace(/^model\.(language_model\.|(?=visual\.))/, (_, text) => (text ? "model." : "")),
    data: async function* () {
      yield tensor.data;
    },
  }));
  const expected = await logitsOf(two);
  const device = await testDevice();
  for (const changed of [await withTensors(files, tensors), await withTensors(files, tensors, newer)]) {
    using other = await loadModel(memoryFolder(changed), { device });
    expect(await logitsOf(two, [], other)).toEqual(expected);
  }
});

test("a config as published is read; what is not supported is refused by name", async () => {
  const published = {
    model_type: "qwen3_vl",
    image_token_id: 151655,
    video_token_id: 151656,
    tie_word_embeddings: true,
    text_config: {
      ...{
        attention_bias: false,
        head_dim: 128,
        hidden_act: "silu",
        hidden_size: 2560,
        intermediate_size: 9728,
      },
      ...{ max_position_embeddings: 262144, model_type: "qwen3_vl_text", num_attention_heads: 32 },
      ...{ num_hidden_layers: 36, num_key_value_heads: 8, rms_norm_eps: 1e-6, rope_theta: 5000000 },
      rope_scaling: { mrope_interleaved: true, mrope_section: [24, 20, 20], rope_type: "default" },
      ...{ tie_word_embeddings: true, vocab_size: 151936 },
    },
    vision_config: {
      ...{
        deepstack_visual_indexes: [5, 11, 17],
        depth: 24,
        hidden_act: "gelu_pytorch_tanh",
        hidden_size: 1024,
      },
      ...{ in_channels: 3, intermediate_size: 4096, model_type: "qwen3_vl", num_heads: 16 },
      ...{ num_position_embeddings: 2304, out_hidden_size: 2560, patch_size: 16, spatial_merge_size: 2 },
      temporal_patch_size: 2,
    },
  };
  const preprocessor = {
    ...{ size: { longest_edge: 16777216, shortest_edge: 65536 }, patch_size: 16, temporal_patch_size: 2 },
    ...{ merge_size: 2, image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] },
    ...{ processor_class: "Qwen3VLProcessor", image_processor_type: "Qwen2VLImageProcessorFast" },
  };
  const files = { preprocessor, tokenOf: (id: number) => `<${id}>`, idOf: () => undefined, eosId: undefined };
  const config = qwen3Vl.readConfig(published, "config.json", files);
  expect(config).toMatchObject({
    layers: 36,
    headDim: 128,
    kvHeads: 8,
    qkNorm: true,
    tied: true,
    vocab: 151936,
  });
  expect(config.rope).toEqual({ theta: 5000000 });
  expect(config.vision).toMatchObject({ deepstack: 3, imageTokenId: 151655 });
  // Rows and columns take every third frequency up to the sixtieth; time has the rest.
  expect(config.axes.slice(0, 7)).toEqual([0, 1, 2, 0, 1, 2, 0]);
  expect(config.axes.slice(57)).toEqual([0, 1, 2, 0, 0, 0, 0]);
  const picture = { width: 640, height: 480, data: new Uint8Array(3 * 640 * 480) };
  expect(config.vision.layout(picture)).toMatchObject({ tokens: 300, grid: { rows: 15, columns: 20 } });

  for (const [section, change, message] of [
    [
      "vision_config",
      { deepstack_visual_indexes: [11, 5] },
      /deepstack_visual_indexes to be numbers .* in order/,
    ],
    ["vision_config", { deepstack_visual_indexes: [3, 24] }, /of the 24 blocks/],
    [
      "vision_config",
      { num_position_embeddings: 2305 },
      /num_position_embeddings to be a square, found 2305/,
    ],
    ["vision_config", { out_hidden_size: 2048 }, /out_hidden_size to be the language model's width 2560/],
    ["vision_config", { model_type: "qwen2_vl" }, /supported is qwen3_vl_vision/],
    [
      "text_config",
      { rope_scaling: { mrope_interleaved: false } },
      /mrope_interleaved false is not supported/,
    ],
    ["text_config", { rope_scaling: { mrope_section: [24, 20, 21] } }, /mrope_section .* 64 together/],
    ["text_config", { num_hidden_layers: 3 }, /fewer than the language model's 3 layers/],
  ] as const) {
    const changed = { ...published, [section]: { ...published[section], ...change } };
    expect(() => qwen3Vl.readConfig(changed, "config.json", files)).toThrow(message);
  }
  const other = fixtureFiles("qwen3_vl");
  changeJson(other, "preprocessor_config.json", { patch_size: 16 });
  const loading = loadModel(memoryFolder(other), { device: await testDevice() });
  await expect(loading).rejects.toThrow(/whose patch_size is the tower's patch_size, 8, found 16/);
});

test("a chat by the published template holds its pictures in order", () => {
  // As published, without tools and videos.
  const template =
    "{%- set image_count = namespace(value=0) %}{%- for message in messages %}" +
    "{{- '<|im_start|>' + message.role + '\\n' }}{%- if message.content is string %}{{- message.content }}" +
    "{%- else %}{%- for content in message.content %}{%- if content.type == 'image' or 'image' in content or 'image_url' in content %}" +
    "{%- set image_count.value = image_count.value + 1 %}{%- if add_vision_id %}Picture {{ image_count.value }}: {% endif -%}" +
    "<|vision_start|><|image_pad|><|vision_end|>{%- elif 'text' in content %}{{- content.text }}{%- endif %}{%- endfor %}" +
    "{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
  const image = (picture: RgbImage) => ({ type: "image" as const, image: picture as PromptImage });
  const content = [image(tall), image(photo), { type: "text" as const, text: "Which?" }];
  const rules = { imageRules: llavaImageRules(model.config.vision!) };
  const chat = chatPrompt({ default: template }, model.tokenizer, [{ role: "user", content }], rules);
  const vision = "<|vision_start|><|image_pad|><|vision_end|>";
  expect(chat.text).toBe(`<|im_start|>user\n${vision}${vision}Which?<|im_end|>\n<|im_start|>assistant\n`);
  expect(chat.images).toEqual([tall, photo]);
  expect(chat.span("image").grid).toEqual({ rows: 5, columns: 2 });
  expect(chat.ids).toEqual(model.prompt(chat.text, { images: [tall, photo] }).ids);
});
