import { beforeAll, describe, expect, test } from "vitest";
import { attentionMaps, imagePatches } from "../../../src/analysis/heads/attention-map.ts";
import { CheckpointError, ImageError, PromptError } from "../../../src/errors.ts";
import { loadImage } from "../../../src/images/files/load.ts";
import type { RgbImage } from "../../../src/images/files/rgb.ts";
import { type PixelValues, preprocess } from "../../../src/images/preprocess.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { OpenModel } from "../../../src/model/open-model.ts";
import { patchColumn, patchRow } from "../../../src/model/prompt/prompt.ts";
import { loadModel, type PatchableModel } from "../../../src/patching/model.ts";
import { tap } from "../../../src/patching/tap.ts";
import { fixtureFiles, tensorsOf, withTensors } from "../../helpers/checkpoints.ts";
import { testDevice } from "../../helpers/device.ts";
import { fixtureModel, readAll } from "../../helpers/model.ts";
import { changeJson, type Files } from "../../helpers/nano.ts";

// Idefics3, SmolVLM and InternVL: tiles that stand by themselves, squares of patches as features.

type Json = Record<string, unknown>;

let photo: RgbImage;
let tall: RgbImage;
let device: Awaited<ReturnType<typeof testDevice>>;

beforeAll(async () => {
  photo = await loadImage("test/fixtures/images/photo.png");
  tall = await loadImage("test/fixtures/images/tall.png");
  device = await testDevice();
});

/** Cut into tiles, whatever the model's own processor does. */
function cut(model: PatchableModel, image: RgbImage, splits = true): PixelValues {
  const { processor } = model.config.vision!;
  return preprocess(image, { ...processor, grid: { ...processor.grid!, splits } });
}

async function logitsOf(model: PatchableModel, image: RgbImage | PixelValues = photo): Promise<Float32Array> {
  return (await readAll({ logits: model.run(model.prompt(["Q:", image, "\nA:"])).logits })).logits;
}

async function openedWith(name: string, change: (files: Files) => void): Promise<void> {
  const files = fixtureFiles(name);
  change(files);
  await using _ = await OpenModel.open(memoryFolder(files, name));
}

/** A file of JSON, changed in place. */
function edited(files: Files, path: string, change: (json: Json) => void): void {
  const json = JSON.parse(new TextDecoder().decode(files.get(path))) as Json;
  change(json);
  files.set(path, new TextEncoder().encode(JSON.stringify(json)));
}

describe("prompts of SmolVLM", () => {
  test("a picture as a whole stands between two tokens, its positions a grid", async () => {
    const model = await fixtureModel("smolvlm");
    const prompt = model.prompt(["Q:", photo, "\nA:"]);
    const text =
      "Q:<fake_token_around_image><global-img><image><image><image><image><fake_token_around_image>\nA:";
    expect(prompt.ids).toEqual(model.tokenizer.encode(text, { specials: false }));
    expect(prompt.span("image")).toEqual({ start: 4, end: 8, grid: { rows: 2, columns: 2 } });
    expect(patchRow(prompt.span("image"), 1)).toEqual({ start: 6, end: 8 });
  });

  test("tiles stand row by row before the whole, each with a grid of its own", async () => {
    const model = await fixtureModel("smolvlm");
    const prompt = model.prompt(["Q:", cut(model, photo), "\nA:"]);
    const fake = "<fake_token_around_image>";
    const tile = (name: string) => `${fake}<${name}>${"<image>".repeat(4)}`;
    const row = (r: number) => `${tile(`row_${r}_col_1`)}${tile(`row_${r}_col_2`)}\n`;
    const text = `Q:${row(1)}${row(2)}\n${tile("global-img")}${fake}\nA:`;
    expect(prompt.ids).toEqual(model.tokenizer.encode(text, { specials: false }));
    const image = prompt.span("image");
    expect(image.grid).toBeUndefined();
    expect(image.tiles?.grid).toEqual({ rows: 2, columns: 2 });
    expect(image.tiles?.spans.map(({ start }) => start)).toEqual([4, 10, 17, 23, 31]);
    for (const { start, end, grid } of image.tiles!.spans) {
      expect([end - start, grid]).toEqual([4, { rows: 2, columns: 2 }]);
    }
    expect([image.start, image.end]).toEqual([4, 35]);
    expect(patchColumn(image.tiles!.spans[2]!, 1)).toEqual([18, 20]);
    expect(() => patchRow(image, 0)).toThrow(/found none at 4 to 35; each of its tiles.spans has one/);
  });

  test("the published chat template puts pictures where they are", async () => {
    const files = fixtureFiles("smolvlm");
    edited(files, "tokenizer_config.json", (json) => {
      json["chat_template"] =
        "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == 'image' %}" +
        "{{':'}}{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}" +
        "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}" +
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";
    });
    await using opened = await OpenModel.open(memoryFolder(files, "smolvlm"));
    const content = [
      { type: "image", image: photo } as const,
      { type: "text", text: "What is this?" } as const,
    ];
    const prompt = opened.outline.chat([{ role: "user", content }]);
    expect(prompt.text).toBe("<|im_start|>User:<image>What is this?<end_of_utterance>\nAssistant:");
    expect(prompt.span("image").end - prompt.span("image").start).toBe(4);
  });
});

describe("prompts of InternVL", () => {
  test("all tiles stand between two tokens, the whole last", async () => {
    const model = await fixtureModel("internvl");
    const prompt = model.prompt(["Q:", tall, "\nA:"]);
    const text = `Q:<img>${"<IMG_CONTEXT>".repeat(4 * 4)}</img>\nA:`; // three tiles, and the whole
    expect(prompt.ids).toEqual(model.tokenizer.encode(text, { specials: false }));
    const { tiles, start, end } = prompt.span("image");
    expect(end - start).toBe(16);
    expect(tiles?.grid).toEqual({ rows: 3, columns: 1 });
    expect(tiles?.spans).toEqual(
      [0, 4, 8, 12].map((at) => ({ start: start + at, end: start + at + 4, grid: { rows: 2, columns: 2 } })),
    );
  });

  test("the published chat template, and no videos", async () => {
    const files = fixtureFiles("internvl");
    edited(files, "tokenizer_config.json", (json) => {
      json["chat_template"] =
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message['content'] is string %}" +
        "{{ message['content'] }}{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}" +
        "{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'video' %}{{ '<video>\n' }}{% elif content['type'] == 'text' %}" +
        "{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{'<|im_end|>\n'}}{% endfor %}" +
        "{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}";
    });
    await using opened = await OpenModel.open(memoryFolder(files, "internvl"));
    const content = [
      { type: "image", image: photo } as const,
      { type: "text", text: "What is this?" } as const,
    ];
    expect(opened.outline.chat([{ role: "user", content }]).text).toBe(
      "<|im_start|>user\n<IMG_CONTEXT>\nWhat is this?<|im_end|>\n<|im_start|>assistant\n",
    );
    expect(() => opened.outline.prompt("<video>What?")).toThrow(/without videos, found <video>/);
  });
});

describe.each(["smolvlm", "internvl"])("%s", (name) => {
  test("the projector's rows are in the picture's places, squares of patches what it reads", async () => {
    const model = await fixtureModel(name);
    const { tower, shuffle } = model.config.vision!;
    const side = tower.imageSize! / tower.patchSize;
    const prompt = model.prompt(["Q:", cut(model, photo), "\nA:"]);
    const { tiles } = prompt.span("image");
    const read = name === "smolvlm" ? "vision.post_norm" : `vision.resid_post.${tower.layers - 1}`;
    const taps = {
      read: tap(read as "vision.post_norm"),
      squares: tap("pixel_shuffle"),
      features: tap("projector"),
      rows: tap("embed"),
    };
    const values = await readAll(model.run(prompt, { taps, stopAfter: 0 }));
    const { width } = model.config;
    tiles!.spans.forEach(({ start, end }, tile) => {
      const ours = values.features.subarray(tile * (end - start) * width, (tile + 1) * (end - start) * width);
      expect([...values.rows.subarray(start * width, end * width)]).toEqual([...ours]);
    });
    // The last square of the second tile, patch by patch.
    const perTile = side * side + (name === "internvl" ? 1 : 0);
    const across = side / shuffle!;
    const square = 2 * across ** 2 - 1;
    for (let i = 0; i < shuffle! ** 2; i++) {
      const row = side - shuffle! + Math.floor(i / shuffle!);
      const column = side - shuffle! + (i % shuffle!);
      const patch = perTile + (perTile - side * side) + row * side + column;
      const from = (square * shuffle! ** 2 + i) * tower.width;
      expect([...values.squares.subarray(from, from + tower.width)]).toEqual([
        ...values.read.subarray(patch * tower.width, (patch + 1) * tower.width),
      ]);
    }
  });

  test("a tile sees itself only", async () => {
    const model = await fixtureModel(name);
    const prompt = model.prompt(["Q:", cut(model, tall), "\nA:"]);
    const { towerRows, tiles } = model.config.vision!.layout(prompt.images[0]!);
    expect(tiles).toBeGreaterThan(1);
    const { pattern } = await readAll(
      model.run(prompt, { taps: { pattern: tap("vision.pattern.0") }, stopAfter: 0 }),
    );
    const each = towerRows / tiles!;
    for (const [i, weight] of pattern.entries()) {
      const [key, query] = [i % towerRows, Math.floor(i / towerRows) % towerRows];
      expect(weight > 0).toBe(Math.floor(key / each) === Math.floor(query / each));
    }
  });

  test("attention over a picture that is cut is drawn over the whole", async () => {
    const model = await fixtureModel(name);
    const prompt = model.prompt(["Q:", cut(model, photo), "\nA:"]);
    const whole = prompt.span("image").tiles!.spans.at(-1)!;
    expect(imagePatches(prompt)).toEqual(whole);
    const [map] = await attentionMaps(model, prompt, { layers: [1] });
    const { row } = await readAll(model.run(prompt, { taps: { row: tap("pattern.1", -1) } }));
    const heads = model.config.heads;
    const mean = (key: number) =>
      Array.from({ length: heads }, (_, h) => row[h * prompt.length + key]!).reduce((a, b) => a + b, 0) /
      heads;
    for (const [i, weight] of [...map!.weights].entries())
      expect(weight).toBeCloseTo(mean(whole.start + i), 6);
  });

  test("pixel values say how they were cut, and have to be that many", async () => {
    const model = await fixtureModel(name);
    const values = cut(model, photo);
    const { tiling, ...rest } = values;
    const size = 3 * values.shape[1] * values.shape[2];
    const one = { ...rest, data: values.data.slice(-size) };
    expect(model.prompt([one]).span("image").grid).toBeDefined();
    const { grid: _, ...without } = tiling!;
    expect(() => model.prompt([{ ...values, tiling: without }])).toThrow(ImageError);
    const other = { ...tiling!, grid: { rows: 1, columns: 1 } };
    expect(() => model.prompt([{ ...values, tiling: other }])).toThrow(
      /expected pixel values of 2 tile\(s\)/,
    );
    const prompt = model.prompt(["Q:", values]);
    const ids = prompt.ids.filter((_, i) => i !== prompt.span("image").start);
    expect(() => model.promptFromIds(ids, [values])).toThrow(PromptError);
  });
});

describe("the same model", () => {
  test("SmolVLM by the name of Idefics3, as the first ones were published, in the config's older spelling", async () => {
    const files = fixtureFiles("smolvlm");
    edited(files, "config.json", (json) => {
      const text = json["text_config"] as Json;
      delete text["rope_parameters"];
      Object.assign(text, {
        rope_theta: 10000,
        rope_scaling: null,
        pixel_shuffle_factor: 4,
        qk_layer_norms: false,
      });
      Object.assign(json, { model_type: "idefics3", torch_dtype: "bfloat16", vocab_size: 448 });
      Object.assign(json["vision_config"] as Json, {
        model_type: "idefics3",
        max_image_size: { longest_edge: 32 },
        size: { longest_edge: 64 },
        use_base_siglip: false,
      });
    });
    edited(files, "preprocessor_config.json", (json) => {
      json["image_processor_type"] = "Idefics3ImageProcessor";
    });
    using model = await loadModel(memoryFolder(files, "idefics3"), { device });
    expect(model.family).toBe("idefics3");
    expect(await logitsOf(model)).toEqual(await logitsOf(await fixtureModel("smolvlm")));
  });

  test("InternVL under the names of transformers' modules", async () => {
    const files = fixtureFiles("internvl");
    const tensors = [...(await tensorsOf(files)).values()].map((tensor) => ({
      ...tensor,
      name: tensor.name
        .replace(/^language_model\.model\./, "model.language_model.")
        .replace(/^language_model\.lm_head/, "lm_head")
        .replace(/^(vision_tower|multi_modal_projector)\./, "model.$1."),
    }));
    using model = await loadModel(memoryFolder(await withTensors(files, tensors), "internvl"), { device });
    expect(await logitsOf(model)).toEqual(await logitsOf(await fixtureModel("internvl")));
  });

  test("whether the head is the embedding is for the outer config to say", async () => {
    const files = fixtureFiles("smolvlm");
    edited(files, "config.json", (json) => {
      json["tie_word_embeddings"] = false;
    });
    await expect(loadModel(memoryFolder(files, "untied"), { device })).rejects.toThrow(/lm_head/);
    edited(files, "config.json", (json) => {
      json["tie_word_embeddings"] = true;
      (json["text_config"] as Json)["tie_word_embeddings"] = false;
    });
    using model = await loadModel(memoryFolder(files, "tied"), { device });
    expect(await logitsOf(model)).toEqual(await logitsOf(await fixtureModel("smolvlm")));
  });
});

describe("refuses by name", () => {
  const config = (change: (json: Json, vision: Json, text: Json) => void) => (files: Files) =>
    edited(files, "config.json", (json) => {
      change(json, json["vision_config"] as Json, json["text_config"] as Json);
    });
  const preprocessor = (fields: Json) => (files: Files) =>
    changeJson(files, "preprocessor_config.json", fields);

  test.each<[string, string, (files: Files) => void, RegExp]>([
    [
      "a factor that leaves a rest",
      "smolvlm",
      config((c) => (c["scale_factor"] = 3)),
      /patches, 8 a side, .* squares of 3 a side \(scale_factor\)/,
    ],
    [
      "tiles of another size",
      "smolvlm",
      preprocessor({ max_image_size: { longest_edge: 64 } }),
      /pictures and tiles of 32 pixels/,
    ],
    [
      "another tower",
      "smolvlm",
      config((_, v) => (v["model_type"] = "clip_vision_model")),
      /towers of model_type "clip_vision_model"/,
    ],
    [
      "another language model",
      "smolvlm",
      config((_, __, t) => (t["model_type"] = "gpt2")),
      /smolvlm over "gpt2" is not supported; supported are llama/,
    ],
    [
      "another token of pictures",
      "smolvlm",
      config((c) => (c["image_token_id"] = 300)),
      /image_token_id to be the id of <image>, 318, found 300/,
    ],
    [
      "another number of positions",
      "smolvlm",
      (f) => changeJson(f, "processor_config.json", { image_seq_len: 169 }),
      /image_seq_len .* to be 4, .* found 169/,
    ],
    [
      "another processor",
      "smolvlm",
      preprocessor({ image_processor_type: "CLIPImageProcessor" }),
      /one of Idefics3ImageProcessor, SmolVLMImageProcessor/,
    ],
    [
      "a ratio that is no share",
      "internvl",
      config((c) => (c["downsample_ratio"] = 0.4)),
      /downsample_ratio to be 1 by a whole number, found 0.4/,
    ],
    [
      "a factor that leaves a rest",
      "internvl",
      config((c) => (c["downsample_ratio"] = 1 / 3)),
      /squares of 3 a side \(downsample_ratio\)/,
    ],
    [
      "class tokens among features",
      "internvl",
      config((c) => (c["vision_feature_select_strategy"] = "full")),
      /"full" leaves no square/,
    ],
    [
      "several layers of the tower",
      "internvl",
      config((c) => (c["vision_feature_layer"] = [-1, -2])),
      /vision_feature_layer to be a number/,
    ],
    [
      "a layer that there is none of",
      "internvl",
      config((c) => (c["vision_feature_layer"] = -4)),
      /vision_feature_layer -4 does not exist in 2 layers/,
    ],
    [
      "norms of another kind",
      "internvl",
      config((_, v) => (v["norm_type"] = "group")),
      /norm_type "layer_norm" or "rms_norm"/,
    ],
    [
      "pictures that are no squares",
      "internvl",
      config((_, v) => (v["image_size"] = [28, 14])),
      /image_size to be a number/,
    ],
    [
      "no positions",
      "internvl",
      config((_, v) => (v["use_absolute_position_embeddings"] = false)),
      /use_absolute_position_embeddings false is not supported/,
    ],
    [
      "another language model",
      "internvl",
      config((_, __, t) => (t["model_type"] = "qwen3_moe")),
      /internvl over "qwen3_moe" is not supported; supported are qwen2, llama, qwen3/,
    ],
    [
      "another number of positions",
      "internvl",
      (f) => changeJson(f, "processor_config.json", { image_seq_length: 256 }),
      /image_seq_length .* to be 4, .* found 256/,
    ],
    [
      "another token of pictures",
      "internvl",
      config((c) => (c["image_token_id"] = 300)),
      /image_token_id to be the id of <IMG_CONTEXT>/,
    ],
  ])("%s (%s)", async (_, name, change, message) => {
    const attempt = openedWith(name, change);
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toBeInstanceOf(CheckpointError);
  });

  test("and takes its own files", async () => {
    for (const name of ["smolvlm", "internvl", "internvl-qk-norm"]) await openedWith(name, () => {});
  });
});
