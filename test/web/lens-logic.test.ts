import { describe, expect, test } from "vitest";
import { STREAM_SITES } from "../../src/analysis/lens/logit-lens.ts";
import { gridSizes, luminance, mixed, spotUnder } from "../../web/src/views/lens/draw-grid.ts";
import {
  type Bounds,
  editSpecs,
  layerVariants,
  problemOf,
  wantedBy,
  wantedKey,
} from "../../web/src/views/lens/edit-specs.ts";
import { spotAfter } from "../../web/src/views/lens/grid-keys.ts";
import { cellReader } from "../../web/src/views/lens/lens-cells.ts";
import { chosenEdit, type LensEdit, lensSlice, withEdit } from "../../web/src/views/lens/lens-slice.ts";
import { chooseCell, holds, placeInWords, placeOf, putAt } from "../../web/src/views/lens/places.ts";
import { READ_SITES } from "../../web/src/views/lens/site-facts.ts";

const range = (start: number, end: number) => ({ start, end });
const place = (layers: [number, number], positions: [number, number]) => ({
  layers: range(...layers),
  positions: range(...positions),
});

describe("places", () => {
  test("a choice is a cell, a span either way, or all layers", () => {
    const at = { position: 5, layer: 2 };
    expect(placeOf(chooseCell(at), 8)).toEqual(place([2, 3], [5, 6]));
    const span = { at, anchor: { position: 3, layer: 4 }, whole: false };
    expect(placeOf(span, 8)).toEqual(place([2, 5], [3, 6]));
    expect(placeOf({ ...span, whole: true }, 8)).toEqual(place([0, 8], [3, 6]));
    expect(holds(place([2, 3], [5, 6]), at)).toBe(true);
    expect(holds(place([2, 3], [5, 6]), { position: 6, layer: 2 })).toBe(false);
  });

  test("what is picked up lies where it is put, or is said not to fit", () => {
    const extent = { positions: 10, layers: 8 };
    const cell = { position: 7, layer: 3 };
    expect(putAt(place([1, 2], [0, 1]), cell, extent)).toEqual(place([3, 4], [7, 8]));
    expect(putAt(place([1, 3], [0, 3]), cell, extent)).toEqual(place([3, 5], [7, 10]));
    expect(putAt(place([0, 8], [0, 1]), cell, extent)).toEqual(place([0, 8], [7, 8]));
    expect(putAt(place([1, 2], [0, 4]), cell, extent)).toBe("4 tokens do not fit at position 7 of 10");
    expect(putAt(place([1, 7], [0, 1]), cell, extent)).toBe("6 layers do not fit from layer 3 of 8 on");
  });

  test("in words", () => {
    expect(placeInWords(place([2, 3], [5, 6]), 8)).toBe("layer 2, position 5");
    expect(placeInWords(place([0, 8], [5, 8]), 8)).toBe("all layers, positions 5–7");
  });
});

const edit: LensEdit = {
  id: 1,
  on: true,
  operation: "set",
  amount: 1,
  site: "resid_post",
  from: place([2, 3], [5, 6]),
  to: place([4, 5], [0, 1]),
};

describe("edits as the session takes them", () => {
  const value = (rows: number) => ({ shape: [rows, 2], data: new Float32Array(rows * 2) });

  test("one vector goes to every token and layer, several to one each", () => {
    const wide = { ...edit, to: place([4, 6], [0, 3]) };
    expect(wantedBy([wide]).map(wantedKey)).toEqual(["resid_post.2@5-6"]);
    expect(editSpecs(wide, () => value(1))).toEqual([
      { operation: "set", site: "resid_post.4", at: range(0, 3), value: { ...value(1), shape: [2] } },
      { operation: "set", site: "resid_post.5", at: range(0, 3), value: { ...value(1), shape: [2] } },
    ]);
    const pairs = { ...edit, from: place([2, 4], [5, 8]), to: place([4, 6], [0, 3]) };
    expect(wantedBy([pairs]).map(wantedKey)).toEqual(["resid_post.2@5-8", "resid_post.3@5-8"]);
    expect(editSpecs(pairs, () => value(3))[1]).toMatchObject({ site: "resid_post.5", value: value(3) });
  });

  test("of a head, with an amount, and without a source", () => {
    const added: LensEdit = { ...edit, operation: "add", amount: 0.5, site: "z", head: 3 };
    expect(wantedBy([added]).map(wantedKey)).toEqual(["z.2@5-6#3"]);
    expect(editSpecs(added, () => value(1))[0]).toMatchObject({ amount: 0.5, head: 3, site: "z.4" });
    const { from: _, ...rest } = edit;
    const ablated: LensEdit = { ...rest, operation: "zero" };
    expect(wantedBy([ablated])).toEqual([]);
    expect(editSpecs(ablated, () => value(1))).toEqual([
      { operation: "zero", site: "resid_post.4", at: range(0, 1) },
    ]);
  });

  test("at every layer in turn", () => {
    const variants = layerVariants(
      { ...edit, from: place([0, 8], [5, 6]), to: place([0, 8], [0, 1]) },
      [1, 2],
    );
    expect(variants.map(({ from, to }) => [from!.layers, to.layers])).toEqual([
      [range(1, 2), range(1, 2)],
      [range(2, 3), range(2, 3)],
    ]);
  });

  test("say why they can do nothing", () => {
    const bounds: Bounds = {
      source: 6,
      target: 1,
      layers: 8,
      siteLayers: [0, 1, 2, 3, 4],
      heads: undefined,
    };
    expect(problemOf(edit, bounds)).toBeUndefined();
    expect(problemOf(edit, { ...bounds, siteLayers: undefined })).toBe("this model has no resid_post");
    expect(problemOf(edit, { ...bounds, siteLayers: [0] })).toBe("layer 4 has no resid_post");
    expect(problemOf(edit, { ...bounds, source: 5 })).toBe("the source has 5 tokens");
    expect(problemOf(edit, { ...bounds, target: undefined })).toContain("the target is empty");
    expect(problemOf({ ...edit, head: 0 }, bounds)).toBe("resid_post has no heads");
    expect(problemOf({ ...edit, head: 4 }, { ...bounds, heads: 4 })).toBe("resid_post has heads 0 to 3");
    const uneven = { ...edit, from: place([2, 3], [3, 6]), to: place([4, 5], [0, 2]) };
    expect(problemOf(uneven, { ...bounds, target: 2 })).toBe("3 tokens cannot be put onto 2");
  });
});

describe("the slice of the document", () => {
  test("is read back as it was written, with what is chosen", () => {
    const one = withEdit(lensSlice.initial, edit);
    const two = withEdit(one, edit);
    expect(two.edits.map(({ id }) => id)).toEqual([1, 2]);
    expect(chosenEdit(two)!.id).toBe(2);
    expect(chosenEdit({ ...two, edits: one.edits })!.id).toBe(1);
    expect(lensSlice.read(JSON.parse(JSON.stringify(two)), "lens")).toEqual(two);
  });

  test("refuses edits that say something that they cannot", () => {
    const broken = (part: object) => () =>
      lensSlice.read({ ...lensSlice.initial, edits: [{ ...edit, ...part }] }, "lens");
    expect(broken({ operation: "zero" })).toThrow("lens.edits[0]: zero takes nothing from the source");
    expect(broken({ from: undefined })).toThrow("set needs a place in the source");
    expect(broken({ to: place([4, 4], [0, 1]) })).toThrow("lens.edits[0].to.layers");
    expect(broken({ amount: "much" })).toThrow("lens.edits[0].amount");
    expect(broken({ prompt: 0 })).toThrow('no field "prompt"');
  });
});

describe("the grid", () => {
  test("keys stay within it", () => {
    const size = { rows: 30, columns: 8 };
    const from =
      (row: number, column: number) =>
      (key: string, ends = false) =>
        spotAfter(key, ends, { row, column }, size);
    expect(from(0, 0)("ArrowUp")).toEqual({ row: 0, column: 0 });
    expect(from(3, 7)("ArrowRight")).toEqual({ row: 3, column: 7 });
    expect(from(25, 2)("PageDown")).toEqual({ row: 29, column: 2 });
    expect(from(25, 2)("Home")).toEqual({ row: 25, column: 0 });
    expect(from(25, 2)("End", true)).toEqual({ row: 29, column: 7 });
    expect(from(1, 1)("Enter")).toBeUndefined();
  });

  test("cells have room for words, or all layers are in sight", () => {
    expect(gridSizes(true, 32, 500).cell.width).toBe(58);
    const narrow = gridSizes(false, 32, 500);
    expect(narrow.head.width + 32 * narrow.cell.width).toBeLessThanOrEqual(500);
    const scroll = { left: 0, top: 40 };
    expect(spotUnder(narrow, { x: narrow.head.width + 1, y: narrow.head.height + 1 }, scroll)).toEqual({
      row: 2,
      column: 0,
    });
    expect(spotUnder(narrow, { x: 2, y: 200 }, scroll).column).toBe(-1);
    expect(spotUnder(narrow, { x: 200, y: 2 }, scroll).row).toBe(-1);
  });

  test("a cell's ground goes from one colour to the other", () => {
    expect(mixed([0, 0, 0], [100, 200, 50], 0.5)).toEqual([50, 100, 25]);
    expect(mixed([0, 0, 0], [100, 200, 50], 2)).toEqual([100, 200, 50]);
    expect(luminance([255, 255, 255])).toBeCloseTo(1);
    expect(luminance([0, 0, 0])).toBe(0);
  });

  test("cells are those of the answer", () => {
    const read = cellReader({
      setting: { model: "m", family: "f", dtypes: [], adapter: "a" },
      layers: [0, 2],
      positions: [3, 4],
      k: 2,
      ids: Uint32Array.of(1, 2, 3, 4, 5, 6, 7, 8),
      probabilities: Float32Array.from({ length: 8 }, (_, i) => i / 8),
      texts: Object.fromEntries(Array.from({ length: 9 }, (_, id) => [id, `t${id}`])),
    });
    expect(read({ layer: 2, position: 3 })).toEqual([
      { id: 5, text: "t5", probability: 0.5 },
      { id: 6, text: "t6", probability: 0.625 },
    ]);
    expect(read({ layer: 1, position: 3 })).toBeUndefined();
  });

  test("reads the sites that the library's lens reads", () => {
    expect([...READ_SITES].sort()).toEqual([...STREAM_SITES].sort());
  });
});
