import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { modelView, preprocess, viewSize } from "../../src/images/preprocess.ts";
import {
  type GridProcessorSettings,
  readIdefics3Processor,
  readInternVlProcessor,
} from "../../src/images/processors/grid-processor-config.ts";
import { tileGrid } from "../../src/images/tile-grid.ts";
import { expectClose } from "../helpers/compare.ts";

interface Case {
  readonly kind: "idefics3" | "internvl";
  readonly settings: string;
  readonly width: number;
  readonly height: number;
  readonly tiles: number;
  readonly rows: number | null;
  readonly columns: number | null;
  readonly sample: readonly number[];
  readonly mean: number;
}
/** By make.py beside it. */
const golden: {
  readonly settings: Readonly<Record<Case["kind"], Readonly<Record<string, object>>>>;
  readonly cases: readonly Case[];
} = JSON.parse(readFileSync("test/fixtures/preprocess/grids/case.json", "utf8"));

const READ: Readonly<Record<Case["kind"], (settings: object) => GridProcessorSettings>> = {
  idefics3: (settings) =>
    readIdefics3Processor({ image_processor_type: "Idefics3ImageProcessorFast", ...settings }),
  internvl: (settings) =>
    readInternVlProcessor({ image_processor_type: "GotOcr2ImageProcessorFast", ...settings }),
};

/** As make.py draws it. */
function picture({ width, height }: { width: number; height: number }) {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => Math.floor((i * i) / 7) % 251);
  return { width, height, data };
}

const kinds = Object.keys(READ) as Case["kind"][];
describe.each(
  kinds.flatMap((kind) => Object.keys(golden.settings[kind]).map((name) => [kind, name] as const)),
)("%s: %s", (kind, name) => {
  const processor = READ[kind](golden.settings[kind][name]!);
  const cases = golden.cases.filter((c) => c.kind === kind && c.settings === name);

  test("pictures of any size are cut as transformers cuts them, into the same pixel values", () => {
    expect(cases.length).toBeGreaterThan(1);
    for (const c of cases) {
      const label = `${c.width} x ${c.height}`;
      const { data, shape, tiling } = preprocess(picture(c), processor);
      expect(tiling?.count, label).toBe(c.tiles);
      const grid = tileGrid(c, processor.grid);
      expect(tiling?.grid, label).toEqual(grid);
      if (c.rows !== null) expect([grid?.rows ?? 0, grid?.columns ?? 0], label).toEqual([c.rows, c.columns]);
      expect(shape, label).toEqual([3, processor.grid.side, processor.grid.side]);
      const found = c.sample.map((_, k) => data[(k * 99991) % data.length]!);
      expectClose(found, c.sample, { atol: 2e-6, rtol: 0, label });
      expect(Math.abs(data.reduce((sum, x) => sum + x, 0) / data.length - c.mean)).toBeLessThan(1e-6);
    }
  });

  test("what the model sees of it as a whole is the last tile", () => {
    for (const c of cases.slice(0, 12)) {
      const view = modelView(picture(c), processor);
      expect([view.width, view.height]).toEqual([processor.grid.side, processor.grid.side]);
      expect(viewSize(c, processor)).toEqual({ width: view.width, height: view.height });
      const { data } = preprocess(picture(c), processor);
      const { mean, std } = processor.normalize!;
      const last = data.subarray(data.length - view.data.length);
      const plane = view.data.length / 3;
      for (const i of [0, plane - 1, Math.floor(plane / 2)]) {
        expect(last[i]!).toBeCloseTo((view.data[3 * i]! / 255 - mean[0]) / std[0], 4);
      }
    }
  });
});

describe("refuses by name", () => {
  const read = (settings: object) =>
    readIdefics3Processor({ image_processor_type: "SmolVLMImageProcessor", ...settings });

  test.each<[string, object, RegExp]>([
    ["another class", { image_processor_type: "CLIPImageProcessor" }, /image_processor_type to be one of/],
    [
      "tiles that are no squares",
      { max_image_size: { height: 3, width: 4 } },
      /longest_edge to be all that there is/,
    ],
    ["sizes of another kind", { size: { shortest_edge: 7 } }, /size to be an object of longest_edge/],
    ["a flag that is none", { do_image_splitting: 1 }, /do_image_splitting to be true or false/],
    ["an unknown filter", { resample: 9 }, /resample to be one of/],
  ])("%s", (_, settings, message) => {
    expect(() => read(settings)).toThrow(message);
  });

  test.each<[string, object, RegExp]>([
    [
      "another class",
      { image_processor_type: "Idefics3ImageProcessor" },
      /image_processor_type to be one of/,
    ],
    [
      "tiles that are no squares",
      { size: { height: 3, width: 4 } },
      /size to be the height and width of a square/,
    ],
    ["no tile at all", { max_patches: 0 }, /max_patches to be a whole number >= 1/],
    [
      "pictures of any size",
      { max_patches: 1, do_resize: false },
      /do_resize to be true where nothing is cut/,
    ],
  ])("%s, of InternVL", (_, settings, message) => {
    const given = { image_processor_type: "GotOcr2ImageProcessor", ...settings };
    expect(() => readInternVlProcessor(given)).toThrow(message);
  });

  test("InternVL's pictures are cut whatever crop_to_patches says, as its processor has it", () => {
    const given = { image_processor_type: "GotOcr2ImageProcessor", crop_to_patches: false };
    expect(readInternVlProcessor(given).grid).toEqual({
      by: "ratio",
      side: 384,
      splits: true,
      fewest: 1,
      most: 12,
    });
  });

  test("and takes what its class has where a config is silent", () => {
    expect(read({})).toMatchObject({
      grid: { by: "multiples", side: 364, splits: true, first: { longestEdge: 1456 } },
      resize: { to: { width: 364, height: 364 }, filter: "lanczos" },
      normalize: { mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] },
    });
  });
});
