import { expect, test } from "vitest";
import { PatchMap } from "../../src/analysis/maps/patch-map-result.ts";
import { heatFigure } from "../../src/figures/heat-figure.ts";
import { readXml } from "../helpers/xml.ts";

const picture = { width: 4, height: 2, data: new Uint8Array(24).fill(90) };
const patches = { start: 3, end: 5, grid: { rows: 1, columns: 2 } };
const mapOf = (values: number[][], fields: object = {}) =>
  new PatchMap({
    rows: values.map((_, layer) => `resid_pre.${layer}` as const),
    columns: values[0]!.map((_, i) => ({ position: i + 2, token: "x" })),
    values,
    clean: 10,
    corrupted: 0,
    direction: "denoising",
    metric: "m",
    rowLayers: 1,
    plainRowLayers: 1,
    ...fields,
  });

test("over a picture lie the effects of its patches, on one scale with 0 in its middle", async () => {
  const map = mapOf(
    [
      [99, 2, -4],
      [99, 8, 1],
    ],
    { method: "attribution" },
  );
  const figure = heatFigure(map, { picture, patches });
  const svg = await figure.svg();
  readXml(svg);
  expect(svg).toContain("resid_pre.0: largest -0.4, row 0, column 1");
  expect(svg).toContain("resid_pre.1: largest 0.8, row 0, column 0");
  expect(svg).toContain("row 0, column 1: estimated effect -0.4");
  // The ends of the scale; the column that is no patch does not count.
  expect(svg).toMatch(/>-0\.8</);
  expect(svg).toMatch(/>0\.8</);
  expect(svg).not.toContain("9.9");
  expect(`${figure}`).toContain("estimated by attribution patching");
});

test("maps beside each other have a panel each, and names that tell them apart", async () => {
  const [exact, plain] = [mapOf([[1, 2, 3]]), mapOf([[1, 2, 4]], { method: "attribution" })];
  const svg = await heatFigure([exact, plain]).svg();
  expect(svg).toContain(">exact<");
  expect(svg).toContain("estimated by attribution patching");
  expect(svg).toContain("resid_pre.0, 4 x: estimated effect 0.4, m 4");
});

test("what does not go together is refused", () => {
  const map = mapOf([[1, 2, 3]]);
  const heads = mapOf([[1, 2]], { columns: [{ head: 0 }, { head: 1 }] });
  expect(() => heatFigure([])).toThrow(/at least one map, found none/);
  expect(() => heatFigure([map, mapOf([[3, 2, 1]])])).toThrow(/made in other ways, found two exact ones/);
  expect(() => heatFigure([map, mapOf([[1, 2, 3]], { metric: "n", method: "attribution" })])).toThrow(
    /the same metric/,
  );
  expect(() => heatFigure([map, 3 as never])).toThrow(/from patchMap or attributionMap/);
  expect(() => heatFigure(map, { picture })).toThrow(/picture and patches together/);
  expect(() => heatFigure(map, { picture, patches, x: "a" })).toThrow(/no axes for x and y/);
  expect(() => heatFigure(heads, { picture, patches })).toThrow(
    /has all of the picture, 3 to 4, found none of position 3/,
  );
});
