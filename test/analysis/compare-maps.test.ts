import { expect, test } from "vitest";
import { compareMaps } from "../../src/analysis/maps/compare-maps.ts";
import { PatchMap } from "../../src/analysis/maps/patch-map-result.ts";

const COLUMNS = [0, 1, 2, 3].map((head) => ({ head }));
const mapOf = (row: number[], fields: object = {}) =>
  new PatchMap({
    rows: ["z.0"],
    columns: COLUMNS.slice(0, row.length),
    values: [row.map((x) => x + 1)],
    clean: 5,
    corrupted: 1,
    direction: "denoising",
    metric: "m",
    rowLayers: 1,
    plainRowLayers: 1,
    ...fields,
  });

test("a comparison of maps has correlations, signs and the cells that are most wrong", () => {
  // Hand-made: ranks 3 2 1 0 against 3 1 2 0, so Spearman is 1 - 6 * 2 / (4 * 15).
  const exact = mapOf([4, 2, -1, -3]);
  const estimate = mapOf([8, -1, 0.5, -3], { method: "attribution" });
  const found = compareMaps(exact, estimate, { top: 2 });
  expect(found.spearman).toBeCloseTo(0.8, 12);
  // By another formula: (n Σxy − Σx Σy) / …
  const [x, y] = [
    [4, 2, -1, -3],
    [8, -1, 0.5, -3],
  ];
  const sum = (list: readonly number[]) => list.reduce((a, b) => a + b, 0);
  const products = (a: readonly number[], b: readonly number[]) => sum(a.map((value, i) => value * b[i]!));
  const cov = (a: readonly number[], b: readonly number[]) => 4 * products(a, b) - sum(a) * sum(b);
  expect(found.pearson).toBeCloseTo(cov(x!, y!) / Math.sqrt(cov(x!, x!) * cov(y!, y!)), 12);
  expect(found.signAgreement).toBe(0.5);
  expect(found.top).toEqual({ count: 2, shared: 2 });
  expect(found.cells[0]).toEqual({ site: "z.0", head: 0, exact: 4, estimate: 8 });
  expect(`${found}`).toMatch(
    /^effects on m, estimated by attribution patching, against exact ones: 4 cells\n/,
  );
  expect(`${found}`).toContain("Spearman 0.800");
  expect(JSON.parse(JSON.stringify(found)).spearman).toBe(found.spearman);
});

test("equal values share a rank, tiny effects have no sign to agree on, and a constant map correlates with nothing", () => {
  const found = compareMaps(mapOf([3, 1, 1, 0.001]), mapOf([2, 1, 1, -0.001]));
  expect(found.spearman).toBeCloseTo(1, 12);
  expect(found.signAgreement).toBe(1);
  expect(found.top).toEqual({ count: 4, shared: 4 });
  expect(compareMaps(mapOf([3, 1]), mapOf([1, 1])).spearman).toBeNaN();
});

test("maps of other cells or metrics are refused", () => {
  const map = mapOf([1, 2]);
  expect(() => compareMaps(map, mapOf([1, 2], { rows: ["z.1"] }))).toThrow(/the same rows, found \["z\.0"\]/);
  expect(() => compareMaps(map, mapOf([1]))).toThrow(/the same columns/);
  expect(() => compareMaps(map, mapOf([1, 2], { metric: "n" }))).toThrow(
    /the same metric, found "m" and "n"/,
  );
  expect(() => compareMaps(map, mapOf([1, 2], { direction: "noising" }))).toThrow(/the same direction/);
  expect(() => compareMaps(map, map, { top: 0 })).toThrow(/top to be a whole number from 1/);
  expect(() => compareMaps(map, {} as never)).toThrow(/from patchMap or attributionMap/);
});
