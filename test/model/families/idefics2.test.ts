import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { CheckpointError, ImageError, PromptError, SiteError } from "../../../src/errors.ts";
import { loadImage } from "../../../src/images/files/load.ts";
import { preprocess } from "../../../src/images/preprocess.ts";
import { readIdefics2ProcessorConfig } from "../../../src/images/processors/idefics2-processor-config.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { patchRow } from "../../../src/model/prompt/prompt.ts";
import { set } from "../../../src/patching/edit.ts";
import { loadModel, type PatchableModel } from "../../../src/patching/model.ts";
import { tap } from "../../../src/patching/tap.ts";
import { fixtureFiles, tensorsOf, withTensors } from "../../helpers/checkpoints.ts";
import { expectClose, expectSame } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";
import { fixtureModel, readAll } from "../../helpers/model.ts";
import { changeJson, type Files } from "../../helpers/nano.ts";

type Json = Record<string, unknown>;

/** By make.py beside it. */
const golden: {
  readonly settings: Readonly<Record<string, object>>;
  readonly cases: readonly {
    readonly settings: string;
    readonly width: number;
    readonly height: number;
    readonly sizes: readonly (readonly [height: number, width: number])[];
    readonly sample: readonly number[];
    readonly mean: number;
  }[];
  readonly chat: string;
  readonly turns: readonly {
    readonly role: string;
    readonly content: readonly { readonly type: string; readonly text?: string }[];
  }[];
  readonly texts: readonly { readonly split: boolean; readonly text: string; readonly ids: number[] }[];
} = JSON.parse(readFileSync("test/fixtures/preprocess/idefics2/case.json", "utf8"));

/** As make.py draws it. */
function picture({ width, height }: { width: number; height: number }) {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => Math.floor((i * i) / 7) % 251);
  return { width, height, data };
}

async function loadFiles(files: Files): Promise<PatchableModel> {
  return await loadModel(memoryFolder(files, "idefics2"), { device: await testDevice() });
}

/** The fixture's model with some of its files changed. */
async function loadChanged(changes: Readonly<Record<string, Json>>): Promise<PatchableModel> {
  const files = fixtureFiles("idefics2");
  for (const [file, change] of Object.entries(changes)) changeJson(files, file, change);
  return await loadFiles(files);
}

const configOf = (part: string) =>
  JSON.parse(readFileSync("test/fixtures/idefics2/model/config.json", "utf8"))[part] as Json;

const logitsOf = async (model: PatchableModel, text = "Q:<image>\nA:") => {
  const photo = await loadImage("test/fixtures/images/photo.png");
  const prompt = model.prompt(text, { images: text.includes("<image>") ? [photo] : [] });
  return (await readAll({ logits: model.run(prompt).logits })).logits;
};

describe("the image processor", () => {
  const read = (settings: object) =>
    readIdefics2ProcessorConfig({ image_processor_type: "Idefics2ImageProcessor", ...settings });

  test.each(Object.keys(golden.settings))("%s: sizes and pixel values of transformers", (name) => {
    const settings = read(golden.settings[name]!);
    const cases = golden.cases.filter((c) => c.settings === name);
    expect(cases.length).toBeGreaterThan(8);
    for (const c of cases) {
      const label = `${c.width} x ${c.height}`;
      const { data, shape, tiling } = preprocess(picture(c), settings);
      const sizes = tiling?.sizes?.map(({ width, height }) => [height, width]) ?? [shape.slice(1)];
      expect(sizes, label).toEqual(c.sizes);
      expect(tiling?.count ?? 1, label).toBe(c.sizes.length);
      const found = c.sample.map((_, k) => data[(k * 99991) % data.length]!);
      expectClose(found, c.sample, { atol: 1e-6, rtol: 1e-6, label });
      const mean = data.reduce((sum, value) => sum + value, 0) / data.length;
      expect(Math.abs(mean - c.mean), label).toBeLessThan(1e-5);
    }
  });

  test("what it does not know is refused by name", () => {
    expect(() => read({ size: { shortest_edge: 9 } })).toThrow(
      /size to be an object of longest_edge, shortest_edge/,
    );
    expect(() => read({ size: 378 })).toThrow(CheckpointError);
    expect(() => read({ do_image_splitting: 5 })).toThrow(/do_image_splitting to be true or false/);
    expect(() => readIdefics2ProcessorConfig({ image_processor_type: "CLIPImageProcessor" })).toThrow(
      /image_processor_type to be one of Idefics2ImageProcessor/,
    );
    expect(() => preprocess(picture({ width: 1, height: 9 }), read({ do_image_splitting: true }))).toThrow(
      /at least 2 x 2 pixels to split into quarters, found 1 x 9/,
    );
  });
});

describe("prompts", () => {
  const models = new Map<boolean, Promise<PatchableModel>>();
  /** With an image processor that splits pictures, or not. */
  function model(split: boolean): Promise<PatchableModel> {
    const found =
      models.get(split) ??
      loadChanged({
        "preprocessor_config.json": {
          do_image_splitting: split,
          size: { shortest_edge: 30, longest_edge: 40 },
        },
        "processor_config.json": { chat_template: golden.chat },
      });
    models.set(split, found);
    return found;
  }
  const small = picture({ width: 30, height: 40 });

  test.each(golden.texts.map((row, i) => [i, row.text, row.split, row.ids] as const))(
    "%i: %j, split: %s, has transformers' ids",
    async (_, text, split, ids) => {
      const images = text
        .split("<image>")
        .slice(1)
        .map(() => small);
      const prompt = (await model(split)).prompt(text, { images });
      expect([...prompt.ids]).toEqual(ids);
      expect(prompt.text).toBe(text);
    },
  );

  test.each([false, true])("a conversation by the published template, split: %s", async (split) => {
    const { ids } = golden.texts.filter((row) => row.split === split).at(-1)!;
    const messages = golden.turns.map(({ role, content }) => ({
      role,
      content: content.map(({ type, text }) =>
        type === "image" ? { type: "image" as const, image: small } : { type: "text" as const, text: text! },
      ),
    }));
    expect([...(await model(split)).chat(messages).ids]).toEqual(ids);
  });

  test("spans: of a picture from its first to its last token; of named text behind the blank that is put in", async () => {
    const parts = ["Q:", small, { text: "sky", name: "word" }, small, "\nA:"];
    for (const [split, tokens] of [
      [false, 5],
      [true, 29], // five tiles of five, and what stands between them
    ] as const) {
      const prompt = (await model(split)).prompt(parts);
      const { image, image2, word } = prompt.spans;
      expect([image!.end - image!.start, image2!.end - image2!.start]).toEqual([tokens, tokens]);
      expect(prompt.tokens[image!.start]).toBe("<image>");
      expect(prompt.tokens[image!.end - 1]).toBe("<image>");
      expect(prompt.tokens[image!.end]).toBe("<fake_token_around_image>");
      expect(prompt.tokens.slice(word!.start, word!.end).join("")).toBe("▁sky");
      expect(() => patchRow(image!, 0)).toThrow(PromptError); // latents are no grid
    }
  });

  test("pictures smaller than a patch, and pixel values that are no picture's, are refused", async () => {
    const whole = await loadChanged({ "preprocessor_config.json": { do_resize: false } });
    expect(() => whole.prompt(["Q:", picture({ width: 13, height: 40 })])).toThrow(ImageError);
    expect(() => whole.prompt(["Q:", picture({ width: 13, height: 40 })])).toThrow(
      /at least a patch of 14 x 14/,
    );
    const values = { data: new Float32Array(2 * 3 * 28 * 28), shape: [3, 28, 28] as const };
    const tiling = { count: 2, width: 28, height: 28 };
    expect(() => whole.prompt(["Q:", { ...values, tiling }])).toThrow(
      /its quarters and itself .* found 2 tile/,
    );
    whole.dispose();
  });
});

describe("a config field that would change the numbers is refused by name", () => {
  test.each<[string, Json, RegExp]>([
    [
      "another language model",
      { text_config: { ...configOf("text_config"), model_type: "llama" } },
      /"llama" is not supported; supported is mistral/,
    ],
    [
      "shared keys that do not go round",
      { perceiver_config: { ...configOf("perceiver_config"), num_key_value_heads: 3 } },
      /4 heads \(resampler_n_heads\) cannot share 3/,
    ],
    [
      "an activation without a kernel",
      { perceiver_config: { ...configOf("perceiver_config"), hidden_act: "mish" } },
      /perceiver_config: activation "mish"/,
    ],
    [
      "another number of channels",
      { vision_config: { ...configOf("vision_config"), num_channels: 1 } },
      /num_channels 1 is not supported; expected 3/,
    ],
    [
      "sides of another length",
      { vision_config: { ...configOf("vision_config"), image_size: [56, 56] } },
      /image_size to be a number/,
    ],
    [
      "another grid of positions",
      { vision_config: { ...configOf("vision_config"), image_size: 70 } },
      /position_embedding.weight is \[16, 18\] instead of \[25, 18\]/,
    ],
    [
      "another image token",
      { image_token_id: 431 },
      /image_token_id to be the tokenizer's <image>, 432, found 431/,
    ],
    ["sizes by layer", { per_layer_config: { 0: {} } }, /per_layer_config/],
    [
      "attention to later tokens",
      { text_config: { ...configOf("text_config"), is_causal: false } },
      /is_causal/,
    ],
  ])("%s", async (_, fields, message) => {
    const attempt = loadChanged({ "config.json": fields });
    await expect(attempt).rejects.toThrow(CheckpointError);
    await expect(attempt).rejects.toThrow(message);
  });

  test.each<[string, string, Json, RegExp]>([
    [
      "processor",
      "processor_config.json",
      { image_seq_len: 64 },
      /image_seq_len of processor_config.json to be 5 .* found 64/,
    ],
    [
      "tokenizer",
      "tokenizer_config.json",
      { image_boundary_token: "<pad>" },
      /image_boundary_token .* to be <fake_token_around_image>, found "<pad>"/,
    ],
  ])("a %s that writes pictures otherwise", async (_, file, fields, message) => {
    await expect(loadChanged({ [file]: fields })).rejects.toThrow(message);
  });
});

test("both spellings of RoPE, defaults, and fields that the classes do not read", async () => {
  const expected = await logitsOf(await fixtureModel("idefics2"));
  const text = configOf("text_config");
  const { rope_theta, rope_scaling: _, ...rest } = text;
  const rope_parameters = { rope_type: "default", rope_theta: rope_theta ?? 10000 };
  using new5 = await loadChanged({ "config.json": { text_config: { ...rest, rope_parameters } } });
  expectSame(await logitsOf(new5), expected, "rope_parameters");
  using named = await loadChanged({
    "config.json": {
      vision_config: { ...configOf("vision_config"), model_type: "idefics2" },
      perceiver_config: { ...configOf("perceiver_config"), model_type: "idefics2", hidden_act: undefined },
      image_token_index: 7,
      use_resampler: true,
    },
  });
  expectSame(await logitsOf(named), expected, "fields without a meaning");
  // A width that is not the text's counts as one that was left out, and the text's eps goes with it.
  const perceiver = { ...configOf("perceiver_config"), hidden_size: undefined, rms_norm_eps: 0.5 };
  using bare = await loadChanged({ "config.json": { perceiver_config: perceiver } });
  expectSame(await logitsOf(bare), expected, "no hidden_size");
});

test("other numbers follow from eps, heads and the window", async () => {
  const expected = await logitsOf(await fixtureModel("idefics2"));
  for (const change of [
    { perceiver_config: { ...configOf("perceiver_config"), rms_norm_eps: 0.5 } },
    { vision_config: { ...configOf("vision_config"), layer_norm_eps: 0.5 } },
    { text_config: { ...configOf("text_config"), sliding_window: 4 } },
  ]) {
    using changed = await loadChanged({ "config.json": change });
    const found = await logitsOf(changed);
    expect(found.some((value, i) => Math.abs(value - expected[i]!) > 1e-3)).toBe(true);
  }
});

test("transparency is ignored, as by its processor, and not laid over white", async () => {
  const model = await fixtureModel("idefics2");
  const rgba = await loadImage("test/fixtures/images/rgba.png");
  const { processor } = model.config.vision!;
  const { data } = preprocess(rgba, processor);
  const { opaque: _, ...white } = rgba;
  expect(data).not.toEqual(preprocess(white, processor).data);
  expect(data).toEqual(preprocess({ ...white, data: rgba.opaque! }, processor).data);
});

test("a task vector of its Mistral by itself acts in it as its own does", async () => {
  const vlm = await fixtureModel("idefics2");
  const tensors = await tensorsOf(fixtureFiles("idefics2"));
  const text = [...tensors.values()].flatMap((tensor) =>
    /^(model\.text_model\.|lm_head\.)/.test(tensor.name)
      ? [{ ...tensor, name: tensor.name.replace("model.text_model.", "model.") }]
      : [],
  );
  const files = await withTensors(fixtureFiles("idefics2"), text);
  const config = { ...configOf("text_config"), architectures: ["MistralForCausalLM"] };
  files.set("config.json", new TextEncoder().encode(JSON.stringify(config)));
  for (const name of ["preprocessor_config.json", "processor_config.json"]) files.delete(name);
  using llm = await loadFiles(files);
  expect(llm.family).toBe("mistral");
  const shots = "Q: what color is the sky?\nA: blue\n\nQ: what color is the banana?\nA:";
  const read = (model: PatchableModel) =>
    readAll({ v: model.run(model.prompt(shots), { taps: { v: tap("resid_post.1", -1) } }).v });
  const [own, theirs] = [(await read(vlm)).v, (await read(llm)).v];
  expectSame(theirs, own, "the vectors");
  const photo = await loadImage("test/fixtures/images/photo.png");
  const query = vlm.prompt(["Q:", photo, "\nA:"]);
  const answer = await vlm.generate(query, {
    maxNewTokens: 3,
    stopIds: [],
    edits: [set("resid_post.1", -1, theirs)],
  });
  const plain = await vlm.generate(query, { maxNewTokens: 3, stopIds: [] });
  expect(answer.ids).not.toEqual(plain.ids);
});

test.each(["idefics", "idefics2"])("%s: all activations take the bytes that were foretold", async (name) => {
  const model = await fixtureModel(name);
  const prompt = model.prompt(["Q:", picture({ width: 50, height: 60 }), "\nA:"]);
  const cache = model.cacheAll(prompt);
  const bytes = Object.values(cache).reduce((sum, tensor) => sum + 4 * tensor.size, 0);
  expect(model.cacheBytes(prompt)).toBe(bytes);
  for (const tensor of Object.values(cache)) tensor.dispose();
});

test("projector is not among its sites, and the message says what is", async () => {
  const model = await fixtureModel("idefics2");
  const prompt = model.prompt(["Q:", picture({ width: 50, height: 60 }), "\nA:"]);
  const attempt = () => model.run(prompt, { taps: { p: tap("projector", "all", { image: 0 }) } });
  expect(attempt).toThrow(SiteError);
  expect(attempt).toThrow(/what its pictures become is resampler.out/);
});
