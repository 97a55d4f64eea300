import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { CheckpointError, ImageError } from "../../src/errors.ts";
import { decodeImage } from "../../src/images/files/decode.ts";
import { patchRows, placesInBlocks } from "../../src/images/patch-rows.ts";
import { modelView, preprocess, viewSize } from "../../src/images/preprocess.ts";
import { readProcessorConfig } from "../../src/images/processors/processor-config.ts";
import { smartResize } from "../../src/images/smart-resize.ts";
import { OMITTED } from "../../src/parity/thinned.ts";
import { imageFile, preprocessCase, preprocessGoldens } from "../helpers/image-goldens.ts";

type Case = [number, number, number, number, number, [height: number, width: number] | null];

test("sizes are transformers' smart_resize, also where it refuses", () => {
  const cases: Case[] = JSON.parse(readFileSync("test/fixtures/preprocess/smart-resize.json", "utf8"));
  expect(cases.filter(([, , , , , found]) => found === null).length).toBeGreaterThan(10);
  for (const [height, width, multiple, minPixels, maxPixels, expected] of cases) {
    const resized = () => smartResize({ height, width }, { multiple, minPixels, maxPixels });
    if (expected) expect(resized()).toEqual({ height: expected[0], width: expected[1] });
    else expect(resized).toThrow(ImageError);
  }
});

describe("Qwen2-VL's processor", () => {
  const config = preprocessCase.configs["qwen2_vl"]!;

  test.each(["photo.png", "tall.png", "rgba.png"])("%s: transformers' patches to 1e-6", async (name) => {
    const image = await decodeImage(imageFile(name));
    const settings = readProcessorConfig(config);
    const values = preprocess(image, settings);
    const [, height, width] = values.shape;
    expect(viewSize(image, settings)).toEqual({ height, width });
    const { patches } = settings;
    const side = patches!.size * patches!.merge;
    const places = placesInBlocks({ rows: height / side, columns: width / side }, patches!.merge);
    const golden = preprocessGoldens.get(`qwen2_vl/${name}/pixel_values`)!;
    const found = patchRows(values, patches!, places);
    expect(found.length).toBe(golden.data.length);
    let worst = 0;
    for (let i = 0; i < found.length; i++) {
      if (golden.data[i] !== OMITTED) worst = Math.max(worst, Math.abs(found[i]! - golden.data[i]!));
    }
    expect(worst).toBeLessThanOrEqual(1e-6);
  });

  const boundsOf = (changes: object, without: readonly string[] = []) => {
    const changed = Object.fromEntries(
      Object.entries({ ...config, ...changes }).filter(([key]) => !without.includes(key)),
    );
    return readProcessorConfig(changed).resize!.to;
  };

  test("bounds come from size, and over it from min_pixels and max_pixels", () => {
    const class_ = { minPixels: 56 * 56, maxPixels: 28 * 28 * 1280, multiple: 28 };
    expect(boundsOf({}, ["size"])).toEqual(class_);
    expect(boundsOf({ min_pixels: 4000 }, ["size"])).toEqual({ ...class_, minPixels: 4000 });
    expect(boundsOf({ max_pixels: 4000, size: { shortest_edge: 5, longest_edge: 6 } })).toEqual({
      ...{ minPixels: 5, maxPixels: 4000, multiple: 28 },
    });
    const both = { min_pixels: 7, max_pixels: 8 };
    expect(boundsOf({ ...both, size: both, patch_size: 16 })).toEqual({
      ...{ minPixels: 7, maxPixels: 8, multiple: 32 },
    });
  });

  test("sizes of other kinds are refused", () => {
    for (const size of [
      { height: 56, width: 56 },
      { min_pixels: 7, max_pixels: 8 },
      { shortest_edge: 56 },
      { longest_edge: 56, shortest_edge: 0 },
      56,
    ]) {
      expect(() => boundsOf({ size })).toThrow(CheckpointError);
    }
  });

  test("does not crop, whatever the config says", () => {
    const settings = readProcessorConfig({ ...config, do_center_crop: true, crop_size: 28 });
    const view = modelView({ width: 60, height: 60, data: new Uint8Array(3 * 60 * 60) }, settings);
    expect([view.width, view.height]).toEqual([56, 56]);
  });
});
