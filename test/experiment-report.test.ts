import { PNG } from "pngjs";
import { describe, expect, test, vi } from "vitest";
import type { Figure } from "../experiments/report/figure.ts";
import { figureSvg, svgToPng } from "../experiments/report/picture.ts";
import { type Table, tableCsv, tableMarkdown } from "../experiments/report/table.ts";
import { normal, sample, seededRandom } from "../experiments/statistics/random.ts";

describe("random numbers", () => {
  test("are the same for the same seed, and of their distribution", () => {
    const draw = (seed: number) => {
      const random = seededRandom(seed);
      return Array.from({ length: 5000 }, () => normal(random));
    };
    const values = draw(1);
    expect(draw(1)).toEqual(values);
    expect(draw(2)).not.toEqual(values);
    const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
    const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length;
    expect(Math.abs(mean)).toBeLessThan(0.05);
    expect(Math.abs(variance - 1)).toBeLessThan(0.1);
  });

  test("samples keep the order and have no doubles", () => {
    const values = Array.from({ length: 30 }, (_, i) => i);
    const some = sample(values, 10);
    expect(some).toEqual([...new Set(some)].sort((a, b) => a - b));
    expect(some).toHaveLength(10);
    expect(sample(values, 99)).toEqual(values);
  });
});

const PANELS = ["text query", "image query"];
const base = { name: "f", title: "A title", caption: "", x: "across", y: "up" };
const FIGURES: readonly Figure[] = [
  {
    ...base,
    kind: "lines",
    rows: PANELS.flatMap((panel) =>
      [0, 1, 2].map((x) => ({ panel, series: "one series", x, y: x / 2, low: x / 3, high: x })),
    ),
  },
  {
    ...base,
    kind: "bars",
    rows: ["left", "right"].flatMap((x) =>
      ["one", "two"].map((series) => ({ x, series, y: 0.5, low: 0.4, high: 0.7 })),
    ),
  },
  {
    ...base,
    kind: "heat",
    value: "accuracy",
    rows: [0, 1].flatMap((x) => ["p", "q"].map((y) => ({ x, y, value: x }))),
  },
  {
    ...base,
    kind: "heat",
    value: "cosine",
    diverging: true,
    rows: [0, 1].map((x) => ({ x, y: x, value: 0 })),
  },
  {
    ...base,
    kind: "scatter",
    colour: "task",
    shape: "modality",
    rows: [0, 1, 2].map((x) => ({ x, y: x * x, colour: `task ${x}`, shape: x % 2 ? "text" : "image" })),
  },
];

describe("figures", () => {
  test.each(FIGURES.map((figure, i) => [`${figure.kind} ${i}`, figure] as const))(
    "%s: an SVG with title, axes and legend, drawn without complaint, the same every time",
    async (_, figure) => {
      const complaints = [vi.spyOn(console, "warn"), vi.spyOn(console, "error")];
      const svg = await figureSvg(figure);
      for (const spy of complaints) {
        expect(spy).not.toHaveBeenCalled();
        spy.mockRestore();
      }
      for (const text of ["A title", "across", "up"]) expect(svg).toContain(`>${text}</text>`);
      if (figure.kind === "lines") {
        expect(svg).toContain(">one series</text>");
        for (const panel of PANELS) expect(svg).toContain(`>${panel}</text>`);
      }
      expect(svg).not.toContain("NaN");
      expect(await figureSvg(structuredClone(figure))).toBe(svg);
    },
  );

  test("a PNG has its letters on a machine without fonts", async () => {
    const svg = await figureSvg(FIGURES[1]!);
    const ink = async (document: string) => {
      const { data } = PNG.sync.read(Buffer.from(await svgToPng(document)));
      return data.reduce((count, value, i) => count + (i % 4 === 0 && value < 100 ? 1 : 0), 0);
    };
    expect(await ink(svg)).toBeGreaterThan((await ink(svg.replaceAll(/<text.*?<\/text>/gs, ""))) + 1000);
  });
});

describe("tables", () => {
  const table: Table = {
    name: "t",
    title: "T",
    columns: ["who", "accuracy", "n"],
    rows: [
      ['a|b, "c"', { mean: 0.5, low: 0.25, high: 0.75, items: 8, seeds: 2 }, 8],
      ["d", "–", 0.125],
    ],
  };

  test("as Markdown", () => {
    expect(tableMarkdown(table).split("\n")).toEqual([
      "| who | accuracy | n |",
      "|---|---:|---:|",
      '| a\\|b, "c" | 0.50 [0.25, 0.75] n 8×2 | 8 |',
      "| d | – | 0.13 |",
    ]);
  });

  test("as CSV, with the parts of estimates in columns of their own", () => {
    expect(tableCsv(table).split("\n")).toEqual([
      "who,accuracy,accuracy low,accuracy high,accuracy items,accuracy seeds,n",
      '"a|b, ""c""",0.5,0.25,0.75,8,2,8',
      "d,–,,,,,0.125",
      "",
    ]);
  });
});
