import { describe, expect, test } from "vitest";
import type { AttentionMap } from "../../src/analysis/heads/attention-map.ts";
import { HeadPattern } from "../../src/analysis/heads/head-pattern-result.ts";
import { LensCells } from "../../src/analysis/lens/lens-cells.ts";
import type { LensCell } from "../../src/analysis/lens/logit-lens.ts";
import { formatImageLens, type ImageLensReport } from "../../src/cli/commands/lens-image.ts";
import { ArgumentError, PromptError } from "../../src/errors.ts";
import { attentionFigure } from "../../src/figures/attention-figure.ts";
import { lensFigure } from "../../src/figures/lens-figure.ts";
import { decodeImage } from "../../src/images/files/decode.ts";
import { coloursOf, luma, picture, textsOf, titlesOf } from "../helpers/svg.ts";
import { readXml } from "../helpers/xml.ts";

describe("attention over text", () => {
  const pattern = (head: number, tokens = ["Q", ":", " Rome"]) =>
    new HeadPattern({
      tokens,
      layer: 4,
      head,
      weights: [
        [1, 0, 0],
        [0.4, 0.6, 0],
        [0.1, 0, 0.9],
      ],
    });

  test("all tokens to all: a square each, white where nothing can be seen", async () => {
    const figure = attentionFigure(pattern(2));
    const svg = await figure.svg();
    // Six squares on and below the diagonal, one of which has no weight.
    expect(titlesOf(svg)).toEqual([
      "0 Q → 0 Q: 100.0 %",
      "1 : → 0 Q: 40.0 %",
      "1 : → 1 :: 60.0 %",
      "2 Rome → 0 Q: 10.0 %",
      "2 Rome → 1 :: 0.00 %",
      "2 Rome → 2 Rome: 90.0 %",
    ]);
    expect(textsOf(svg)).toContain("attention of layer 4, head 2");
    expect(`${figure}`).toBe(`${pattern(2)}`);
    const all = await attentionFigure([0, 1, 2].map((head) => pattern(head))).svg();
    expect(textsOf(all)).toEqual(
      expect.arrayContaining(["layer 4, head 0", "layer 4, head 1", "layer 4, head 2"]),
    );
    expect(titlesOf(all)).toHaveLength(18);
  });

  test("of many tokens: heads side by side, and no tooltips where they would be most of the file", async () => {
    const tokens = Array.from({ length: 150 }, (_, i) => `t${i}`);
    const weights = tokens.map((_, from) => tokens.map((__, to) => (to <= from ? 1 / (from + 1) : 0)));
    const heads = [0, 1, 2].map((head) => new HeadPattern({ tokens, layer: 1, head, weights }));
    const svg = await attentionFigure(heads).svg();
    expect(titlesOf(svg)).toEqual([]);
    const [, width, height] = /viewBox="0 0 ([\d.]+) ([\d.]+)"/.exec(svg)!;
    expect(Number(width)).toBeGreaterThan(2 * Number(height));
    expect(titlesOf(await attentionFigure(heads[0]!).svg())).toHaveLength((150 * 151) / 2);
  });

  test("from one token, over the text", async () => {
    const svg = await attentionFigure([pattern(0), pattern(1)], { at: -1 }).svg();
    expect(textsOf(svg)).toEqual(
      expect.arrayContaining(["attention from token 2 Rome", "layer 4, head 0", "layer 4, head 1"]),
    );
    expect(titlesOf(svg).slice(0, 3)).toEqual(["0 Q: 0.1", "1 :: 0", "2 Rome: 0.9"]);
  });

  test("refuses what does not go together", () => {
    expect(() => attentionFigure([])).toThrow(ArgumentError);
    expect(() => attentionFigure(pattern(0), { at: 3 })).toThrow(
      /a position from -3 to 2 \(3 tokens\), found 3/,
    );
    expect(() => attentionFigure([pattern(0), pattern(1, ["a", "b", "c"])])).toThrow(PromptError);
    expect(() => attentionFigure(pattern(0), { picture })).toThrow(/a picture goes with maps/);
  });
});

describe("attention over a picture", () => {
  /** A map whose peak is at one patch. */
  const mapAt = (peak: number, side: number, layer = 0): AttentionMap => {
    const weights = new Float32Array(side * side).fill(0.001);
    weights[peak] = 0.02;
    return { layer, grid: { rows: side, columns: side }, weights, share: weights.reduce((a, b) => a + b) };
  };

  test.each([2, 4, 24])(
    "a grid of %i patches a side: a caption a panel, a legend, and the very pixels once",
    async (side) => {
      const maps = [mapAt(1, side), mapAt(2, side, 1), mapAt(0, side, 2)];
      const svg = await attentionFigure(maps, { picture, title: "a title" }).svg();
      expect(textsOf(svg)).toEqual(
        expect.arrayContaining([
          "a title",
          "0",
          "peak of each panel",
          `the picture, ${side} x ${side} patches`,
        ]),
      );
      for (const layer of [0, 1, 2])
        expect(textsOf(svg).filter((text) => text.startsWith(`layer ${layer}: `))).toHaveLength(1);
      expect(titlesOf(svg)).toHaveLength(3 * side * side);
      // The picture itself, and one without colours for all panels.
      const images = [...svg.matchAll(/<image[^>]*href="data:image\/png;base64,([^"]+)"/g)];
      expect(images).toHaveLength(2);
      const decoded = await Promise.all(
        images.map(([, data]) => decodeImage(Uint8Array.from(Buffer.from(data!, "base64")))),
      );
      expect(decoded.map(({ data }) => [...data])).toContainEqual([...picture.data]);
      expect(readXml(svg)["use"]).toBe(3);
    },
  );

  test("a patch's tooltip says which it is and what it gets, in reading order, brightest at the peak", async () => {
    const svg = await attentionFigure(mapAt(5, 4), { picture }).svg();
    const titles = titlesOf(svg);
    expect(titles).toHaveLength(16);
    expect([titles[5], titles[0]]).toEqual(["row 1, column 1: 2.00 %", "row 0, column 0: 0.10 %"]);
    const places = [...svg.matchAll(/<path d="M([\d.]+),([\d.]+)h[^"]*"[^>]*><title>/g)].map(([, x, y]) => [
      Number(x),
      Number(y),
    ]);
    const [a, b, c] = [places[0]!, places[1]!, places[4]!];
    expect([b[0]! > a[0]!, b[1] === a[1], c[0] === a[0], c[1]! > a[1]!]).toEqual([true, true, true, true]);
    const brightness = coloursOf(svg).map(luma);
    expect(brightness.indexOf(Math.max(...brightness))).toBe(5);
  });

  test("one map has its peak in the legend; a map of nothing is dark, not broken", async () => {
    expect(textsOf(await attentionFigure(mapAt(0, 4), { picture }).svg())).toContain("2.00 %");
    const nothing = { ...mapAt(0, 4), weights: new Float32Array(16), share: 0 };
    const svg = await attentionFigure(nothing, { picture }).svg();
    expect(textsOf(svg)).toContain("0.00 %");
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
  });

  test("a long line of text goes on in further ones, up to four", async () => {
    const setting = `a model of some name; ${"an adapter, ".repeat(14)}dtypes`;
    const shown = textsOf(
      await attentionFigure(mapAt(0, 4), { picture, lines: [setting, "the prompt"] }).svg(),
    );
    expect(shown.join(" ")).toContain(`${setting} the prompt`);
    const long = textsOf(
      await attentionFigure(mapAt(0, 4), { picture, lines: ["long ".repeat(1000)] }).svg(),
    );
    const lines = long.filter((text) => text.startsWith("long"));
    expect(lines.map((text) => text.endsWith("…"))).toEqual([false, false, false, true]);
  });

  test("needs a picture, and no token of its own", () => {
    expect(() => attentionFigure(mapAt(0, 4))).toThrow(/expected the option picture/);
    expect(() => attentionFigure(mapAt(0, 4), { picture, at: 1 })).toThrow(/give the token to attentionMaps/);
  });

  test("maps of another picture's grid would lie in the wrong places, and are refused", () => {
    const wide = { ...mapAt(0, 4, 1), grid: { rows: 2, columns: 8 } };
    for (const other of [mapAt(0, 2, 1), wide, { ...mapAt(0, 4, 1), weights: new Float32Array(9) }]) {
      expect(() => attentionFigure([mapAt(0, 4), other], { picture })).toThrow(PromptError);
    }
    expect(() => attentionFigure([mapAt(0, 4), wide], { picture })).toThrow(
      /over one picture of 4 x 4 patches, found 16 weights over 2 x 8/,
    );
  });

  test("grids that are not square keep the shape of their patches", async () => {
    const weights = new Float32Array(8).fill(0.1);
    const svg = await attentionFigure(
      { layer: 0, grid: { rows: 2, columns: 4 }, weights, share: 0.8 },
      { picture },
    ).svg();
    const [, width, height] = /<path d="M0,0h([\d.]+)v([\d.]+)h[^"]*"[^>]*><title>/.exec(svg)!;
    expect(width).toBe(height);
  });
});

const words = [" dog", "a very long word indeed", "\n", "天"];
const cells: LensCell[] = [0, 1].flatMap((layer) =>
  Array.from({ length: 16 }, (_, i) => ({
    layer,
    position: 5 + i,
    tokens: [
      { id: 1, text: words[i % 4]!, probability: (i + 1) / 32 },
      { id: 2, text: "second", probability: 0.01 },
    ],
  })),
);

describe("the lens over text", () => {
  test("at several positions the word of each, at one its likeliest words", async () => {
    const tokens = Array.from({ length: 30 }, (_, i) => ` t${i}`);
    const table = await lensFigure(cells, { tokens }).svg();
    expect(textsOf(table)).toEqual(
      expect.arrayContaining(["5 t5", "20 t20", "dog", "\\n", "天", "layer", "position"]),
    );
    expect(textsOf(table).filter((text) => text.startsWith("a very") && text.endsWith("…"))).toHaveLength(8);
    expect(titlesOf(table)).toHaveLength(32);
    expect(titlesOf(table)[6]).toBe('layer 0, 11 t11\n"\\n" 21.9 %\n"second" 1.00 %');
    const one = cells.filter(({ position }) => position === 5);
    const column = await lensFigure(LensCells.from(one) as LensCells).svg();
    expect(textsOf(column)).toEqual(expect.arrayContaining(["logit lens at 5", "rank", "dog", "second"]));
    expect(titlesOf(column)).toHaveLength(4);
  });

  test("many positions go on below, on one scale of colours; more than 5,000 words are left to the pointer", async () => {
    const grid = (layers: number, positions: number): LensCell[] =>
      Array.from({ length: layers * positions }, (_, i) => ({
        layer: Math.floor(i / positions),
        position: i % positions,
        tokens: [{ id: 1, text: ` w${i}`, probability: (i + 1) / (layers * positions) }],
      }));
    const size = (svg: string) => /viewBox="0 0 ([\d.]+) ([\d.]+)"/.exec(svg)!.slice(1).map(Number);
    const folded = await lensFigure(grid(3, 50)).svg();
    const [width, height] = size(folded) as [number, number];
    expect(width).toBeLessThan(1200);
    expect(textsOf(folded).filter((text) => text === "layer")).toHaveLength(4);
    expect(textsOf(folded).filter((text) => text === "probability")).toHaveLength(1);
    expect(textsOf(folded).filter((text) => /^w\d+$/.test(text))).toHaveLength(150);
    expect(titlesOf(folded)).toHaveLength(150);
    const brightness = coloursOf(folded).map(luma);
    expect(brightness).toHaveLength(150);
    expect(Math.max(...brightness)).toBeGreaterThan(brightness[0]! + 100);
    const [narrow, low] = size(await lensFigure(grid(3, 14)).svg()) as [number, number];
    expect([narrow < 1200, low < height / 2]).toEqual([true, true]);
    // As many in each part; none is left for a 17th.
    expect(textsOf(await lensFigure(grid(1, 240)).svg()).filter((text) => text === "layer")).toHaveLength(16);
    const many = await lensFigure(grid(10, 501)).svg();
    expect(textsOf(many).filter((text) => /^w\d+$/.test(text))).toEqual([]);
    expect(textsOf(many)).toContain("too many words to be drawn: name fewer layers or positions");
    expect(titlesOf(many)[5]).toMatch(/^layer 0, 5\n" w5" /);
    expect(size(many)[0]).toBeLessThan(1200);
  });

  test("prints as the cells do", () => {
    const lens = new LensCells(...cells);
    expect(`${lensFigure(lens)}`).toBe(lens.table());
    expect(() => lensFigure([])).toThrow(ArgumentError);
    expect(() => lensFigure(cells, { picture })).toThrow(/picture and grid together/);
  });
});

describe("the lens over a picture", () => {
  const grid = { rows: 4, columns: 4 };

  test("a panel a layer with the words of the patches, cut to fit, and the rest in tooltips", async () => {
    const svg = await lensFigure(cells, { picture, grid, title: "a title" }).svg();
    expect(textsOf(svg)).toEqual(
      expect.arrayContaining([
        "layer 0",
        "layer 1",
        "50.0 %",
        "probability of the word",
        "the picture, 4 x 4 patches",
      ]),
    );
    const count = (fits: (text: string) => boolean) => textsOf(svg).filter(fits).length;
    expect([
      count((text) => text === "dog"),
      count((text) => text.startsWith("a very") && text.endsWith("…")),
      count((text) => text === "\\n"),
      count((text) => text === "天"),
    ]).toEqual([8, 8, 8, 8]);
    const brightness = [
      ...svg.matchAll(/<path[^>]*fill="rgb\((\d+), (\d+), (\d+)\)"[^>]*opacity="0\.7"/g),
    ].map(([, ...rgb]) => luma(rgb.slice(0, 3).map(Number)));
    expect(brightness).toHaveLength(32);
    expect(brightness.slice(0, 16)).toEqual(brightness.slice(0, 16).toSorted((x, y) => x - y));
    expect(brightness[15]).toBeGreaterThan(brightness[0]! + 100);
    expect(titlesOf(svg)).toHaveLength(32);
    expect(titlesOf(svg)[6]).toBe('row 1, column 2, position 11\n"\\n" 21.9 %\n"second" 1.00 %');
  });

  test("needs a cell for each patch", () => {
    expect(() => lensFigure(cells.slice(1), { picture, grid })).toThrow(PromptError);
    expect(() => lensFigure(cells, { picture, grid, tokens: ["a"] })).toThrow(ArgumentError);
    expect(() => lensFigure(cells.slice(1), { picture, grid })).toThrow(
      /each of 16 patches, found 15 of layer 0/,
    );
  });

  test("the terminal has how often each word occurs, and the grid where it fits", () => {
    const report: ImageLensReport = {
      model: "m",
      family: "llava",
      dtypes: ["F16"],
      adapter: "a",
      site: "resid_post",
      prompt: "p",
      span: "image",
      grid,
      positions: [],
      cells: cells.map((cell) => ({ ...cell, tokens: cell.tokens.map((t) => ({ ...t, token: t.text })) })),
      out: ["lens.png"],
    };
    const wide = formatImageLens(report, 100);
    expect(wide).toContain("resid_post.0: dog x4, a very long word indeed x4, \\n x4, 天 x4");
    expect(wide.match(/^ {2}dog {2}a very long word indeed {2}\\n {2}天$/gm)).toHaveLength(8);
    expect(wide).toMatch(/written to lens\.png$/);
    expect(formatImageLens(report, 30)).not.toMatch(/^ {2}dog/m);
  });
});
