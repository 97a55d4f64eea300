import { PNG } from "pngjs";
import { describe, expect, test, vi } from "vitest";
import { platform } from "#platform";
import type { BarsChart, Chart, HeatChart, LinesChart, ScatterChart } from "../../src/figures/chart.ts";
import { captionOf } from "../../src/figures/chart-caption.ts";
import { chartFigure } from "../../src/figures/chart-figure.ts";
import { tokenFigure } from "../../src/figures/token-figure.ts";
import { chartSpec } from "../../src/figures/vega-lite/chart-spec.ts";
import { textWidth } from "../../src/figures/vega-lite/text-width.ts";
import { wordContrasts } from "../helpers/svg.ts";

const PANELS = ["text query", "image query"];
const base = { title: "A title", x: "across", y: "up" };
const FIGURES: readonly Chart[] = [
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
    group: "task",
    filling: "modality",
    rows: [0, 1, 2].map((x) => ({ x, y: x * x, group: `task ${x}`, filling: x % 2 ? "text" : "image" })),
  },
];

const svgOf = (chart: Chart) => chartFigure(chart).svg();

describe("charts", () => {
  test.each(FIGURES.map((figure, i) => [`${figure.kind} ${i}`, figure] as const))(
    "%s: an SVG with title, axes and legend, drawn without complaint, the same every time",
    async (_, figure) => {
      const complaints = [vi.spyOn(console, "warn"), vi.spyOn(console, "error")];
      const svg = await svgOf(figure);
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
      expect(await svgOf(structuredClone(figure))).toBe(svg);
    },
  );

  test("a PNG has its letters on a machine without fonts", async () => {
    const svg = await svgOf(FIGURES[1]!);
    const ink = async (document: string) => {
      const { data } = PNG.sync.read(Buffer.from(await platform.svgToPng(document, 2)));
      return data.reduce((count, value, i) => count + (i % 4 === 0 && value < 100 ? 1 : 0), 0);
    };
    expect(await ink(svg)).toBeGreaterThan((await ink(svg.replaceAll(/<text.*?<\/text>/gs, ""))) + 1000);
  });
});

/** Of a specification; what is in it is told by the test. */
// biome-ignore lint/suspicious/noExplicitAny: Vega-Lite's own types are unions of hundreds.
type Part = Record<string, any>;

/** Objects anywhere within a specification that have this key, with its value. */
function having(spec: unknown, key: string): Part[] {
  if (typeof spec !== "object" || spec === null) return [];
  const inside = Object.entries(spec).flatMap(([name, value]) => (name === "data" ? [] : having(value, key)));
  return key in spec ? [spec as Part, ...inside] : inside;
}

/** The domains of an axis of values, over the layers. */
function domainsOf(figure: Chart, channel: string): unknown[] {
  const axes = having(chartSpec(figure), channel).map((encoding) => encoding[channel]);
  return [...new Set(axes.map(({ scale }) => JSON.stringify(scale?.domain)))].map((domain) =>
    JSON.parse(domain),
  );
}

describe("what can be read from figures", () => {
  const lines: LinesChart = {
    ...base,
    kind: "lines",
    rows: ["a", "b", "c"].flatMap((series, s) =>
      [0, 1, 2].map((x) => ({ series, x, y: 0.1 * (s + x), low: 0, high: 0.5, items: 36, seeds: 3 })),
    ),
  };
  const bars: BarsChart = {
    ...base,
    kind: "bars",
    rows: ["left", "right"].map((x) => ({ x, series: "one", y: 0.2, items: 50, seeds: 1 })),
  };
  const heat: HeatChart = {
    ...base,
    kind: "heat",
    value: "accuracy",
    rows: [0.1, 0.37, 0.2].map((value, x) => ({ x, y: "p", value })),
  };
  const scatter: ScatterChart = {
    ...base,
    kind: "scatter",
    group: "task",
    filling: "modality",
    rows: [0, 1, 2, 3].map((x) => ({
      x: 10 * x,
      y: x,
      group: `t${x % 2}`,
      filling: ["text", "image"][x >> 1]!,
    })),
  };

  test("shares have the same axis in all figures; others one that holds all values", () => {
    expect(domainsOf(lines, "y")).toEqual([[0, 1]]);
    expect(domainsOf(bars, "y")).toEqual([[0, 1]]);
    const [row] = lines.rows;
    expect(domainsOf({ ...lines, rows: [{ ...row!, low: -0.2 }] }, "y")).toEqual([[-1, 1]]);
    const [[low, high]] = domainsOf({ ...lines, rows: [{ ...row!, y: 7, high: 9 }] }, "y") as [
      [number, number],
    ];
    expect([low, high >= 9]).toEqual([0, true]);
    expect(domainsOf({ ...lines, range: [0.5, 2] }, "y")).toEqual([[0.5, 2]]);
  });

  test("titles of narrow panels side by side do not run into each other", async () => {
    const panels = ["estimated by one way of doing it", "estimated by another way of doing it"];
    const svg = await svgOf({
      ...heat,
      rows: panels.flatMap((panel) => heat.rows.map((row) => ({ ...row, panel }))),
    });
    // Each stands over the middle of its panel, and these are equally wide.
    const frames = svg.matchAll(/(?:translate\(([\d.]+),0\)">)?<path d="[^"]*" stroke="#cccccc"/g);
    const [left, right] = [...frames].map(([, x]) => Number(x ?? 0));
    const [one, other] = panels.map((panel) => textWidth({ fontSize: 12 }, panel));
    expect(right! - left!).toBeGreaterThan((one! + other!) / 2 + 10);
  });

  test("a legend of colours has both ends of its scale", () => {
    for (const [figure, ends] of [
      [heat, [0, 0.37]],
      [{ ...heat, diverging: true }, [-0.37, 0.37]],
      [{ ...heat, rows: heat.rows.map((row) => ({ ...row, value: -row.value })) }, [-0.37, 0]],
      [{ ...heat, rows: heat.rows.map((row) => ({ ...row, value: 0 })) }, [0, 1]],
    ] as const) {
      const [encoding] = having(chartSpec(figure), "color") as [Part];
      const { scale, legend } = encoding["color"];
      expect(scale.domain).toEqual(ends);
      expect([legend.values[0], legend.values.at(-1)]).toEqual(ends);
    }
  });

  test("refuses what a kind of chart cannot be drawn without, by its name", () => {
    const lines = FIGURES[0]!;
    for (const [wrong, message] of [
      [{ ...lines, kind: "line" }, /chart\.kind to be .*the nearest is "lines"/],
      [{ ...lines, title: undefined }, /chart\.title to be a string/],
      [{ ...lines, rows: [] }, /chart\.rows to be a list of rows, at least one/],
      [{ ...lines, rows: [null] }, /chart\.rows\[0\] to be an object/],
      [{ ...lines, rows: [{ x: 1, y: 2 }] }, /chart\.rows\[0\]\.series to be a string/],
      [{ ...lines, rows: [{ x: "a", y: 2, series: "s" }] }, /chart\.rows\[0\]\.x to be a number/],
      [{ ...lines, references: [{ label: "chance" }] }, /chart\.references\[0\]\.y/],
      [{ ...base, kind: "heat", rows: [{ x: 1, y: 1, value: 1 }] }, /chart\.value to be a string/],
    ] as const) {
      expect(() => chartFigure(wrong as never)).toThrow(message);
    }
  });

  test("series and groups differ by shape as well as by colour", () => {
    for (const figure of [lines, bars, scatter]) {
      const count = figure.kind === "lines" ? 3 : figure.kind === "bars" ? 1 : 2;
      const [encoding] = having(chartSpec(figure), "shape").filter(({ shape }) => typeof shape === "object");
      const { shape, color = encoding!["fill"] } = encoding!;
      expect(new Set(shape.scale.range).size).toBe(count);
      expect(new Set(color.scale.range).size).toBe(count);
      expect(shape.scale.domain).toEqual(color.scale.domain);
    }
  });

  test("planes have equal axes without numbers", () => {
    const axes = ["x", "y"].flatMap((axis) =>
      having(chartSpec(scatter), axis).map((encoding) => encoding[axis]),
    );
    const lengths = axes.map(({ scale }) => scale.domain[1] - scale.domain[0]);
    expect(lengths[0]).toBeGreaterThan(30);
    expect(lengths[1]).toBeCloseTo(lengths[0]!, 9);
    for (const { axis } of axes) expect(axis).toMatchObject({ labels: false, ticks: false });
    expect(chartSpec(scatter)).toMatchObject({ width: 300, height: 300 });
  });

  test("references are dashed lines, in each panel, that the legend and the caption name", async () => {
    const rows = ["p", "q"].flatMap((panel) => lines.rows.map((row) => ({ ...row, panel })));
    const references = [
      { label: "chance", y: 0.25 },
      { label: "majority", y: 0.3, panel: "p" },
      { label: "majority", y: 0.4, panel: "q" },
    ];
    const figure: LinesChart = { ...lines, rows, references };
    const { data } = chartSpec(figure) as { data: { values: Record<string, unknown>[] } };
    const drawn = data.values.filter(({ mark }) => mark === "reference");
    expect(drawn.map(({ label, y, panel }) => [label, y, panel])).toEqual([
      ["chance", 0.25, "p"],
      ["chance", 0.25, "q"],
      ["majority", 0.3, "p"],
      ["majority", 0.4, "q"],
    ]);
    const svg = await svgOf(figure);
    for (const label of ["chance", "majority"]) expect(svg).toContain(`>${label}</text>`);
    // Two lines a panel, and two in the legend.
    expect(svg.match(/stroke-dasharray="[^"]+"/g)).toHaveLength(6);
    expect(captionOf(figure)).toContain("Dashed: chance 0.25; majority 0.30 (p), 0.40 (q).");
    const grouped = await svgOf({ ...bars, references: [{ label: "chance", y: 0.1, x: "left" }] });
    expect(grouped.match(/stroke-dasharray="[^"]+"/g)).toHaveLength(2);
  });

  test("what was chosen is marked", () => {
    const rings = (figure: Chart) =>
      having(chartSpec(figure), "transform").filter(({ transform }) => /chosen/.test(transform[0].filter))
        .length;
    expect([rings(lines), rings(heat)]).toEqual([0, 0]);
    const chosen = "the layer chosen";
    const ringed: Chart = {
      ...lines,
      chosen,
      rows: lines.rows.map((row) => ({ ...row, chosen: row.x === 1 })),
    };
    const outlined: Chart = {
      ...heat,
      chosen,
      rows: heat.rows.map((row) => ({ ...row, chosen: row.x === 1 })),
    };
    expect([rings(ringed), rings(outlined)]).toEqual([1, 2]);
    expect(captionOf(ringed)).toContain("Ringed: the layer chosen.");
    expect(captionOf(outlined)).toContain("Outlined: the layer chosen.");
    expect(captionOf({ ...lines, chosen })).not.toContain("Ringed");
  });

  test("n is in the picture and in its caption, and in a panel's title where panels differ", async () => {
    expect(captionOf({ ...lines, caption: "mean over all" })).toBe(
      "Mean over all. Bands: 95 % intervals over inputs and seeds. n 36×3 (different inputs × seeds).",
    );
    expect(captionOf(bars)).toBe("n 50 (different inputs).");
    const svg = await svgOf({
      ...lines,
      rows: ["p", "q"].flatMap((panel, i) => lines.rows.map((row) => ({ ...row, panel, items: 36 + i }))),
    });
    for (const text of ["n 36–37×3 (different inputs × seeds)", "p, n 36×3", "q, n 37×3"]) {
      expect(svg).toContain(`>${text}</text>`);
    }
  });

  test.each([false, true])("words can be read on every colour (diverging: %s)", async (diverging) => {
    const rows = Array.from({ length: 41 }, (_, i) => ({
      x: i,
      y: "p",
      value: i / 20 - (diverging ? 1 : 0),
      word: "w",
      tooltip: "t",
    }));
    const contrasts = wordContrasts(await svgOf({ ...heat, diverging, rows }));
    expect(contrasts).toHaveLength(41);
    expect(Math.min(...contrasts)).toBeGreaterThan(4);
    const values = rows.map(({ value }) => value);
    const tokens = wordContrasts(await tokenFigure(values.map(String), values).svg());
    expect(tokens).toHaveLength(41);
    expect(Math.min(...tokens)).toBeGreaterThan(4);
  });

  test("a caption goes with the file", async () => {
    const svg = await svgOf({ ...bars, caption: "All < some & none" });
    expect(svg).toContain("<desc>All &lt; some &amp; none. n 50 (different inputs).</desc>");
  });
});
