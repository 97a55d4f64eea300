import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { attentionMaps } from "../../../src/analysis/heads/attention-map.ts";
import { CheckpointError, ImageError, PromptError } from "../../../src/errors.ts";
import { loadImage } from "../../../src/images/files/load.ts";
import { pixelRows } from "../../../src/images/patch-rows.ts";
import { preprocess, viewSize } from "../../../src/images/preprocess.ts";
import { readFuyuProcessorConfig } from "../../../src/images/processors/fuyu-processor-config.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { OpenModel } from "../../../src/model/open-model.ts";
import { patchColumn, patchPositions, patchRow } from "../../../src/model/prompt/prompt.ts";
import { siteNames } from "../../../src/model/walk/site-info.ts";
import { logitDifference } from "../../../src/patching/metric.ts";
import { loadModel } from "../../../src/patching/model.ts";
import { tap } from "../../../src/patching/tap.ts";
import { utf8 } from "../../helpers/bytes.ts";
import { fixtureFiles, tensorsOf, withTensors } from "../../helpers/checkpoints.ts";
import { expectClose } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";
import { fixtureModel, readAll } from "../../helpers/model.ts";
import type { Files } from "../../helpers/nano.ts";

type Json = Record<string, unknown>;
interface GoldenPrompt {
  readonly text: string;
  readonly images: readonly string[];
  readonly ids: readonly number[];
  readonly pixels?: readonly number[];
}
/** What transformers and Mantis' own program make of prompts (scripts/make-fuyu-golden.py). */
const golden: {
  fuyu: GoldenPrompt[];
  mantis: GoldenPrompt[];
  added: Record<string, number>;
  grids: { size: [number, number, number]; picture: [number, number]; grid: [number, number] | null }[];
} = JSON.parse(readFileSync("test/fixtures/fuyu-prompts.json", "utf8"));

const picture = (name: string) => loadImage(`test/fixtures/images/${name}`);
const read = (files: Files, name: string): Json => JSON.parse(new TextDecoder().decode(files.get(name)!));
const write = (files: Files, name: string, json: unknown) => files.set(name, utf8(JSON.stringify(json)));

function changed(name: string, change: Json): Files {
  const files = fixtureFiles("fuyu");
  write(files, name, { ...read(files, name), ...change });
  return files;
}

const opened = (files: Files) => OpenModel.open(memoryFolder(files, "fuyu"));

/** Mantis' tokenizer and what its files say, over the same weights. */
function mantisFiles(said: "architecture" | "processor"): Files {
  const files =
    said === "architecture"
      ? changed("config.json", { architectures: ["MFuyuForCausalLM"] })
      : changed("processor_config.json", { processor_class: "MFuyuProcessor" });
  const tokenizer = read(files, "tokenizer.json");
  const special = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  const added = Object.entries(golden.added).map(([content, id]) => ({ id, content, ...special }));
  write(files, "tokenizer.json", {
    ...tokenizer,
    added_tokens: [...(tokenizer["added_tokens"] as Json[]), ...added],
  });
  return files;
}

describe("Fuyu's prompts", () => {
  test.each(golden.fuyu)("$text", async ({ text, images, ids, pixels }) => {
    const model = await fixtureModel("fuyu");
    const pictures = await Promise.all(images.map(picture));
    const prompt = model.prompt(text, { images: pictures });
    expect(prompt.ids).toEqual(ids);
    const { processor, tower } = model.config.vision!;
    const values = pictures.flatMap((each) => [...pixelRows(preprocess(each, processor), tower.patchSize)]);
    const sampled = values.filter((_, i) => i % 97 === 0);
    expectClose(sampled, [...pixels!], { atol: 1e-6, rtol: 1e-6 });
  });

  test("spans, rows and columns of patches go round the ends of rows", async () => {
    const model = await fixtureModel("fuyu");
    const prompt = model.prompt([
      await picture("tall.png"),
      { text: "red", name: "answer" },
      await picture("photo.png"),
    ]);
    const { image, image2, answer } = prompt.spans;
    expect(image).toEqual({ start: 0, end: 23, grid: { rows: 6, columns: 3 }, rowStride: 4 });
    expect(image2).toMatchObject({ grid: { rows: 6, columns: 8 }, rowStride: 9 });
    for (const span of [image!, image2!]) {
      const { rows, columns } = span.grid!;
      const positions = patchPositions(span);
      expect(positions).toHaveLength(rows * columns);
      expect(new Set(positions.map((position) => prompt.tokens[position]))).toEqual(new Set(["|SPEAKER|"]));
      expect(patchRow(span, -1)).toEqual({ start: span.end - columns, end: span.end });
      expect(prompt.tokens[patchRow(span, 0).end]).toBe("|NEWLINE|");
      expect(patchColumn(span, 1)).toEqual(
        Array.from({ length: rows }, (_, row) => positions[row * columns + 1]),
      );
    }
    expect(model.tokenizer.decode(prompt.ids.slice(answer!.start, answer!.end)).trim()).toBe("red");
    const [map] = await attentionMaps(model, prompt, { span: "image2", layers: [1] });
    const { pattern } = await readAll(model.run(prompt, { taps: { pattern: tap("pattern.1", -1) } }));
    const mean = (key: number) =>
      [0, 1, 2, 3].reduce((sum, head) => sum + pattern[head * prompt.length + key]!, 0) / 4;
    expectClose(map!.weights, patchPositions(image2!).map(mean), { atol: 1e-6, rtol: 1e-5 });
  });

  test("text that comes first begins with BOS; bos: false adds none, and no token that ends", async () => {
    const model = await fixtureModel("fuyu");
    const parts = ["Q: ", await picture("tall.png"), " A:"];
    const [framed, bare] = [model.prompt(parts), model.prompt(parts, { bos: false })];
    expect(framed.tokens[0]).toBe("<s>");
    expect(framed.tokens.at(-1)).toBe("<0x04>");
    expect(framed.ids).toEqual([1, ...bare.ids, 7]);
    expect(model.prompt("Q: red").ids).toEqual(model.tokenizer.encode("Q: red"));
  });

  test("refuses coordinates, and placeholders without pictures", async () => {
    const model = await fixtureModel("fuyu");
    const images = [await picture("tall.png")];
    for (const text of ["<box>1, 2, 3, 4</box>", "at <point>1, 2</point>", "<0x00>1"]) {
      expect(() => model.prompt(text, { images })).toThrow(PromptError);
      expect(() => model.prompt(text, { images })).toThrow("coordinates");
      expect(model.prompt(text).length).toBeGreaterThan(0);
    }
    expect(() => model.prompt("|SPEAKER||SPEAKER|", { images })).toThrow(PromptError);
  });
});

describe.each(["architecture", "processor"] as const)("Mantis' prompts, by its %s", (said) => {
  test.each(golden.mantis)("$text", async ({ text, images, ids }) => {
    await using model = await opened(mantisFiles(said));
    const pictures = await Promise.all(images.map(picture));
    const prompt = model.outline.prompt(text, { images: pictures });
    expect(prompt.ids).toEqual(ids);
    expect(prompt.text.split("<image>").length - 1).toBe(images.length);
    for (const [i] of images.entries()) {
      const span = prompt.span(i === 0 ? "image" : `image${i + 1}`);
      expect(prompt.tokens[span.start - 1]).toBe("|IMAGE|");
      expect(prompt.tokens.slice(span.end, span.end + 2)).toEqual(["|NEWLINE|", "|ENDOFIMAGE|"]);
    }
  });

  test("named pieces, and runs", async () => {
    const device = await testDevice();
    using model = await loadModel(memoryFolder(mantisFiles(said), "mantis"), { device });
    const parts = [
      "Q: ",
      await picture("tall.png"),
      { text: "blue", name: "x" },
      "\nQ:",
      await picture("photo.png"),
    ];
    const prompt = model.prompt(parts);
    const { start, end } = prompt.span("x");
    expect(model.tokenizer.decode(prompt.ids.slice(start, end)).trim()).toBe("blue");
    const [alone, together] = await Promise.all([
      model.generate(prompt, { maxNewTokens: 3, stopIds: [] }),
      model.generate([prompt, model.prompt("x")], { maxNewTokens: 3, stopIds: [] }),
    ]);
    expect(together[0]!.ids).toEqual(alone.ids);
  });
});

test("without its tokens, Mantis' prompts are refused", async () => {
  await using model = await opened(changed("config.json", { architectures: ["MFuyuForCausalLM"] }));
  const images = [await picture("tall.png")];
  expect(() => model.outline.prompt("<image>x", { images })).toThrow("have |IMAGE|");
});

describe("Fuyu's image processor", () => {
  test("patches as transformers cuts them, of 75 pictures", () => {
    for (const {
      size: [height, width, side],
      picture: [w, h],
      grid,
    } of golden.grids) {
      const settings = readFuyuProcessorConfig({
        image_processor_type: "FuyuImageProcessor",
        size: { height, width },
        patch_size: { height: side, width: side },
      });
      const view = viewSize({ width: w, height: h }, settings);
      const own = [view.height / side, view.width / side];
      const label = `${w} x ${h} into ${width} x ${height}`;
      if (grid) expect(own, label).toEqual(grid);
      else
        expect(
          own.every((n) => Number.isInteger(n) && n > 0),
          label,
        ).toBe(false);
    }
  });

  test.each([
    ["do_resize", false],
    ["do_pad", false],
    ["padding_mode", "edge"],
    ["padding_value", 0.5],
    ["size", { shortest_edge: 60 }],
    ["size", 60],
    ["patch_size", { height: 10, width: 12 }],
    ["image_processor_type", "CLIPImageProcessor"],
  ])("%s %j is refused by name", (field, value) => {
    const json = { image_processor_type: "FuyuImageProcessor", [field]: value };
    expect(() => readFuyuProcessorConfig(json)).toThrow(CheckpointError);
    expect(() => readFuyuProcessorConfig(json)).toThrow(field);
  });

  test("pictures that patches do not fill are refused", async () => {
    const model = await fixtureModel("fuyu");
    const values = { data: new Float32Array(3 * 25 * 20), shape: [3, 25, 20] as const };
    expect(() => model.prompt(["x", values])).toThrow(ImageError);
    expect(() => model.prompt(["x", values])).toThrow("multiples of 10");
  });
});

describe("checkpoints of Fuyu", () => {
  async function logitsOf(files: Files): Promise<Float32Array> {
    using model = await loadModel(memoryFolder(files, "fuyu"), { device: await testDevice() });
    const prompt = model.prompt("What color is it?", { images: [await picture("tall.png")] });
    return await model.run(prompt).logits!.read();
  }

  test("as published: the text's fields among those of the whole", async () => {
    const files = fixtureFiles("fuyu");
    const { text_config, ...outer } = read(files, "config.json");
    const { model_type: _, rope_scaling: __, ...text } = text_config as Json;
    write(files, "config.json", { ...text, ...outer });
    expect(await logitsOf(files)).toEqual(await logitsOf(fixtureFiles("fuyu")));
    write(files, "config.json", { ...text, ...outer, rope_theta: 500 });
    expect(await logitsOf(files)).not.toEqual(await logitsOf(fixtureFiles("fuyu")));
    write(files, "config.json", { ...text, ...outer, partial_rotary_factor: 1 });
    await expect(logitsOf(files)).rejects.toThrow("partial_rotary_factor 1 outside");
  });

  test("its language model by itself is Persimmon", async () => {
    const files = fixtureFiles("fuyu");
    write(files, "config.json", read(files, "config.json")["text_config"]);
    const tensors = [...(await tensorsOf(files)).values()].map((tensor) => ({
      ...tensor,
      name: tensor.name.replace("language_model.", ""),
    }));
    const text = tensors.filter(({ name }) => !name.startsWith("vision_embed_tokens"));
    using model = await loadModel(memoryFolder(await withTensors(files, text), "persimmon"), {
      device: await testDevice(),
    });
    expect([model.family, model.config.vision]).toEqual(["persimmon", undefined]);
    const whole = await fixtureModel("fuyu");
    const logits = await model.run(model.prompt("Q: red")).logits!.read();
    expect(logits).toEqual(await whole.run(whole.prompt("Q: red")).logits!.read());
  });

  test("as transformers 5 writes configs and names modules", async () => {
    const files = fixtureFiles("fuyu");
    const config = read(files, "config.json");
    const { rope_theta, partial_rotary_factor, rope_scaling: _, ...text } = config["text_config"] as Json;
    const rope_parameters = { rope_type: "default", rope_theta, partial_rotary_factor };
    write(files, "config.json", { ...config, text_config: { ...text, rope_parameters } });
    const tensors = [...(await tensorsOf(files)).values()].map((tensor) => ({
      ...tensor,
      name: tensor.name
        .replace("language_model.lm_head", "lm_head")
        .replace("language_model.model.", "model.language_model.")
        .replace(/^vision_embed_tokens/, "model.vision_embed_tokens"),
    }));
    expect(tensors.map(({ name }) => name)).toContain("model.vision_embed_tokens.bias");
    expect(await logitsOf(await withTensors(files, tensors))).toEqual(await logitsOf(fixtureFiles("fuyu")));
  });

  test.each([
    [{ patch_size: 12 }, "patch_size"],
    [{ num_channels: 1 }, "num_channels"],
    [{ image_token_id: 411 }, "image_token_id"],
    [{ text_config: { model_type: "llama" } }, "llama"],
    [
      { text_config: { model_type: "persimmon", hidden_size: 48, num_attention_heads: 4, head_dim: 8 } },
      "head_dim",
    ],
    [
      { text_config: { hidden_size: 48, num_attention_heads: 4, partial_rotary_factor: 0.3 } },
      "partial_rotary_factor",
    ],
    [{ text_config: { hidden_size: 48, num_attention_heads: 4, qk_layernorm: "x" } }, "qk_layernorm"],
  ])("refused by name: %j", async (change, name) => {
    await expect(opened(changed("config.json", change))).rejects.toThrow(name);
  });

  test("the sites are the text's, and what patches become", async () => {
    const { sites, config } = await fixtureModel("fuyu");
    expect(siteNames(sites).filter((site) => !/\.\d+$/.test(site))).toEqual([
      "projector",
      "embed",
      "final_norm",
      "logits",
    ]);
    expect(config.vision!.tower.layers).toBe(0);
    const model = await fixtureModel("fuyu");
    const prompt = model.prompt("x", { images: [await picture("tall.png")] });
    expect(() => model.run(prompt, { taps: { x: tap("vision.resid_post.0" as never) } })).toThrow(
      "no vision tower",
    );
    expect(() => model.run(prompt, { taps: { x: tap("vision.embed" as never) } })).toThrow("no such site");
  });
});

test("gradients reach pixels, patches' weights and the stream, as finite differences have them", async () => {
  const model = await fixtureModel("fuyu");
  const { processor } = model.config.vision!;
  const values = preprocess(await picture("tall.png"), processor);
  const promptOf = (data: Float32Array<ArrayBuffer>) =>
    model.prompt("What color is it?", { images: [{ ...values, data }] });
  const [a, b] = [301, 40];
  const metric = async (data: Float32Array<ArrayBuffer>) => {
    const logits = await model.run(promptOf(data)).logits!.read();
    return logits[a]! - logits[b]!;
  };
  const scope = model.device.openScope();
  const result = scope.enter(() =>
    model.gradients(promptOf(values.data), logitDifference(a, b), {
      of: "resid_post.0",
      pixels: true,
      weights: ["vision_embed_tokens.weight", "vision_embed_tokens.bias"],
    }),
  );
  const pixels = (await result.pixels[0]!.read()) as Float32Array; // [patches, side * side * 3]
  expect(result.pixels[0]!.shape).toEqual([18, 300]);
  // A picture's numbers in the order of the rows.
  const order = pixelRows({ ...values, data: Float32Array.from(values.data, (_, i) => i) }, 10);
  const direction = Float32Array.from(pixels, (g) => Math.sign(g));
  const along = (step: number) => {
    const data = values.data.slice();
    direction.forEach((d, i) => {
      data[order[i]!]! += step * d;
    });
    return metric(data);
  };
  const step = 2e-3;
  const slope = ((await along(step)) - (await along(-step))) / (2 * step);
  const expected = pixels.reduce((sum, g) => sum + Math.abs(g), 0);
  expect(Math.abs(slope - expected)).toBeLessThan(2e-2 * Math.abs(expected));
  // The bias moves all patches alike: its gradient is the sum over what the patches' rows have at the embedding.
  const bias = (await result.weights["vision_embed_tokens.bias"]!.read()) as Float32Array;
  const embed = scope.enter(() =>
    model.gradients(promptOf(values.data), logitDifference(a, b), { of: "embed" }),
  );
  const rows = (await (embed.gradients as Record<string, { read(): Promise<Float32Array> }>)[
    "embed"
  ]!.read()) as Float32Array;
  const { width } = model.config;
  const sums = new Float32Array(width);
  for (const position of patchPositions(promptOf(values.data).span("image"))) {
    for (let i = 0; i < width; i++) sums[i]! += rows[position * width + i]!;
  }
  expectClose(bias, sums, { atol: 1e-5, rtol: 1e-4 });
  scope.dispose();
});
