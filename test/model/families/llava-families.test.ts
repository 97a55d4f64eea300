import { describe, expect, test } from "vitest";
import { CheckpointError } from "../../../src/errors.ts";
import { loadImage } from "../../../src/images/files/load.ts";
import { type PixelValues, preprocess } from "../../../src/images/preprocess.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { OpenModel } from "../../../src/model/open-model.ts";
import { type Prompt, patchColumn, patchPositions, patchRow } from "../../../src/model/prompt/prompt.ts";
import { addVector, type Edit } from "../../../src/patching/edit.ts";
import { logitDifference } from "../../../src/patching/metric.ts";
import { tap } from "../../../src/patching/tap.ts";
import { fixtureFiles } from "../../helpers/checkpoints.ts";
import { randomArray } from "../../helpers/compare.ts";
import { fixtureModel, readAll } from "../../helpers/model.ts";

// Gemma 3, LLaVA-OneVision and LLaVA with a Pixtral tower: prompts, what configs mean, gradients.

type Json = Record<string, unknown>;

const picture = (name: string) => loadImage(`test/fixtures/images/${name}.png`);

describe("Gemma 3", () => {
  test("a picture is a run of feature tokens between two of its own, with lines around them", async () => {
    const model = await fixtureModel("gemma3");
    const prompt = model.prompt(["Q:", await picture("photo"), "A:"]);
    const { start, end, grid } = prompt.span("image");
    expect([end - start, grid]).toEqual([16, { rows: 4, columns: 4 }]);
    expect(prompt.tokens.slice(start, end)).toEqual(Array(16).fill("<image_soft_token>"));
    expect([prompt.tokens[start - 1], prompt.tokens[end]]).toEqual(["<start_of_image>", "<end_of_image>"]);
    expect([prompt.tokens[0], prompt.text]).toEqual(["<bos>", "Q:<start_of_image>A:"]);
  });

  test("tokens of a picture see all of it, in layers with a window those in reach; text sees what came before", async () => {
    const model = await fixtureModel("gemma3");
    const prompt = model.prompt(["The capital of France is", await picture("photo"), "A:"]);
    const taps = { local: tap("pattern.0"), global: tap("pattern.1") };
    const { local, global } = await readAll(model.run(prompt, { taps, stopAfter: 1 }));
    const { start, end } = prompt.span("image");
    const seen = (pattern: Float32Array, query: number) =>
      Array.from({ length: prompt.length }, (_, key) => key).filter(
        (key) => pattern[query * prompt.length + key]! > 0,
      );
    const upTo = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
    expect(seen(global, start + 2)).toEqual(upTo(0, end));
    expect(seen(local, start + 2)).toEqual(upTo(start - 5, end)); // a window of 8
    expect(seen(local, end - 1)).toEqual(upTo(end - 8, end));
    expect(seen(global, start - 1)).toEqual(upTo(0, start));
    expect(seen(local, end)).toEqual(upTo(end - 7, end + 1));
  });
});

describe("LLaVA-OneVision", () => {
  test("a picture alone is cut, with a map whose rows end in a further position; of several each is whole", async () => {
    const model = await fixtureModel("llava_onevision");
    const [photo, tall] = [await picture("photo"), await picture("tall")];
    const { parts, ...span } = model.prompt([photo, "Q:"]).span("image");
    const { whole, map } = parts!;
    expect(whole).toEqual({ start: 0, end: 16, grid: { rows: 4, columns: 4 } });
    expect(map!.rowStride).toBe(map!.grid!.columns + 1);
    expect(span.end).toBe(16 + map!.grid!.rows * map!.rowStride!);
    const both = model.prompt([photo, "Q:", tall]);
    expect(both.images.map((image) => (image as { whole?: boolean }).whole)).toEqual([true, true]);
    for (const name of ["image", "image2"]) {
      const { start, end, parts } = both.span(name);
      expect([end - start, parts!.map]).toEqual([17, undefined]);
    }
    // The same object each time, so that prompts about one picture can be told to be.
    expect(model.prompt([tall, photo]).images[1]).toBe(both.images[0]);
    expect(model.promptFromIds(both.ids, [photo, tall]).images).toEqual(both.images);
  });

  test("videos are refused", async () => {
    const model = await fixtureModel("llava_onevision");
    expect(() => model.promptFromIds([320, 20])).toThrow(/without videos/);
  });
});

describe("a Pixtral tower", () => {
  test("rows of patches have a token of their own behind them", async () => {
    const model = await fixtureModel("llava-pixtral");
    const prompt = model.prompt(["Q:", await picture("tall"), "A:"]);
    const span = prompt.span("image");
    const { rows, columns } = span.grid!;
    expect([rows, columns, span.rowStride]).toEqual([6, 3, 4]);
    expect(patchPositions(span).map((position) => prompt.tokens[position])).toEqual(Array(18).fill("[IMG]"));
    const row = patchRow(span, 1);
    expect([prompt.tokens[row.end], row.end - row.start]).toEqual(["[IMG_BREAK]", 3]);
    expect(patchColumn(span, -1)).toEqual(Array.from({ length: 6 }, (_, r) => span.start + 2 + 4 * r));
    expect(prompt.tokens[span.end]).toBe("[IMG_END]");
  });
});

describe("refused by name", () => {
  const open = async (name: string, file: string, change: (json: Json) => unknown) => {
    const files = fixtureFiles(name);
    const json = files.has(file) ? JSON.parse(new TextDecoder().decode(files.get(file))) : {};
    change(json);
    files.set(file, new TextEncoder().encode(JSON.stringify(json)));
    await using opened = await OpenModel.open(memoryFolder(files, name));
    return opened.outline;
  };

  const inner = (json: Json, section: string) => json[section] as Json;
  test.each<[string, string, RegExp, (json: Json) => unknown]>([
    [
      "gemma3",
      "preprocessor_config.json",
      /do_pan_and_scan .* pan and scan/,
      (p) => (p["do_pan_and_scan"] = true),
    ],
    ["gemma3", "config.json", /mm_tokens_per_image .* found 9/, (c) => (c["mm_tokens_per_image"] = 9)],
    ["gemma3", "processor_config.json", /image_seq_length .* found 256/, (p) => delete p["image_seq_length"]],
    ["gemma3", "config.json", /Gemma 3 over clip/, (c) => (inner(c, "vision_config")["model_type"] = "clip")],
    [
      "gemma3",
      "config.json",
      /Gemma 3 over "llama"/,
      (c) => (inner(c, "text_config")["model_type"] = "llama"),
    ],
    [
      "llava_onevision",
      "config.json",
      /vision_aspect_ratio "anyres"/,
      (c) => (c["vision_aspect_ratio"] = "anyres"),
    ],
    [
      "llava_onevision",
      "processor_config.json",
      /vision_aspect_ratio .* "anyres_max_2".* "anyres_max_9"/,
      (p) => delete p["vision_aspect_ratio"],
    ],
    [
      "llava_onevision",
      "processor_config.json",
      /num_image_tokens .* 16/,
      (p) => (p["num_image_tokens"] = 9),
    ],
    ["llava_onevision", "config.json", /image_grid_pinpoints/, (c) => delete c["image_grid_pinpoints"]],
    [
      "llava-pixtral",
      "processor_config.json",
      /spatial_merge_size 2 .* patch merger/,
      (p) => (p["spatial_merge_size"] = 2),
    ],
    ["llava-pixtral", "processor_config.json", /patch_size .* 8, found 16/, (p) => delete p["patch_size"]],
    [
      "llava-pixtral",
      "config.json",
      /select_strategy "default"/,
      (c) => delete c["vision_feature_select_strategy"],
    ],
    [
      "llava-pixtral",
      "config.json",
      /LLaVA over "mamba"/,
      (c) => (inner(c, "text_config")["model_type"] = "mamba"),
    ],
    ["llava-pixtral", "preprocessor_config.json", /do_resize to be true/, (p) => (p["do_resize"] = false)],
  ])("%s, %s: %s", async (name, file, message, change) => {
    const attempt = open(name, file, change);
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toBeInstanceOf(CheckpointError);
  });
});

describe.each(["gemma3", "llava_onevision", "llava-pixtral"])("gradients through %s", (name) => {
  const METRIC = logitDifference(301, 40);
  const STEP = 5e-3;

  async function setUp() {
    const model = await fixtureModel(name);
    const pixels = preprocess(await picture("photo"), model.config.vision!.processor);
    const promptOf = (values: PixelValues) => model.prompt(["Q:", values, "\nA:"]);
    const value = async (prompt: Prompt, edits: readonly Edit[] = []) => {
      const logits = await model.run(prompt, { edits }).logits!.read();
      return logits[301]! - logits[40]!;
    };
    return { model, pixels, promptOf, value };
  }

  /** Throws unless they agree, and are something. */
  function expectSlope(what: string, found: number, slope: number) {
    expect(Math.abs(found), what).toBeGreaterThan(1e-3);
    const most = 1e-2 * Math.max(0.2, Math.abs(slope));
    expect(Math.abs(found - slope), `${what}: ${found} and ${slope}`).toBeLessThan(most);
  }

  test("are the slopes of the metric at sites of every stack", async () => {
    const { model, pixels, promptOf, value } = await setUp();
    const prompt = promptOf(pixels);
    for (const [site, at, options] of [
      ["resid_post.0", prompt.span("image").start + 1, {}],
      ["resid_post.1", -1, {}],
      ["projector", 2, { image: 0 }],
      ["vision.resid_post.0", 3, { image: 0 }],
    ] as const) {
      const { gradients } = model.gradients(prompt, METRIC, { of: site, at });
      const gradient = (await gradients[site]!.read()) as Float32Array;
      const direction = randomArray(gradient.length, 5);
      const moved = (factor: number) =>
        value(prompt, [addVector(site, at, direction, { scale: factor, ...options })]);
      const slope = ((await moved(STEP)) - (await moved(-STEP))) / (2 * STEP);
      expectSlope(
        site,
        gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0),
        slope,
      );
    }
  });

  test("and at pixel values", async () => {
    const { model, pixels, promptOf, value } = await setUp();
    const { pixels: found } = model.gradients(promptOf(pixels), METRIC, { pixels: true });
    const values = await Promise.all([found].flat().map((tensor) => tensor!.read()));
    const sum = values.flatMap((each) => [...each]).reduce((total, g) => total + g, 0);
    // All pixels lighter, whatever the order of the patches.
    const moved = (by: number) => value(promptOf({ ...pixels, data: pixels.data.map((x) => x + by) }));
    expectSlope("pixels", sum, ((await moved(STEP)) - (await moved(-STEP))) / (2 * STEP));
  });
});
