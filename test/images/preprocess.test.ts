import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { CheckpointError, ImageError } from "../../src/errors.ts";
import { decodeImage } from "../../src/images/files/decode.ts";
import { modelView, preprocess } from "../../src/images/preprocess.ts";
import { readProcessorConfig } from "../../src/images/processors/processor-config.ts";
import type { Checkpoint } from "../../src/model/checkpoint/checkpoint.ts";
import { processorJson } from "../../src/model/checkpoint/processor-file.ts";
import { OMITTED } from "../../src/parity/thinned.ts";
import { imageFile, preprocessCase, preprocessGoldens } from "../helpers/image-goldens.ts";

const grey = (width: number, height: number, value = 128) => ({
  width,
  height,
  data: new Uint8Array(width * height * 3).fill(value),
});

describe("preprocess", () => {
  const cases = ["clip-crop", "clip-crop-odd", "llava-pad", "siglip"].flatMap((config) =>
    preprocessCase.images.map(({ name }) => ({ config, name })),
  );
  test.each(cases)("$config on $name: transformers' pixel values to 1e-6", async ({ config, name }) => {
    const image = await decodeImage(imageFile(name));
    const settings = readProcessorConfig(preprocessCase.configs[config]);
    const { data, shape } = preprocess(image, settings);
    const golden = preprocessGoldens.get(`${config}/${name}/pixel_values`)!;
    expect([1, ...shape]).toEqual(golden.shape);
    let worst = 0;
    for (let i = 0; i < data.length; i++) {
      if (golden.data[i] !== OMITTED) worst = Math.max(worst, Math.abs(data[i]! - golden.data[i]!));
    }
    expect(worst).toBeLessThanOrEqual(1e-6);
  });

  test("without any of the steps: the bytes as floats, in planes", () => {
    const off = { do_resize: false, do_center_crop: false, do_rescale: false, do_normalize: false };
    const settings = readProcessorConfig({ image_processor_type: "CLIPImageProcessor", ...off });
    const image = { width: 2, height: 1, data: Uint8Array.of(1, 2, 3, 4, 5, 6) };
    expect(preprocess(image, settings)).toEqual({
      data: Float32Array.of(1, 4, 2, 5, 3, 6),
      shape: [3, 1, 2],
    });
  });

  test("a crop larger than the picture is black around it", () => {
    const settings = readProcessorConfig({
      image_processor_type: "CLIPImageProcessor",
      do_resize: false,
      crop_size: { height: 3, width: 4 },
    });
    const view = modelView(grey(1, 1, 9), settings);
    const red = Array.from(view.data).filter((_, i) => i % 3 === 0);
    expect(red).toEqual([0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0]);
  });

  test("a crop of a very long picture computes only what it keeps", () => {
    const settings = readProcessorConfig(preprocessCase.configs["clip-crop"]);
    // Resized to a shorter edge of 56, it would be 56 x 5,600,000 pixels.
    expect(modelView(grey(100_000, 1), settings)).toEqual(grey(56, 56));
  });

  test("refuses results of absurd size", () => {
    const uncropped = readProcessorConfig({ ...preprocessCase.configs["clip-crop"], do_center_crop: false });
    expect(() => preprocess(grey(100_000, 1), uncropped)).toThrow(ImageError);
    const padded = readProcessorConfig(preprocessCase.configs["llava-pad"]);
    expect(() => preprocess(grey(100_000, 1), padded)).toThrow(/100000 x 100000/);
  });
});

describe("configs at random, against transformers", () => {
  interface Case {
    config: Record<string, unknown>;
    width: number;
    height: number;
    shape?: number[];
    sample?: number[];
    mean?: number;
  }
  const cases: Case[] = JSON.parse(
    readFileSync(new URL("../fixtures/preprocess/configs/case.json", import.meta.url), "utf8"),
  );
  /** What transformers does and is refused here by name. */
  const REFUSED = /expected (pad_size|do_pad) to be/;

  /** As make.py computes it. */
  function picture({ width, height }: Case) {
    const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => Math.floor((i * i) / 7) % 251);
    return { width, height, data };
  }

  function outcome(c: Case) {
    try {
      return preprocess(picture(c), readProcessorConfig(c.config));
    } catch (error) {
      expect([CheckpointError, ImageError]).toContain((error as Error).constructor);
      return error as Error;
    }
  }

  test("the same shape and values, or a refusal", () => {
    const counts = { alike: 0, refused: 0 };
    for (const c of cases) {
      const found = outcome(c);
      const label = JSON.stringify(c.config);
      if (found instanceof Error) {
        if (c.shape)
          expect({ label, message: found.message }).toEqual({
            label,
            message: expect.stringMatching(REFUSED),
          });
        counts.refused++;
      } else if (c.shape) {
        const { data } = found;
        expect({ label, shape: found.shape }).toEqual({ label, shape: c.shape });
        const largest = Math.max(1, ...c.sample!.map(Math.abs));
        for (const [k, value] of c.sample!.entries()) {
          const worst = Math.abs(data[(k * 997) % data.length]! - value) / largest;
          expect({ label, worst: worst > 1e-6 ? worst : 0 }).toEqual({ label, worst: 0 });
        }
        const mean = data.reduce((sum, value) => sum + value, 0) / data.length;
        expect({ label, off: Math.abs(mean - c.mean!) / largest > 1e-6 }).toEqual({ label, off: false });
        counts.alike++;
      }
    }
    // transformers refuses 113 of the 400.
    expect(counts.alike).toBeGreaterThan(200);
    expect(counts.refused).toBeLessThan(180);
  });
});

describe("readProcessorConfig", () => {
  test("the config that CLIP was published with: plain sizes, an old class name, defaults for the rest", () => {
    const settings = readProcessorConfig({
      crop_size: 224,
      do_center_crop: true,
      do_normalize: true,
      do_resize: true,
      feature_extractor_type: "CLIPFeatureExtractor",
      image_mean: [0.48145466, 0.4578275, 0.40821073],
      image_std: [0.26862954, 0.26130258, 0.27577711],
      resample: 3,
      size: 224,
    });
    const modern = {
      image_processor_type: "CLIPImageProcessorFast",
      crop_size: { height: 224, width: 224 },
      size: { shortest_edge: 224 },
    };
    expect(settings).toEqual(readProcessorConfig(modern));
    expect(settings.resize).toEqual({ to: { shortestEdge: 224 }, filter: "bicubic" });
    expect(settings.scale).toBe(1 / 255);
  });

  test("a processor_config.json holds it under image_processor", () => {
    const inner = preprocessCase.configs["siglip"]!;
    expect(readProcessorConfig({ image_processor: inner, patch_size: 14 })).toEqual(
      readProcessorConfig(inner),
    );
  });

  test("a plain size is the shorter edge, unless default_to_square says otherwise", () => {
    for (const image_processor_type of [
      "CLIPImageProcessor",
      "LlavaImageProcessor",
      "SiglipImageProcessor",
    ]) {
      const plain = { image_processor_type, size: 384 };
      expect(readProcessorConfig(plain).resize?.to).toEqual({ shortestEdge: 384 });
      const square = readProcessorConfig({ ...plain, default_to_square: true });
      expect(square.resize?.to).toEqual({ height: 384, width: 384 });
    }
  });

  test("a longest edge counts: 200 x 3 with edges of 56 and 100 becomes 100 x 2", () => {
    const size = { shortest_edge: 56, longest_edge: 100 };
    const config = { image_processor_type: "CLIPImageProcessor", do_center_crop: false, size };
    expect(preprocess(grey(3, 200), readProcessorConfig(config)).shape).toEqual([3, 100, 2]);
  });

  test("SigLIP crops if its config says so", () => {
    const config = { image_processor_type: "SiglipImageProcessor", crop_size: 10 };
    expect(readProcessorConfig(config).crop).toBeUndefined();
    const crop = { height: 10, width: 10 };
    expect(readProcessorConfig({ ...config, do_center_crop: true }).crop).toEqual(crop);
  });

  test("flags that are null are off", () => {
    const names = ["do_resize", "do_center_crop", "do_normalize"];
    const flags = Object.fromEntries(names.map((name) => [name, null]));
    const settings = readProcessorConfig({ image_processor_type: "CLIPImageProcessor", ...flags });
    expect(settings).toMatchObject({ resize: undefined, crop: undefined, normalize: undefined });
  });

  test("CLIP takes an exact size too, LLaVA pads only when told", () => {
    const exact = { image_processor_type: "LlavaImageProcessor", size: { height: 20, width: 30 } };
    const settings = readProcessorConfig(exact);
    expect(settings.resize?.to).toEqual({ height: 20, width: 30 });
    expect(settings.padColour).toBeUndefined();
    expect(readProcessorConfig({ ...exact, do_pad: true }).padColour).toEqual([122, 116, 104]);
  });

  test("an image_processor in processor_config.json comes before preprocessor_config.json, as in transformers 5", async () => {
    const read = (files: Record<string, unknown>) =>
      processorJson({ json: async (path: string) => files[path] } as Checkpoint);
    const own = { image_processor_type: "CLIPImageProcessor", size: 30 };
    const nested = { image_processor: { ...own, size: 20 } };
    const both = { "preprocessor_config.json": own, "processor_config.json": nested };
    expect(await read(both)).toBe(nested);
    expect(await read({ ...both, "processor_config.json": { patch_size: 14 } })).toBe(own);
    expect(await read({ "processor_config.json": nested })).toBe(nested);
    expect(() => readProcessorConfig({ image_processor: {} })).toThrow(
      /^processor_config.json: image_processor: /,
    );
  });

  const clip = { image_processor_type: "CLIPImageProcessor" };
  test.each([
    ["nothing", null, /expected an object, found null/],
    ["no class", {}, /image_processor_type|feature_extractor_type/],
    [
      "another class",
      { image_processor_type: "FuyuImageProcessor" },
      /one of CLIPImageProcessor.*found "FuyuImageProcessor"/,
    ],
    ["a name from Object.prototype", { image_processor_type: "constructor" }, /found "constructor"/],
    ["a filter that is none", { ...clip, resample: 6 }, /resample to be one of 0 \(nearest\).*found 6/],
    ["a size of 0", { ...clip, size: { shortest_edge: 0 } }, /shortest_edge.*positive whole number.*found 0/],
    [
      "a size without a width",
      { ...clip, size: { height: 4 } },
      /size to be .*height, width; or .*found {"height":4}/,
    ],
    ["a longest edge alone", { ...clip, size: { longest_edge: 4 } }, /size to be .*shortest_edge/],
    ["numbers of pixels", { ...clip, size: { min_pixels: 4, max_pixels: 9 } }, /size to be .*min_pixels/],
    ["a size of too much", { ...clip, size: { height: 4, width: 4, depth: 1 } }, /size to be .*depth/],
    ["a list of three lengths", { ...clip, size: [4, 4, 3] }, /size to be a height and a width.*\[4,4,3\]/],
    ["a crop to an edge", { ...clip, crop_size: { shortest_edge: 4 } }, /crop_size to be .*shortest_edge/],
    [
      "SigLIP's crop without a size",
      { image_processor_type: "SiglipImageProcessor", do_center_crop: true },
      /crop_size to be a size, since do_center_crop is true, found nothing/,
    ],
    ["padding to a size", { ...clip, do_pad: true, pad_size: 300 }, /pad_size to be absent/],
    ["padding of a batch", { ...clip, do_pad: true, do_center_crop: false }, /do_pad to be false where/],
    [
      "a conversion that is no flag",
      { ...clip, do_convert_rgb: "RGB" },
      /do_convert_rgb to be true or false/,
    ],
    ["a fractional crop", { ...clip, crop_size: 1.5 }, /crop_size.*found 1.5/],
    ["a flag that is none", { ...clip, do_resize: "yes" }, /do_resize to be true or false, found "yes"/],
    ["two means", { ...clip, image_mean: [0.5, 0.5] }, /image_mean to be a number or three/],
    ["a deviation of 0", { ...clip, image_std: [1, 0, 1] }, /image_std to be numbers other than 0/],
    ["a factor in words", { ...clip, rescale_factor: "1/255" }, /rescale_factor to be a number/],
  ])("refuses %s", (_, config, message) => {
    expect(() => readProcessorConfig(config, "the file")).toThrow(CheckpointError);
    expect(() => readProcessorConfig(config, "the file")).toThrow(message);
    expect(() => readProcessorConfig(config, "the file")).toThrow(/^the file: /);
  });
});
