import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { CheckpointError, ImageError, PromptError } from "../../../src/errors.ts";
import { loadImage } from "../../../src/images/files/load.ts";
import { preprocess } from "../../../src/images/preprocess.ts";
import { readProcessorConfig } from "../../../src/images/processors/processor-config.ts";
import { readTiledProcessorConfig } from "../../../src/images/processors/tiled-processor-config.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { featureMap, placesOf } from "../../../src/model/families/pictures/parts/llava-tiles.ts";
import { OpenModel } from "../../../src/model/open-model.ts";
import { tap } from "../../../src/patching/tap.ts";
import { fixtureFiles } from "../../helpers/checkpoints.ts";
import { expectClose } from "../../helpers/compare.ts";
import { fixtureModel, readAll } from "../../helpers/model.ts";

type Json = Record<string, unknown>;

interface Case {
  readonly settings: string;
  readonly width: number;
  readonly height: number;
  readonly tiles: number;
  readonly places: number;
  readonly sum: number;
  readonly sample: readonly number[];
  readonly pixels?: readonly number[];
  readonly mean?: number;
}
interface Golden {
  readonly settings: Readonly<Record<string, { side: number; patch: number; pinpoints: [number, number][] }>>;
  readonly cases: readonly Case[];
}

const golden: Golden = JSON.parse(readFileSync("test/fixtures/preprocess/tiles/case.json", "utf8"));

const processorOf = (settings: string) => {
  const { side, pinpoints } = golden.settings[settings]!;
  return readTiledProcessorConfig({
    image_processor_type: "LlavaNextImageProcessor",
    size: { shortest_edge: side },
    crop_size: { height: side, width: side },
    image_grid_pinpoints: pinpoints,
  });
};

/** As make.py draws it. */
function picture({ width, height }: { width: number; height: number }) {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => Math.floor((i * i) / 7) % 251);
  return { width, height, data };
}

describe.each(Object.keys(golden.settings))("pinpoints: %s", (settings) => {
  const cases = golden.cases.filter((c) => c.settings === settings);
  const { side: pixels, patch } = golden.settings[settings]!;
  const side = Math.floor(pixels / patch);
  const { tiles } = processorOf(settings);

  test("the features of a picture of any size are in transformers' places", () => {
    for (const c of cases) {
      const map = featureMap(c, tiles, side);
      const places = placesOf(map, side, -1);
      expect({
        size: [c.width, c.height],
        tiles: 1 + map.tileRows * map.tileColumns,
        places: places.length,
        sum: places.reduce((a, b) => a + b, 0),
        sample: c.sample.map((_, k) => places[(k * 97) % places.length]),
      }).toEqual({
        size: [c.width, c.height],
        tiles: c.tiles,
        places: c.places,
        sum: c.sum,
        sample: c.sample,
      });
    }
  });

  test("and its tiles have transformers' pixel values", () => {
    for (const c of cases) {
      if (!c.pixels) continue;
      const { data, shape, tiling } = preprocess(picture(c), processorOf(settings));
      expect([shape, tiling]).toEqual([
        [3, pixels, pixels],
        { count: c.tiles, width: c.width, height: c.height },
      ]);
      const found = c.pixels.map((_, k) => data[(k * 99991) % data.length]!);
      expectClose(found, c.pixels, { atol: 2e-6, rtol: 0, label: `${c.width} x ${c.height}` });
      const mean = data.reduce((sum, x) => sum + x, 0) / data.length;
      expect(Math.abs(mean - c.mean!)).toBeLessThan(1e-6);
    }
  });
});

describe("refuses by name", () => {
  const refusal = async (change: (config: Json, processor: Json) => unknown) => {
    const files = fixtureFiles("llava_next");
    const read = (name: string) => JSON.parse(new TextDecoder().decode(files.get(name)));
    const [config, processor] = [read("config.json"), read("preprocessor_config.json")];
    change(config, processor);
    const write = (name: string, json: unknown) =>
      files.set(name, new TextEncoder().encode(JSON.stringify(json)));
    write("config.json", config);
    write("preprocessor_config.json", processor);
    await using _ = await OpenModel.open(memoryFolder(files, "llava_next"));
  };

  test.each<[string, RegExp, (config: Json, processor: Json) => void]>([
    [
      "pinpoints that differ",
      /image_grid_pinpoints to be those of/,
      (c) => (c["image_grid_pinpoints"] = [[56, 112]]),
    ],
    [
      "pinpoints that are no whole tiles",
      /image_grid_pinpoints to be at least one .* multiples of the size of a tile, 56/,
      (c, p) => (p["image_grid_pinpoints"] = c["image_grid_pinpoints"] = [[56, 100]]),
    ],
    [
      "tiles that are no squares",
      /crop_size to be a square/,
      (_, p) => (p["crop_size"] = { height: 56, width: 28 }),
    ],
    ["another size of the whole picture", /size to be the size of a tile/, (_, p) => (p["size"] = 28)],
    [
      "tiles that the tower does not take",
      /expected tiles .* of 56 pixels/,
      (_, p) => Object.assign(p, { crop_size: 28, size: 28, image_grid_pinpoints: [[28, 56]] }),
    ],
    [
      "a class token among the features",
      /vision_feature_select_strategy "full" of a clip tower/,
      (c) => (c["vision_feature_select_strategy"] = "full"),
    ],
    ["attention to later tokens", /is_causal false is not supported/, (c) => (c["is_causal"] = false)],
    ["several layers of the tower", /vision_feature_layer/, (c) => (c["vision_feature_layer"] = [-2, -1])],
    [
      "the processor of another model",
      /image_processor_type to be one of LlavaNextImageProcessor/,
      (_, p) => (p["image_processor_type"] = "CLIPImageProcessor"),
    ],
  ])("%s", async (_, message, change) => {
    const attempt = refusal(change);
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toBeInstanceOf(CheckpointError);
  });

  test("and takes its own files", async () => {
    await refusal(() => {});
    await refusal((c) => (c["is_causal"] = null));
  });

  test("a LLaVA-1.5 with a processor that cuts tiles", () => {
    expect(() => readProcessorConfig({ image_processor_type: "LlavaNextImageProcessor" })).toThrow(
      /image_processor_type to be one of CLIPImageProcessor/,
    );
  });
});

describe("a model", () => {
  const photo = () => loadImage("test/fixtures/images/photo.png");
  const tall = () => loadImage("test/fixtures/images/tall.png");

  test("pictures take as many positions as their tiles leave features", async () => {
    const model = await fixtureModel("llava_next");
    const prompt = model.prompt(["Q:", await tall(), "\nA: red\n\nQ:", await photo(), "\nA:"]);
    const lengthOf = (name: string) => prompt.span(name).end - prompt.span(name).start;
    expect([lengthOf("image"), lengthOf("image2")]).toEqual([56, 70]);
    expect(prompt.span("image").grid).toBeUndefined();
  });

  test("the projector's rows are the whole picture, then the tiles' features row by row, each row with its end", async () => {
    const model = await fixtureModel("llava_next");
    const image = await photo();
    const prompt = model.prompt(["Q:", image, "\nA:"]);
    const taps = {
      tiles: tap("tile_features"),
      places: tap("projector"),
      rows: tap("embed", { span: "image" }),
    };
    const { tiles, places, rows } = await readAll(model.run(prompt, { taps, stopAfter: 0 }));
    expect([...rows]).toEqual([...places]);
    const { width } = model.config;
    const row = (values: Float32Array, i: number) => [...values.subarray(i * width, (i + 1) * width)];
    const map = featureMap(image, model.config.vision!.processor.tiles!, 4);
    const newlines = placesOf(map, 4, -1).flatMap((feature, place) => {
      if (feature >= 0) expect(row(places, place)).toEqual(row(tiles, feature));
      return feature < 0 ? [place] : [];
    });
    expect(newlines.length).toBe(map.rows);
    for (const place of newlines) expect(row(places, place)).toEqual(row(places, newlines[0]!));
  });

  test("a tile sees itself only", async () => {
    const model = await fixtureModel("llava_next");
    const prompt = model.prompt(["Q:", await tall(), "\nA:"]);
    const { pattern } = await readAll(
      model.run(prompt, { taps: { pattern: tap("vision.pattern.0") }, stopAfter: 0 }),
    );
    const rows = 3 * 17; // three tiles of a class token and sixteen patches
    expect(pattern.length).toBe(4 * rows * rows);
    for (const [i, weight] of pattern.entries()) {
      const [key, query] = [i % rows, Math.floor(i / rows) % rows];
      expect(weight > 0).toBe(Math.floor(key / 17) === Math.floor(query / 17));
    }
  });

  test("pixel values need the size that the picture had, and as many tiles as go with it", async () => {
    const model = await fixtureModel("llava_next");
    const values = preprocess(await tall(), model.config.vision!.processor);
    const { tiling, ...square } = values;
    const first = { ...square, data: square.data.slice(0, 3 * 56 * 56) };
    expect(() => model.prompt(["Q:", first, "\nA:"])).toThrow(ImageError);
    const prompt = model.prompt(["Q:", values, "\nA:"]);
    expect(prompt.ids).toEqual(model.prompt(["Q:", await tall(), "\nA:"]).ids);
    const wide = { ...values, tiling: { ...tiling!, width: 90, height: 90 } };
    const wrong = model.prompt(["Q:", wide, "\nA:"]);
    expect(() => model.run(wrong)).toThrow(/expected pixel values of 5 tile\(s\) for this model, found 3/);
    const ids = prompt.ids.filter((id, i) => i !== prompt.span("image").start || id < 0);
    expect(() => model.promptFromIds(ids, [values])).toThrow(PromptError);
  });
});
