import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { ArgumentError, FileError } from "../../src/errors.ts";
import { chartFigure } from "../../src/figures/chart-figure.ts";
import { curveFigure } from "../../src/figures/curve-figure.ts";
import { escapeXml } from "../../src/figures/escape.ts";
import type { Figure } from "../../src/figures/figure.ts";
import { heatFigure } from "../../src/figures/heat-figure.ts";
import { show } from "../../src/figures/show.ts";
import { showPatch, showShare, showToken, showWord } from "../../src/figures/text.ts";
import { tokenFigure } from "../../src/figures/token-figure.ts";
import { letters, textWidth, wrapText } from "../../src/figures/vega-lite/text-width.ts";
import { decodeImage } from "../../src/images/files/decode.ts";
import { titlesOf } from "../helpers/svg.ts";
import { readXml } from "../helpers/xml.ts";

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

describe("figures beside each other", () => {
  const two = () => [
    curveFigure([0.1, 0.2]),
    heatFigure(NUMBERS),
    heatFigure({ ...NUMBERS, values: [[1], [3]] }),
  ];

  test("have no names in common, so that a page can hold them", async () => {
    const documents = await Promise.all(two().map((figure) => figure.svg()));
    const named = documents.map((svg) => [...svg.matchAll(/ id="([^"]*)"/g)].map(([, name]) => name!));
    const all = named.flat();
    expect(named.every((names) => names.length > 0)).toBe(true);
    expect(new Set(all).size).toBe(all.length);
    for (const [i, svg] of documents.entries()) {
      const used = [...svg.matchAll(/(?:url\(#|href="#)([^")]*)/g)].map(([, name]) => name!);
      expect(used.length).toBeGreaterThan(0);
      expect(named[i]).toEqual(expect.arrayContaining(used));
    }
  });

  test("drawn at once are what they are alone", async () => {
    const alone: string[] = [];
    for (const figure of two()) alone.push(await figure.svg());
    expect(
      await Promise.all(
        two()
          .reverse()
          .map((figure) => figure.svg()),
      ),
    ).toEqual(alone.reverse());
  });
});

const NUMBERS = { rows: ["a", "b"], columns: ["c"], values: [[1], [2]] };

test("figures refuse what they cannot draw, by name", () => {
  const refused: [() => Figure, RegExp][] = [
    [() => tokenFigure(["a"], { one: ["b"] } as never), /expected values\.one\[0\] to be a number/],
    [() => curveFigure([1], { references: { chance: "x" as never } }), /references\.chance to be a number/],
    [
      () => chartFigure({ kind: "pie", title: "", x: "", y: "", rows: [{}] } as never),
      /expected chart\.kind to be "lines", "bars", "heat" or "scatter"/,
    ],
    [
      () =>
        chartFigure({
          kind: "heat",
          title: "",
          x: "",
          y: "",
          value: "",
          rows: [1, 2].map((value) => ({ panel: "p", x: 1, y: "b", value })),
        }),
      /chartFigure: expected one value for each square, found two at x 1, y "b" of panel "p"/,
    ],
  ];
  for (const [make, message] of refused) {
    expect(make).toThrow(message);
    expect(make).toThrow(ArgumentError);
  }
});

test("an option that is undefined is one that was not given", async () => {
  const given = { title: undefined, x: undefined, value: undefined, diverging: undefined };
  const map = { ...NUMBERS, values: [[-1], [2]] };
  expect(await heatFigure(map, given as never).svg()).toBe(await heatFigure(map).svg());
});
