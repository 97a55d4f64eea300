import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { AttentionMap } from "../../src/analysis/attention-map.ts";
import { HeadPattern } from "../../src/analysis/head-pattern-result.ts";
import { LensCells } from "../../src/analysis/lens-cells.ts";
import type { LensCell } from "../../src/analysis/logit-lens.ts";
import { PatchMap } from "../../src/analysis/patch-map-result.ts";
import { HeadRanking } from "../../src/analysis/rank-heads.ts";
import { formatImageLens, type ImageLensReport } from "../../src/cli/commands/lens-image.ts";
import { ArgumentError, FileError, ImageError, PromptError } from "../../src/errors.ts";
import { attentionFigure } from "../../src/figures/attention-figure.ts";
import { curveFigure } from "../../src/figures/curve-figure.ts";
import { escapeXml } from "../../src/figures/escape.ts";
import type { Figure } from "../../src/figures/figure.ts";
import { heatFigure } from "../../src/figures/heat-figure.ts";
import { lensFigure } from "../../src/figures/lens-figure.ts";
import { show } from "../../src/figures/show.ts";
import { showPatch, showShare, showToken, showWord } from "../../src/figures/text.ts";
import { tokenFigure } from "../../src/figures/token-figure.ts";
import { letters, textWidth, wrapText } from "../../src/figures/vega-lite/text-width.ts";
import { decodeImage } from "../../src/images/decode.ts";
import type { RgbImage } from "../../src/images/rgb.ts";
import { readXml } from "../helpers/xml.ts";

const opened = vi.hoisted(() => vi.fn());
vi.mock("open", () => ({ default: opened }));

/** A picture whose pixels all differ. */
const picture = gradient(28, 28);

function gradient(width: number, height: number): RgbImage {
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) data.set([i & 255, (i * 7) & 255, i >> 8], i * 3);
  return { width, height, data };
}

/** Texts of an SVG, a line each, unescaped. */
function textsOf(svg: string): string[] {
  const lines = svg.replaceAll(/<title>[^<]*<\/title>/g, "").matchAll(/>([^<]*)<\/(?:text|tspan)>/g);
  return [...lines].map(([, text]) => unescaped(text!)).filter((text) => text !== "");
}

function titlesOf(svg: string): string[] {
  return [...svg.matchAll(/<title>([^<]*)<\/title>/g)].map(([, text]) => unescaped(text!));
}

function unescaped(text: string): string {
  return text
    .replaceAll("&quot;", '"')
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&amp;", "&");
}

/** The colours of the shapes that have tooltips. */
function coloursOf(svg: string): number[][] {
  return [...svg.matchAll(/<path[^>]*fill="rgb\((\d+), (\d+), (\d+)\)"[^>]*><title>/g)].map(([, ...rgb]) =>
    rgb.slice(0, 3).map(Number),
  );
}

const luma = ([r, g, b]: readonly number[]) => 0.299 * r! + 0.587 * g! + 0.114 * b!;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "xpatch-figures-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("text", () => {
  test("wraps to lines that fit, without losing a word", () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: "grapheme" }).map((word) => word.replace(/\s/gu, ""))),
        fc.integer({ min: 4, max: 40 }),
        (words, width) => {
          const text = words.join(" ");
          const lines = wrapText(text, width, 1e6);
          expect(lines.every((line) => letters(line) <= width)).toBe(true);
          expect(lines.join("").replaceAll(" ", "")).toBe(text.replaceAll(" ", ""));
          const few = wrapText(text, width, 2);
          expect(few.length).toBeLessThanOrEqual(2);
          if (lines.length > 2) expect(few[1]!.endsWith("…")).toBe(true);
        },
      ),
    );
    expect(wrapText("one two three", 8, 9)).toEqual(["one two", "three"]);
    expect(wrapText("abcdef", 4, 9)).toEqual(["abcd", "ef"]);
  });

  test("is as wide as its letters are in DejaVu Sans", () => {
    // From the font's table of advances: W 2025, i 569, space 651 of 2048.
    expect(textWidth({ fontSize: 100 }, "Wi i")).toBeCloseTo((100 * (2025 + 569 + 651 + 569)) / 2048, -0.5);
    expect(textWidth({ fontSize: 10, fontWeight: "bold" }, "abc")).toBeGreaterThan(
      textWidth({ fontSize: 10 }, "abc"),
    );
    expect(letters("天a")).toBeCloseTo(2.6);
  });

  test("shares, patches, words and tokens", () => {
    expect([0, 0.00123, 0.0999, 0.1, 1].map(showShare)).toEqual([
      "0.00 %",
      "0.12 %",
      "9.99 %",
      "10.0 %",
      "100.0 %",
    ]);
    expect(showPatch(7, { rows: 3, columns: 4 })).toBe("row 1, column 3");
    expect([" the", "\n", "", " ", 'a"b'].map(showWord)).toEqual(["the", "\\n", '""', '" "', 'a\\"b']);
    expect(
      ["ĠParis", "▁Paris", "Ċ", "Ġ", "incomprehensibilities"].map((token) => showToken(3, token)),
    ).toEqual(["3 Paris", "3 Paris", "3 \\n", '3 " "', "3 incomprehen…"]);
  });

  test("is escaped for XML, whatever is in it", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(escapeXml(text)).not.toMatch(/[<>"]|&(?!(amp|lt|gt|quot);)/);
        expect([...escapeXml(text)].filter((c) => c < " " && !"\t\n\r".includes(c))).toEqual([]);
      }),
    );
  });
});

const hostile = '</text><script>alert("1 & 2")</script>\u0000\u001b]]>';

describe("a figure", () => {
  const figure = () =>
    heatFigure(
      { rows: [hostile, "b"], columns: [0, 1, 2], values: [[1, 2, 3], new Float32Array([4, 5, 6])] },
      { title: hostile, x: "across", y: "down", value: "height" },
    );

  test("is well-formed SVG and a page that needs no other file, whatever its texts", async () => {
    const svg = await figure().svg();
    expect(readXml(svg)).toMatchObject({ svg: 1, title: 6 });
    for (const text of ["<script", "\u0000", "\u001b"]) expect(svg).not.toContain(text);
    expect(titlesOf(svg)).toContain("down b, across 2: 6");
    const page = await figure().html();
    expect(page).toMatch(/^<!doctype html>/);
    expect(page).toContain("<title>&lt;/text&gt;&lt;script&gt;");
    expect(page).toContain(svg);
    expect(page.match(/(?:src|href)="(?!data:|#)[^"]*"|url\((?!#)|@import|<script/g)).toBeNull();
  });

  test("is saved as its name says; other names are refused with what there is", async () => {
    for (const end of ["svg", "HTML", "png"]) {
      const path = join(folder, `saved.${end}`);
      await figure().save(path);
      const bytes = readFileSync(path);
      if (end === "svg") expect(`${bytes}`).toBe(await figure().svg());
      if (end === "HTML") expect(`${bytes}`).toBe(await figure().html());
      if (end === "png") {
        const { width, data } = await decodeImage(Uint8Array.from(bytes));
        const [, drawn] = /viewBox="0 0 (\d+)/.exec(await figure().svg())!;
        expect(width).toBe(2 * Number(drawn));
        expect(new Set(data).size).toBeGreaterThan(100);
      }
    }
    await expect(figure().save(join(folder, "saved.jpg"))).rejects.toThrow(FileError);
    await expect(figure().save("saved")).rejects.toThrow(
      /saved: expected a name that ends in one of \.svg, \.png, \.html/,
    );
    await expect(figure().save("a.pgn")).rejects.toThrow(/the nearest to "\.pgn" is "\.png"/);
    await expect(figure().save(join(folder, "no", "such.svg"))).rejects.toThrow(FileError);
    await expect(figure().png({ zom: 3 } as never)).rejects.toThrow(ArgumentError);
    for (const zoom of [0, -1, Number.POSITIVE_INFINITY]) {
      await expect(figure().png({ zoom })).rejects.toThrow(/zoom to be a number above 0/);
    }
    await expect(figure().png({ zoom: 1000 })).rejects.toThrow(
      /pixels is too large .* expected a smaller zoom/,
    );
    await expect(figure().png({ zoom: 1e-4 })).rejects.toThrow(ImageError);
  });

  test("prints as its numbers, shows itself in a notebook, and elsewhere as text with the path of a page", async () => {
    const drawn = heatFigure(
      {
        rows: ["a", "b"],
        columns: [0, 1],
        values: [
          [1, 2],
          [3, 4.5678],
        ],
      },
      { title: "T", y: "who" },
    );
    expect(inspect(drawn)).toBe("T\n\nwho  0     1\na    1     2\nb    3  4.57");
    const bundle = await (drawn as unknown as Record<symbol, () => Promise<Record<string, string>>>)[
      Symbol.for("Jupyter.display")
    ]!();
    expect(bundle).toEqual({ "image/svg+xml": await drawn.svg(), "text/plain": `${drawn}` });
    const log = vi.spyOn(console, "log").mockImplementation(() => {});
    vi.stubEnv("DISPLAY", "");
    vi.stubEnv("WAYLAND_DISPLAY", "");
    vi.stubEnv("SSH_CONNECTION", "here");
    await show(drawn);
    const [printed] = log.mock.calls[0]!;
    log.mockRestore();
    vi.unstubAllEnvs();
    const [, path] = /^T\n(?:.*\n)*.*4\.57\n\n(.*figure\.html)$/.exec(printed)!;
    expect(readFileSync(path!, "utf8")).toBe(await drawn.html());
    rmSync(join(path!, ".."), { recursive: true });
    await expect(show({} as Figure)).rejects.toThrow(/expected figure to be a Figure \(from heatFigure/);
  });

  test("prints where there is a screen and no browser that opens it", async () => {
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
        [opener(3), 1],
        [opener(null, 3), 1],
        [opener(0), 0],
        [opener(null, 0), 0],
        [opener(null), 0], // a browser in the foreground
      ] as const) {
        opened.mockResolvedValueOnce(child);
        print.mockClear();
        await show(drawn);
        expect(print).toHaveBeenCalledTimes(printed);
      }
    } finally {
      print.mockRestore();
      vi.unstubAllEnvs();
    }
  });

  test("in a notebook of Deno's kernel is displayed", async () => {
    const display = vi.fn(async () => {});
    vi.stubGlobal("Deno", { jupyter: { display } });
    const drawn = curveFigure([0.1, 0.2], { y: "accuracy" });
    await show(drawn);
    vi.unstubAllGlobals();
    expect(display).toHaveBeenCalledWith(
      { "image/svg+xml": await drawn.svg(), "text/plain": `${drawn}` },
      { raw: true },
    );
  });
});

describe("heat figures", () => {
  const map = (fields: Partial<PatchMap> = {}) =>
    new PatchMap({
      rows: ["resid_pre.0", "resid_pre.1"],
      columns: [
        { position: 3, token: " Rome" },
        { position: 4, token: ":" },
      ],
      values: [
        [1, 4],
        [2, 0],
      ],
      clean: 5,
      corrupted: 1,
      direction: "denoising",
      metric: "logit of A − B",
      rowLayers: 1,
      plainRowLayers: 2,
      ...fields,
    });

  test("of a patch map: effects by layer and token, its own text", async () => {
    const figure = heatFigure(map());
    const svg = await figure.svg();
    expect(titlesOf(svg)).toEqual([
      "resid_pre.0, 3 Rome: effect 0, logit of A − B 1",
      "resid_pre.0, 4 :: effect 0.75, logit of A − B 4",
      "resid_pre.1, 3 Rome: effect 0.25, logit of A − B 2",
      "resid_pre.1, 4 :: effect -0.25, logit of A − B 0",
    ]);
    expect(textsOf(svg)).toEqual(
      expect.arrayContaining([
        "3 Rome",
        "4 :",
        "0",
        "1",
        "resid_pre",
        "logit of A − B",
        "effect of clean activations in the corrupted prompt",
      ]),
    );
    expect(`${figure}`).toBe(`${map()}`);
    expect(figure.caption).toContain("is 5 clean and 1 corrupted");
    // Diverging: nothing is nearly white, and opposite signs have opposite colours.
    const [zero, up, , down] = coloursOf(svg);
    expect(luma(zero!)).toBeGreaterThan(220);
    expect([up![0]! > up![2]!, down![2]! > down![0]!]).toEqual([true, true]);
    expect(textsOf(await heatFigure(map({ direction: "noising" }), { title: "mine" }).svg())).toEqual(
      expect.arrayContaining(["mine", "effect of corrupted activations in the clean prompt"]),
    );
  });

  test("of sites of several kinds: a panel each", async () => {
    const texts = textsOf(await heatFigure(map({ rows: ["attn_out.7", "mlp_out.7"] })).svg());
    expect(texts).toEqual(expect.arrayContaining(["attn_out", "mlp_out", "layer", "7"]));
  });

  test("of a ranking of heads: by layer and head", async () => {
    const ranking = new HeadRanking(map({ rows: ["z.0", "z.1"], columns: [{ head: 0 }, { head: 1 }] }));
    const figure = heatFigure(ranking);
    expect(titlesOf(await figure.svg())[1]).toBe("z.0, head 1: effect 0.75, logit of A − B 4");
    expect(`${figure}`).toBe(`${ranking}`);
  });

  test("a metric that does not tell the prompts apart is drawn as nothing, not broken", async () => {
    const svg = await heatFigure(map({ corrupted: 5 })).svg();
    expect(svg).not.toMatch(/="[^"]*(NaN|Infinity|undefined)/);
  });

  test("refuse numbers that do not fit their names", () => {
    const rows = ["a"];
    expect(() => heatFigure({ rows, columns: [1, 2], values: [[1]] })).toThrow(
      /expected values as 1 rows of 2, found 1 in row 0/,
    );
    expect(() => heatFigure({ rows, columns: [1], values: [[1], [2]] })).toThrow(/found 2 rows/);
    expect(() => heatFigure({ rows: ["a", "a"], columns: [1], values: [[1], [2]] })).toThrow(
      /found "a" twice/,
    );
    expect(() => heatFigure([[1]] as never)).toThrow(/expected data\.rows to be a list, found undefined/);
    expect(() => heatFigure(map(), { titel: "x" } as never)).toThrow(/the nearest is "title"/);
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

  test("names on one line in a terminal, whatever is in them", () => {
    const figure = heatFigure({ rows: ["a\nb"], columns: ["\u001b[31m"], values: [[1]] }, { title: "T" });
    expect(`${figure}`).toBe("T\n\n      \\u001b[31m\na\\nb           1");
  });

  test("small values have a legend that tells them apart", async () => {
    const legend = async (most: number) =>
      textsOf(await heatFigure({ rows: ["a"], columns: ["b"], values: [[most]] }).svg()).slice(0, 5);
    expect(await legend(0.03)).toEqual(["0", "0.0075", "0.015", "0.0225", "0.03"]);
    expect(await legend(1e-30)).toContain("2.5e-31");
    expect(await legend(2)).toEqual(["0.00", "0.50", "1.00", "1.50", "2.00"]);
    expect(textsOf(await tokenFigure(["a"], [0.004]).svg())).toContain("0.004");
  });

  test("a long title goes on in another line", async () => {
    const title = "long title ".repeat(60).trim();
    const figure = heatFigure({ rows: ["a"], columns: ["b"], values: [[1]] }, { title });
    const shown = textsOf(await figure.svg()).filter((text) => text.includes("long title"));
    expect(shown.length).toBe(4);
    expect(title.startsWith(shown.slice(0, 3).join(" "))).toBe(true);
    expect(Number(/width="(\d+)/.exec(await figure.svg())![1])).toBeLessThan(1100);
  });
});

describe("curves", () => {
  test("one, several by name, with bands, references and what was chosen", async () => {
    const figure = curveFigure(
      {
        prompt: [0.1, 0.2, 0.4],
        patch: [
          { x: 1, y: 0.3, low: 0.2, high: 0.4 },
          { x: 2, y: 0.5, low: 0.4, high: 0.6 },
        ],
      },
      { y: "accuracy", references: { chance: 0.05 }, chosen: 2 },
    );
    const texts = textsOf(await figure.svg());
    expect(texts).toEqual(
      expect.arrayContaining(["accuracy by layer", "prompt", "patch", "chance", "layer"]),
    );
    expect(figure.caption).toBe("Bands: from low to high. Dashed: chance 0.05. Ringed: layer 2.");
    expect(`${figure}`).toBe(
      "accuracy by layer\n\nlayer  prompt  patch\n0         0.1\n1         0.2    0.3\n2         0.4    0.5",
    );
    expect(`${curveFigure(new Float32Array([1, 2]), { at: [5, 7], y: "norm" })}`).toBe(
      "norm by layer\n\nlayer  norm\n5         1\n7         2",
    );
  });

  test("refuse what is no curve", () => {
    expect(() => curveFigure({ a: "no" } as never)).toThrow(/curves\.a to be a list of numbers or of points/);
    expect(() => curveFigure({ a: [{ x: 1 }] } as never)).toThrow(ArgumentError);
    expect(() => curveFigure([1, 2], { at: [1] })).toThrow(
      /expected 1 values of "value", as many as at has, found 2/,
    );
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

  test("what is not finite is left out, and is in the table", async () => {
    for (const list of [[0.1, Number.NaN, 0.4], Float32Array.of(Number.NaN, 0.5, Number.POSITIVE_INFINITY)]) {
      const figure = curveFigure(list);
      expect(`${figure}`).toContain("NaN");
      const svg = await figure.svg();
      expect(svg).not.toMatch(/NaN|Infinity/);
      expect(textsOf(svg)).toEqual(expect.arrayContaining(["0.0", "1.0"]));
    }
  });

  test("any number of points", () => {
    expect(`${curveFigure(new Float32Array(150_000))}`.split("\n")).toHaveLength(150_003);
  });
});

describe("tokens", () => {
  test("stand on the colours of their numbers, in lines that end where the text's do", async () => {
    const tokens = ["Q", ":", " Greece", "\n", "A", ...Array.from({ length: 30 }, () => " wordword")];
    const values = tokens.map((_, i) => i / 40);
    const svg = await tokenFigure(tokens, values, { title: "T", value: "weight" }).svg();
    const shown = textsOf(svg);
    expect(shown.filter((text) => text.includes("wordword"))).toHaveLength(30);
    expect(titlesOf(svg)[2]).toBe("2 Greece: 0.05");
    const places = [...svg.matchAll(/<path d="M([\d.]+),([\d.]+)h([\d.]+)v[^"]*"[^>]*><title>/g)].map(
      ([, x, y, w]) => [x, y, w].map(Number),
    );
    expect(places).toHaveLength(tokens.length);
    const [newline, after] = [places[3]!, places[4]!];
    expect([after[0], after[1]! > newline[1]!]).toEqual([0, true]);
    places.forEach(([x, y, width], i) => {
      const next = places[i + 1];
      if (next?.[1] === y) expect(next![0]).toBeGreaterThanOrEqual(x! + width! - 0.01);
      expect(x! + width!).toBeLessThan(800);
    });
    const shades = coloursOf(svg).map(luma);
    expect(shades[0]).toBeGreaterThan(shades.at(-1)!);
  });

  test("in a block for each list; lists that do not fit are refused", async () => {
    const figure = tokenFigure(["a", "b"], { one: [1, -1], two: [0, 0.5] });
    expect(textsOf(await figure.svg())).toEqual(expect.arrayContaining(["one", "two"]));
    expect(`${figure}`).toBe("token  one  two\n0 a      1    0\n1 b     -1  0.5");
    expect(() => tokenFigure(["a"], { one: [1, 2] })).toThrow(
      /a number for each of 1 tokens, found 2 of "one"/,
    );
    expect(() => tokenFigure([], [])).toThrow(/expected at least one token/);
    expect(() => tokenFigure(["a"], {})).toThrow(/one list of numbers, found none/);
    expect(() => tokenFigure(["a"], ["1"] as never)).toThrow(/expected values\[0\] to be a number/);
    expect(() => tokenFigure(["a"], { one: 3 } as never)).toThrow(/expected values\.one to be a list/);
  });

  test("a number that is not finite has no colour; a very long token is cut", async () => {
    const figure = tokenFigure(["a", "b", "x".repeat(300)], [Number.NaN, 1, 2]);
    const svg = await figure.svg();
    expect(svg).not.toMatch(/NaN(?!<)|Infinity/);
    expect(Number(/width="(\d+)/.exec(svg)![1])).toBeLessThan(1000);
    expect(textsOf(svg).some((text) => /^x{90,}…$/.test(text))).toBe(true);
    expect(`${figure}`).toContain("NaN");
  });
});

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

  test("of a token that there is", () => {
    expect(pattern(0).top(-1, 1)).toEqual([{ position: 2, token: " Rome", weight: 0.9 }]);
    for (const wrong of [3, -4, 1.5]) expect(() => pattern(0).top(wrong)).toThrow(PromptError);
    expect(() => pattern(0).top(undefined as never)).toThrow(/position to be a number/);
    for (const count of [-1, 0.5]) {
      expect(() => pattern(0).top(0, count)).toThrow(/count to be a whole number from 0/);
      expect(() => new PatchMap({} as never).top(count)).toThrow(/count to be a whole number from 0/);
    }
  });

  test("from one token, over the text", async () => {
    const svg = await attentionFigure([pattern(0), pattern(1)], { at: -1 }).svg();
    expect(textsOf(svg)).toEqual(
      expect.arrayContaining(["attention from token 2 Rome", "layer 4, head 0", "layer 4, head 1"]),
    );
    expect(titlesOf(svg).slice(0, 3)).toEqual(["0 Q: 0.1", "1 :: 0", "2 Rome: 0.9"]);
  });

  test("refuses what does not go together", () => {
    expect(() => attentionFigure([pattern(1), pattern(1)])).toThrow(
      /differ in layer or head, found layer .* twice/,
    );
    for (const wrong of [{ layer: 1 }, { a: 1 }, Promise.resolve()]) {
      expect(() => attentionFigure(wrong as never)).toThrow(/what headPattern, headPatterns, .* gives/);
    }
    expect(() => attentionFigure([])).toThrow(ArgumentError);
    expect(() => attentionFigure(pattern(0), { at: 3 })).toThrow(/a prompt of 3 tokens, found 3/);
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
    "a grid of %i x %i: a caption a panel, a legend, and the very pixels once",
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
    expect(`${attentionFigure({ ...mapAt(0, 4), head: 2 }, { picture })}`).toMatch(
      /^layer 0, head 2: .* on the image/m,
    );
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

  test("a caption that is wider than its panel goes on in another line, uncut", async () => {
    const narrow = { ...mapAt(0, 4), head: 12, grid: { rows: 8, columns: 2 } };
    const shown = textsOf(await attentionFigure(narrow, { picture }).svg());
    expect(shown.join(" ")).toContain("layer 0, head 12: 3.50 % on the image, peak 2.00 %");
    expect(shown.filter((text) => text.endsWith("…"))).toEqual([]);
    const wide = textsOf(await attentionFigure(mapAt(0, 4), { picture }).svg());
    expect(wide).toContain("layer 0: 3.50 % on the image, peak 2.00 %");
  });

  test("needs a picture, and no token of its own", () => {
    expect(() => attentionFigure(mapAt(0, 4))).toThrow(/expected the option picture/);
    expect(() => attentionFigure(mapAt(0, 4), { picture, at: 1 })).toThrow(/give the token to attentionMaps/);
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
    const read = LensCells.over(tokens.map((token) => `read${token}`));
    read.push(...cells);
    expect(textsOf(await lensFigure(read).svg())).toContain("5 read t5");
    for (const wrong of [tokens.slice(0, 20), [...tokens, "more"]]) {
      expect(() => lensFigure(read, { tokens: wrong })).toThrow(/expected 30 tokens, as many as were read/);
    }
    expect(() => lensFigure(cells, { tokens: ["a"] })).toThrow(PromptError);
    expect(() => lensFigure([{}] as never)).toThrow(/cells\[0\] to be a cell from logitLens/);
    const one = cells.filter(({ position }) => position === 5);
    const column = await lensFigure(LensCells.from(one) as LensCells).svg();
    expect(textsOf(column)).toEqual(expect.arrayContaining(["logit lens at 5", "rank", "dog", "second"]));
    expect(titlesOf(column)).toHaveLength(4);
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
    expect(titlesOf(svg)).toHaveLength(32);
    expect(titlesOf(svg)[6]).toBe('row 1, column 2, position 11\n"\\n" 21.9 %\n"second" 1.00 %');
  });

  test("needs a cell for each patch", () => {
    expect(() => lensFigure(cells.slice(1), { picture, grid })).toThrow(PromptError);
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
