import { describe, expect, test, vi } from "vitest";
import type { AttentionMap } from "../../src/analysis/heads/attention-map.ts";
import { HeadPattern } from "../../src/analysis/heads/head-pattern-result.ts";
import { LensCells } from "../../src/analysis/lens/lens-cells.ts";
import type { LensCell } from "../../src/analysis/lens/logit-lens.ts";
import { PatchMap } from "../../src/analysis/maps/patch-map-result.ts";
import { ImageError, PromptError } from "../../src/errors.ts";
import { attentionFigure } from "../../src/figures/attention-figure.ts";
import { curveFigure } from "../../src/figures/curve-figure.ts";
import { heatFigure } from "../../src/figures/heat-figure.ts";
import { lensFigure } from "../../src/figures/lens-figure.ts";
import { show } from "../../src/figures/show.ts";
import { tokenFigure } from "../../src/figures/token-figure.ts";
import type { RgbImage } from "../../src/images/files/rgb.ts";
import { textsOf } from "../helpers/svg.ts";

const opened = vi.hoisted(() => vi.fn());
vi.mock("open", () => ({ default: opened }));

const picture: RgbImage = { width: 8, height: 8, data: new Uint8Array(8 * 8 * 3).fill(99) };
const widthOf = (svg: string) => Number(/width="(\d+)/.exec(svg)![1]);
const square = (value: number) => heatFigure({ rows: ["a"], columns: ["b"], values: [[value]] });

test("a PNG of a size that cannot be drawn", async () => {
  const figure = square(1);
  for (const zoom of [0, -1, Number.POSITIVE_INFINITY]) {
    await expect(figure.png({ zoom })).rejects.toThrow(/zoom to be a number above 0/);
  }
  await expect(figure.png({ zoom: 1000 })).rejects.toThrow(/pixels is too large .* expected a smaller zoom/);
  await expect(figure.png({ zoom: 1e-4 })).rejects.toThrow(ImageError);
});

test("where there is a screen and no browser opens it, the text is printed; else the page's path alone", async () => {
  const drawn = curveFigure([1, 2]);
  const print = vi.spyOn(console, "log").mockImplementation(() => {});
  const opener = (exitCode: number | null, later?: number) => ({
    exitCode,
    once: (_: string, ended: (code: number) => void) => {
      if (later !== undefined) setTimeout(ended, 1, later);
    },
  });
  vi.stubEnv("DISPLAY", ":0");
  vi.stubEnv("SSH_CONNECTION", undefined);
  try {
    for (const [child, printed] of [
      [opener(3), true],
      [opener(null, 3), true],
      [opener(0), false],
      [opener(null, 0), false],
      [opener(null), false], // a browser in the foreground
    ] as const) {
      opened.mockResolvedValueOnce(child);
      print.mockClear();
      await show(drawn);
      expect(print).toHaveBeenCalledTimes(1);
      expect(`${print.mock.calls[0]![0]}`.includes(`${drawn}`)).toBe(printed);
    }
  } finally {
    print.mockRestore();
    vi.unstubAllEnvs();
  }
});

describe("heat figures", () => {
  test("of what is no numbers by name", () => {
    const rows = ["a"];
    expect(() => heatFigure({ rows, columns: [], values: [[]] })).toThrow(/at least one row and one column/);
    expect(() => heatFigure({ rows: [1, "1"], columns: [1], values: [[1], [2]] })).toThrow(/"1" twice/);
    for (const wrong of [1, ["2"], [null]]) {
      expect(() => heatFigure({ rows, columns: [1], values: [wrong] } as never)).toThrow(
        /expected data\.values\[0\]/,
      );
    }
    expect(() => heatFigure({ rows: [{}], columns: [1], values: [[1]] } as never)).toThrow(
      /expected data\.rows\[0\] to be a string or a number/,
    );
  });

  test("have names on one line in a terminal, whatever is in them", () => {
    const figure = heatFigure({ rows: ["a\nb"], columns: ["\u001b[31m"], values: [[1]] }, { title: "T" });
    expect(`${figure}`).toBe("T\n\n      \\u001b[31m\na\\nb           1");
  });

  test("of small values have a legend that tells them apart", async () => {
    const legend = async (most: number) => textsOf(await square(most).svg()).slice(0, 5);
    expect(await legend(0.03)).toEqual(["0", "0.0075", "0.015", "0.0225", "0.03"]);
    expect(await legend(1e-30)).toContain("2.5e-31");
    expect(await legend(2)).toEqual(["0.00", "0.50", "1.00", "1.50", "2.00"]);
    expect(textsOf(await tokenFigure(["a"], [0.004]).svg())).toContain("0.004");
  });

  test("with a long title are no wider for it", async () => {
    const title = "long title ".repeat(60).trim();
    const svg = await heatFigure({ rows: ["a"], columns: ["b"], values: [[1]] }, { title }).svg();
    const shown = textsOf(svg).filter((text) => text.includes("long title"));
    expect(shown.length).toBe(4);
    expect(title.startsWith(shown.slice(0, 3).join(" "))).toBe(true);
    expect(widthOf(svg)).toBeLessThan(1100);
  });
});

describe("curves", () => {
  test("of what is none", () => {
    expect(() => curveFigure({})).toThrow(/curveFigure: expected at least one value, found none/);
    expect(() => curveFigure([])).toThrow(/at least one value/);
    expect(() => curveFigure([1, "2"] as never)).toThrow(/expected curves\[1\] to be a number or an object/);
    expect(() => curveFigure([1, 2], { range: [1] as never })).toThrow(/range to be two numbers/);
    expect(() => curveFigure([1, 2], { range: [2, 1] })).toThrow(/the lower one first/);
    expect(() => curveFigure([1, 2], { references: { chance: Number.NaN } })).toThrow(
      /references\.chance to be a number/,
    );
    expect(() => curveFigure([1, 2], { chosen: 7 })).toThrow(/chosen to be where a value lies, found 7/);
  });

  test("leave out what is not finite, which is in the table", async () => {
    for (const list of [[0.1, Number.NaN, 0.4], Float32Array.of(Number.NaN, 0.5, Number.POSITIVE_INFINITY)]) {
      const figure = curveFigure(list);
      expect(`${figure}`).toContain("NaN");
      const svg = await figure.svg();
      expect(svg).not.toMatch(/NaN|Infinity/);
      expect(textsOf(svg)).toEqual(expect.arrayContaining(["0.0", "1.0"]));
    }
  });

  test("of any number of points", () => {
    expect(`${curveFigure(new Float32Array(150_000))}`.split("\n")).toHaveLength(150_003);
  });
});

describe("tokens", () => {
  test("without numbers", () => {
    expect(() => tokenFigure([], [])).toThrow(/expected at least one token/);
    expect(() => tokenFigure(["a"], {})).toThrow(/one list of numbers, found none/);
    expect(() => tokenFigure(["a"], ["1"] as never)).toThrow(/expected values\[0\] to be a number/);
    expect(() => tokenFigure(["a"], { one: 3 } as never)).toThrow(/expected values\.one to be a list/);
  });

  test("have no colour where the number is not finite; a very long one is cut", async () => {
    const figure = tokenFigure(["a", "b", "x".repeat(300)], [Number.NaN, 1, 2]);
    const svg = await figure.svg();
    expect(svg).not.toMatch(/NaN(?!<)|Infinity/);
    expect(widthOf(svg)).toBeLessThan(1000);
    expect(textsOf(svg).some((text) => /^x{90,}…$/.test(text))).toBe(true);
    expect(`${figure}`).toContain("NaN");
  });
});

describe("attention", () => {
  const pattern = (head: number) =>
    new HeadPattern({
      tokens: ["Q", ":", " Rome"],
      layer: 4,
      head,
      weights: [
        [1, 0, 0],
        [0.4, 0.6, 0],
        [0.1, 0, 0.9],
      ],
    });
  const map: AttentionMap = {
    layer: 0,
    head: 12,
    grid: { rows: 8, columns: 2 },
    weights: Float32Array.from({ length: 16 }, (_, i) => (i === 0 ? 0.02 : 0.001)),
    share: 0.035,
  };

  test("of tokens that are not there, or of a count that is none", () => {
    expect(pattern(0).top(-1, 1)).toEqual([{ position: 2, token: " Rome", weight: 0.9 }]);
    for (const wrong of [3, -4, 1.5]) expect(() => pattern(0).top(wrong)).toThrow(PromptError);
    expect(() => pattern(0).top(undefined as never)).toThrow(/position to be a number/);
    for (const count of [-1, 0.5]) {
      expect(() => pattern(0).top(0, count)).toThrow(/count to be a whole number from 0/);
      expect(() => new PatchMap({} as never).top(count)).toThrow(/count to be a whole number from 0/);
    }
  });

  test("of one head twice, or of something else", () => {
    expect(() => attentionFigure([pattern(1), pattern(1)])).toThrow(
      /differ in layer or head, found layer .* twice/,
    );
    for (const wrong of [{ layer: 1 }, { a: 1 }, Promise.resolve()]) {
      expect(() => attentionFigure(wrong as never)).toThrow(/what headPattern, headPatterns, .* gives/);
    }
  });

  test("over a narrow picture: captions go on in another line, uncut, and name the head", async () => {
    const shown = textsOf(await attentionFigure(map, { picture }).svg());
    expect(shown.join(" ")).toContain("layer 0, head 12: 3.50 % on the image, peak 2.00 %");
    expect(shown.filter((text) => text.endsWith("…"))).toEqual([]);
  });
});

test("lenses name positions by what was read; tokens of another count are refused", async () => {
  const cells: LensCell[] = [5, 6].map((position) => ({
    layer: 0,
    position,
    tokens: [{ id: 1, text: "a", probability: 0.5 }],
  }));
  const tokens = Array.from({ length: 30 }, (_, i) => ` t${i}`);
  const read = LensCells.over(tokens.map((token) => `read${token}`));
  read.push(...cells);
  expect(textsOf(await lensFigure(read).svg())).toContain("5 read t5");
  for (const wrong of [tokens.slice(0, 20), [...tokens, "more"]]) {
    expect(() => lensFigure(read, { tokens: wrong })).toThrow(/expected 30 tokens, as many as were read/);
  }
  expect(() => lensFigure(cells, { tokens: ["a"] })).toThrow(PromptError);
  expect(() => lensFigure([{}] as never)).toThrow(/cells\[0\] to be a cell from logitLens/);
});
