import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CommanderError } from "commander";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { LensCell } from "../../src/analysis/logit-lens.ts";
import { formatImageLens, type ImageLensReport } from "../../src/cli/commands/lens-image.ts";
import { COMMANDS } from "../../src/cli/commands.ts";
import { addCommonOptions } from "../../src/cli/options/command.ts";
import { PromptError, SiteError } from "../../src/errors.ts";
import { attentionFigure } from "../../src/figures/attention-figure.ts";
import {
  CHARACTER_WIDTH,
  channelsOf,
  type Figure,
  fitLabel,
  LINE_HEIGHT,
  labelWidth,
  type Shape,
  wrapLabel,
} from "../../src/figures/drawing.ts";
import { toPage } from "../../src/figures/figure-page.ts";
import { heatColour } from "../../src/figures/heat.ts";
import { lensFigure } from "../../src/figures/lens-figure.ts";
import { toPixels } from "../../src/figures/pixels.ts";
import { escapeXml, toSvg } from "../../src/figures/svg.ts";
import { showPatch, showShare, showWord } from "../../src/figures/text.ts";
import { decodeImage } from "../../src/images/decode.ts";
import { loadImage } from "../../src/images/load.ts";
import { encodePng } from "../../src/images/png.ts";
import { modelView } from "../../src/images/preprocess.ts";
import { readProcessorConfig } from "../../src/images/processor-config.ts";
import type { RgbImage } from "../../src/images/rgb.ts";

/** A picture whose pixels all differ. */
const picture = gradient(28, 28);

function gradient(width: number, height: number): RgbImage {
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) data.set([i & 255, (i * 7) & 255, i >> 8], i * 3);
  return { width, height, data };
}

function pixel({ data, width }: RgbImage, x: number, y: number): number[] {
  return [...data.subarray((y * width + x) * 3, (y * width + x) * 3 + 3)];
}

function labels({ shapes }: Figure): string[] {
  return shapes.flatMap((shape) => (shape.kind === "label" ? [shape.text] : []));
}

/** Labels' and pictures' boxes. */
function boxOf(shape: Shape) {
  const { x, y } = shape;
  return shape.kind === "label"
    ? { x, y, right: x + labelWidth(shape.text), bottom: y + LINE_HEIGHT }
    : { x, y, right: x + shape.width, bottom: y + shape.height };
}

function expectTidy(figure: Figure): void {
  const slack = 1e-6;
  for (const shape of figure.shapes) {
    const { x, y, right, bottom } = boxOf(shape);
    const inside = x >= 0 && y >= 0 && right <= figure.width + slack && bottom <= figure.height + slack;
    expect(inside, `${JSON.stringify(shape)} within ${figure.width} x ${figure.height}`).toBe(true);
  }
  const texts = figure.shapes.filter((shape) => shape.kind === "label").map(boxOf);
  const pictures = figure.shapes.filter((shape) => shape.kind === "picture").map(boxOf);
  for (const list of [texts, pictures]) {
    list.forEach((a, i) => {
      for (const b of list.slice(i + 1)) {
        const apart = a.right <= b.x || b.right <= a.x || a.bottom <= b.y || b.bottom <= a.y;
        expect(apart, `${JSON.stringify(a)} and ${JSON.stringify(b)} are apart`).toBe(true);
      }
    });
  }
}

/** Checks that elements are closed in the order in which they were opened, and returns how many there are of each. */
function readXml(text: string): Record<string, number> {
  const counts: Record<string, number> = {};
  const open: string[] = [];
  const rest = text.replace(
    /<(\/?)([\w:]+)((?:\s+[\w:-]+="[^"<]*")*)\s*(\/?)>/g,
    (_, close, name, _a, empty) => {
      if (close) expect(open.pop()).toBe(name);
      else {
        counts[name] = (counts[name] ?? 0) + 1;
        if (!empty) open.push(name);
      }
      return "";
    },
  );
  expect(open).toEqual([]);
  expect(rest).not.toMatch(/[<>]|&(?!(amp|lt|gt|quot);)/);
  return counts;
}

describe("colours", () => {
  test("go from dark to bright without a turn", () => {
    const luma = Array.from({ length: 101 }, (_, i) => {
      const [r, g, b] = channelsOf(heatColour(i / 100));
      return 0.299 * r + 0.587 * g + 0.114 * b;
    });
    for (let i = 1; i < luma.length; i++) expect(luma[i]).toBeGreaterThan(luma[i - 1]!);
    expect(heatColour(-1)).toBe(heatColour(0));
    expect(heatColour(2)).toBe(heatColour(1));
  });
});

describe("text", () => {
  /** What a label looks like in a PNG, from its first to its last pixel that is not white. */
  const inkOf = (text: string) => {
    const { data, width } = toPixels({
      width: 40,
      height: LINE_HEIGHT,
      shapes: [{ kind: "label", x: 4, y: 0, text, colour: "#000000" }],
    });
    const ink = [...data].flatMap((value, i) => (i % 3 === 0 && value < 255 ? [i / 3] : []));
    const [left, right] = [
      Math.min(...ink.map((i) => i % width)),
      Math.max(...ink.map((i) => i % width)),
    ] as const;
    return { data: data.join(), left, right, ink: ink.length };
  };

  test("characters of many scripts have letters of their own, within the width that labels are laid out by", () => {
    // A private character has none: what is drawn for it is drawn for all that have none.
    const missing = inkOf("\ue123").data;
    const seen = new Map([[missing, "a missing letter"]]);
    const letters = [
      ...Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i)),
      ..."éßŁőñŞΩжЯאا…·–→≈½",
    ];
    for (const letter of letters) {
      const { data, left, right } = inkOf(letter);
      expect(seen.get(data), `${letter} looks like ${seen.get(data)}`).toBeUndefined();
      seen.set(data, letter);
      // Two pixels a unit, and one for soft edges.
      expect([left >= 7, right <= 2 * (4 + CHARACTER_WIDTH)], letter).toEqual([true, true]);
    }
    expect(inkOf(" ").ink).toBe(0);
  });

  test("wide characters take two places", () => {
    expect([labelWidth("天"), labelWidth("😀"), labelWidth("aé")]).toEqual([12, 12, 12]);
    expect(fitLabel("天天天", 30)).toBe("天天…");
  });

  test("what lies over a label hides it, and what it lies over does not", () => {
    const black = { kind: "label", x: 2, y: 0, text: "MMM", colour: "#000000" } as const;
    const cover = { kind: "rectangle", x: 0, y: 0, width: 40, height: 20, fill: "#00ff00" } as const;
    const drawn = (shapes: Shape[]) => new Set(toPixels({ width: 30, height: 12, shapes }).data);
    expect(drawn([black, cover])).toEqual(new Set([0, 255]));
    expect(drawn([cover, black, { ...cover, opacity: 0 }]).size).toBeGreaterThan(2);
    expect(drawn([cover, black])).toEqual(drawn([cover, black, { ...cover, x: 29 }]));
  });

  test("characters that no XML can hold are drawn as unknown ones", () => {
    expect(inkOf("\u0000").data).toBe(inkOf("\ufffd").data);
  });

  test("labels are cut to fit", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: "grapheme" }),
        fc.integer({ min: CHARACTER_WIDTH, max: 200 }),
        (text, width) => {
          const fitted = fitLabel(text, width);
          expect(labelWidth(fitted)).toBeLessThanOrEqual(width);
          if (labelWidth(text) <= width) expect(fitted).toBe(text);
          else expect(fitted.endsWith("…")).toBe(true);
        },
      ),
    );
  });

  test("labels that are wrapped keep every word, in lines that fit", () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: "grapheme" }).map((word) => word.replace(/\s/gu, ""))),
        fc.integer({ min: 2 * CHARACTER_WIDTH, max: 200 }),
        (words, width) => {
          const text = words.join(" ");
          const lines = wrapLabel(text, width, 1e6);
          expect(lines.every((line) => labelWidth(line) <= width)).toBe(true);
          expect(lines.join("").replaceAll(" ", "")).toBe(text.replaceAll(" ", ""));
          const few = wrapLabel(text, width, 2);
          expect(few.length).toBeLessThanOrEqual(2);
          if (lines.length > 2) expect(few[1]!.endsWith("…")).toBe(true);
        },
      ),
    );
    expect(wrapLabel("one two three", 8 * CHARACTER_WIDTH, 9)).toEqual(["one two", "three"]);
    expect(wrapLabel("one two", 7 * CHARACTER_WIDTH, 9)).toEqual(["one two"]);
    expect(wrapLabel("abcdef", 4 * CHARACTER_WIDTH, 9)).toEqual(["abcd", "ef"]);
  });

  test("shares, patches and words", () => {
    expect([0, 0.00123, 0.0999, 0.1, 1].map(showShare)).toEqual([
      "0.00 %",
      "0.12 %",
      "9.99 %",
      "10.0 %",
      "100.0 %",
    ]);
    expect(showPatch(7, { rows: 3, columns: 4 })).toBe("row 1, column 3");
    expect([" the", "\n", "", " ", 'a"b'].map(showWord)).toEqual(["the", "\\n", '""', '" "', 'a\\"b']);
  });
});

describe("pixels", () => {
  test("shapes lie over each other in order, two pixels a unit, with their opacity", () => {
    const drawn = toPixels({
      width: 10,
      height: 8,
      shapes: [
        { kind: "rectangle", x: 1, y: 1, width: 4, height: 3, fill: "#000000" },
        { kind: "rectangle", x: 3, y: 2, width: 4, height: 3, fill: "#ff0000", opacity: 0.5 },
      ],
    });
    expect([drawn.width, drawn.height]).toEqual([20, 16]);
    expect(pixel(drawn, 1, 1)).toEqual([255, 255, 255]);
    expect(pixel(drawn, 2, 2)).toEqual([0, 0, 0]);
    expect(pixel(drawn, 7, 5)).toEqual([128, 0, 0]);
    expect(pixel(drawn, 12, 8)).toEqual([255, 128, 128]);
    expect(pixel(drawn, 14, 8)).toEqual([255, 255, 255]);
  });

  test("a picture at its size, or enlarged, keeps its pixels", () => {
    const drawn = toPixels({
      width: 28,
      height: 28,
      shapes: [{ kind: "picture", x: 0, y: 0, width: 28, height: 28, picture }],
    });
    for (const [x, y] of [
      [0, 0],
      [27, 0],
      [13, 20],
      [27, 27],
    ] as const) {
      expect(pixel(drawn, 2 * x, 2 * y)).toEqual(pixel(picture, x, y));
      expect(pixel(drawn, 2 * x + 1, 2 * y + 1)).toEqual(pixel(picture, x, y));
    }
  });

  test("what sticks out is left off, and too large a figure is refused", () => {
    const rectangle = { kind: "rectangle", x: -5, y: -5, width: 100, height: 100, fill: "#0000ff" } as const;
    expect(toPixels({ width: 2, height: 1, shapes: [rectangle] }).data.length).toBe(4 * 2 * 3);
    expect(() => toPixels({ width: 2 ** 14, height: 2 ** 13, shapes: [] })).toThrow(
      /at most 67108864 pixels/,
    );
  });
});

describe("SVG and HTML", () => {
  const hostile = '</text><script>alert("1 & 2")</script>\u0000\u001b';
  const figure: Figure = {
    width: 60,
    height: 40,
    shapes: [
      { kind: "picture", x: 0, y: 0, width: 56, height: 28, picture },
      { kind: "picture", x: 0, y: 0, width: 28, height: 28, picture },
      { kind: "rectangle", x: 1, y: 2, width: 3, height: 4, fill: "#123456", opacity: 0.5, tooltip: hostile },
      { kind: "label", x: 0, y: 28, text: hostile, colour: "#000000" },
    ],
  };

  test("are well-formed whatever the text, and hold each picture once", () => {
    const svg = toSvg(figure);
    expect(readXml(svg)).toMatchObject({ svg: 1, image: 1, use: 2, rect: 2, title: 1, text: 1 });
    for (const text of ["<script", "\u0000", "\u001b"]) expect(svg).not.toContain(text);
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(escapeXml(text)).not.toMatch(/[<>"]|&(?!(amp|lt|gt|quot);)/);
        expect([...escapeXml(text)].filter((c) => c < " " && !"\t\n\r".includes(c))).toEqual([]);
      }),
    );
  });

  test("hold the very pixels of the picture", async () => {
    const [, data] = /href="data:image\/png;base64,([^"]+)"/.exec(toSvg(figure))!;
    const decoded = await decodeImage(Uint8Array.from(Buffer.from(data!, "base64")));
    expect([...decoded.data]).toEqual([...picture.data]);
  });

  test("a page needs no other file", () => {
    const page = toPage(hostile, figure);
    expect(page).toMatch(/^<!doctype html>/);
    expect(page).toContain("<title>&lt;/text&gt;&lt;script&gt;");
    expect(page.match(/(?:src|href)="(?!data:|#)[^"]*"|url\(|@import|<script/g)).toBeNull();
  });
});

describe("attention over a picture", () => {
  /** A map whose peak is at one patch. */
  const mapAt = (peak: number, side: number, layer = 0) => {
    const weights = new Float32Array(side * side).fill(0.001);
    weights[peak] = 0.02;
    return { layer, grid: { rows: side, columns: side }, weights, share: weights.reduce((a, b) => a + b) };
  };

  test.each([2, 4, 24])("a grid of %i x %i: captions, legend, and nothing over anything else", (side) => {
    const figure = attentionFigure(
      picture,
      [mapAt(1, side), mapAt(2, side, 1), mapAt(0, side, 2)],
      ["a title"],
    );
    expectTidy(figure);
    expect(labels(figure).slice(0, 3)).toEqual(["a title", "0", "peak of each panel"]);
    expect(labels(figure)).toContain(`the picture, ${side} x ${side} patches`);
    for (const layer of [0, 1, 2]) {
      expect(labels(figure).filter((text) => text.startsWith(`layer ${layer}: `))).toHaveLength(1);
    }
  });

  test("a patch's tooltip says which it is and what it gets, in reading order", () => {
    const { shapes } = attentionFigure(picture, [mapAt(5, 4)], []);
    const patches = shapes.filter((shape) => shape.kind === "rectangle" && shape.tooltip !== undefined);
    expect(patches).toHaveLength(16);
    expect(patches[5]).toMatchObject({ tooltip: "row 1, column 1: 2.00 %", fill: heatColour(1) });
    expect(patches[0]).toMatchObject({ tooltip: "row 0, column 0: 0.10 %", fill: heatColour(0.05) });
    const [a, b, c] = [patches[0]!, patches[1]!, patches[4]!];
    expect([b.x > a.x, b.y === a.y, c.x === a.x, c.y > a.y]).toEqual([true, true, true, true]);
  });

  test("the brightest patch of the drawing is the peak, on a picture of one colour", () => {
    const white: RgbImage = { width: 8, height: 8, data: new Uint8Array(8 * 8 * 3).fill(255) };
    const figure = attentionFigure(white, [mapAt(14, 4)], []);
    const drawn = toPixels(figure);
    const patches = figure.shapes.filter(
      (shape) => shape.kind === "rectangle" && shape.tooltip !== undefined,
    );
    const brightness = patches.map((shape) => {
      const { x, y, right, bottom } = boxOf(shape);
      return pixel(drawn, Math.round(x + right), Math.round(y + bottom)).reduce((a, b) => a + b);
    });
    expect(brightness.indexOf(Math.max(...brightness))).toBe(14);
  });

  test("one map has its peak in the legend; a map of nothing is dark, not broken", () => {
    expect(labels(attentionFigure(picture, [mapAt(0, 4)], []))).toContain("2.00 % of the attention");
    const nothing = { ...mapAt(0, 4), weights: new Float32Array(16), share: 0 };
    const figure = attentionFigure(picture, [nothing], []);
    expect(labels(figure)).toContain("0.00 % of the attention");
    expect(toSvg(figure)).not.toMatch(/NaN|Infinity|undefined/);
  });

  test("a long line of text goes on in further ones, and does not widen or lengthen the drawing without end", () => {
    const setting = `a model of some name; ${"an adapter, ".repeat(14)}dtypes`;
    const whole = attentionFigure(picture, [mapAt(0, 4)], [setting, "a title"]);
    expectTidy(whole);
    const shown = labels(whole).slice(0, labels(whole).indexOf("a title"));
    expect(shown.length).toBe(2);
    expect(shown.join(" ")).toBe(setting);
    const long = attentionFigure(picture, [mapAt(0, 4)], ["long ".repeat(1000)]);
    expectTidy(long);
    const lines = labels(long).filter((text) => text.startsWith("long"));
    expect(lines.map((text) => text.endsWith("…"))).toEqual([false, false, false, true]);
    expect(long.width).toBeLessThan(700);
    expect(() => attentionFigure(picture, [], [])).toThrow(PromptError);
  });

  test("grids that are not square keep the shape of their patches", () => {
    const weights = new Float32Array(8).fill(0.1);
    const figure = attentionFigure(
      picture,
      [{ layer: 0, grid: { rows: 2, columns: 4 }, weights, share: 0.8 }],
      [],
    );
    expectTidy(figure);
    const patch = figure.shapes.find((shape) => shape.kind === "rectangle" && shape.tooltip !== undefined);
    expect(patch).toMatchObject({ width: 72, height: 72 });
  });
});

describe("the lens over a picture", () => {
  const grid = { rows: 4, columns: 4 };
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

  test("a panel a layer with the words of the patches, cut to fit, and the rest in tooltips", () => {
    const figure = lensFigure(picture, grid, cells, ["a title"]);
    expectTidy(figure);
    expect(labels(figure)).toEqual(
      expect.arrayContaining([
        "layer 0",
        "layer 1",
        "50.0 % probability of the word",
        "the picture, 4 x 4 patches",
      ]),
    );
    const count = (word: string) => labels(figure).filter((text) => text === word).length;
    expect([count("dog"), count("a very …"), count("\\n"), count("天")]).toEqual([8, 8, 8, 8]);
    const tooltips = figure.shapes.flatMap((shape) => (shape.kind === "rectangle" && shape.tooltip) || []);
    expect(tooltips).toHaveLength(32);
    expect(tooltips[6]).toBe('row 1, column 2, position 11\n"\\n" 21.9 %\n"second" 1.00 %');
  });

  test("of a large grid is tidy too", () => {
    const large = Array.from({ length: 576 }, (_, i) => ({ ...cells[i % 16]!, layer: 3, position: i }));
    expectTidy(lensFigure(picture, { rows: 24, columns: 24 }, large, []));
  });

  test("needs a cell for each patch", () => {
    expect(() => lensFigure(picture, grid, cells.slice(1), [])).toThrow(PromptError);
    expect(() => lensFigure(picture, grid, cells.slice(1), [])).toThrow(
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

describe("on the command line", () => {
  const prompt = "USER: <image>\\nWhat is shown in the image? ASSISTANT:";
  const llava = [
    "--model",
    "test/fixtures/llava/model",
    "--image",
    "test/fixtures/images/photo.png",
    "--prompt",
    prompt,
  ];
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "xpatch-figures-"));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  /** Runs a command in this process; returns what it prints, and throws what it throws. */
  async function xpatch(name: string, ...args: string[]): Promise<string> {
    let printed = "";
    const stdout = vi.spyOn(process.stdout, "write").mockImplementation((text) => {
      printed += text;
      return true;
    });
    try {
      const command = COMMANDS.map((make) => addCommonOptions(make())).find((made) => made.name() === name)!;
      await command.configureOutput({ writeErr() {} }).parseAsync(args, { from: "user" });
    } finally {
      stdout.mockRestore();
    }
    return printed;
  }

  test("attend writes the map as a PNG, a drawing and a page, and reports it", async () => {
    const files = ["png", "svg", "html"].map((end) => join(folder, `map.${end}`));
    const out = files.flatMap((file) => ["--out", file]);
    const stdout = await xpatch("attend", ...llava, "--layer", "1", "--head", "3", ...out, "--json");
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({
      family: "llava",
      position: 47,
      token: ":",
      method: "attention",
      head: 3,
      grid: { rows: 4, columns: 4 },
      maps: [{ layer: 1 }],
      out: files,
    });
    const { weights, peak, share } = report.maps[0];
    expect(Math.max(...weights.flat())).toBe(peak.weight);
    expect(weights[peak.row][peak.column]).toBe(peak.weight);
    expect(share).toBeCloseTo(
      weights.flat().reduce((a: number, b: number) => a + b),
      5,
    );
    const drawn = await decodeImage(Uint8Array.from(readFileSync(files[0]!)));
    const svg = readFileSync(files[1]!, "utf8");
    const [, width, height] = /viewBox="0 0 ([\d.]+) ([\d.]+)"/.exec(svg)!;
    expect([drawn.width, drawn.height]).toEqual([2 * Number(width), 2 * Number(height)]);
    expect(svg).toContain("attention of token 47");
    expect(readXml(svg)["title"]).toBe(16);
    expect(readFileSync(files[2]!, "utf8")).toContain(svg);
  });

  test("attend draws every layer's rollout", async () => {
    const file = join(folder, "rollout.svg");
    const stdout = await xpatch("attend", ...llava, "--token", "20", "--rollout", "--out", file);
    expect(stdout).toMatch(/attention rollout of token 20 .*mean of all heads/);
    expect(stdout.match(/^ +[012] +[\d.]+ % +[\d.]+ % +\d, \d$/gm)).toHaveLength(3);
    expect(readXml(readFileSync(file, "utf8"))["title"]).toBe(48);
  });

  test("lens --image writes a page and prints the words", async () => {
    const file = join(folder, "lens.html");
    const stdout = await xpatch("lens", ...llava, "--layers", "0,2", "--top", "3", "--out", file);
    expect(stdout).toMatch(/^resid_post\.0: .+\n(.+\n){4}\nresid_post\.2: /m);
    const page = readFileSync(file, "utf8");
    expect(page.match(/<title>row \d, column \d, position \d+\n(.+\n){2}.+<\/title>/g)).toHaveLength(32);
  });

  test("a second image is looked at by its span, over its own picture", async () => {
    const two = ["--image", "test/fixtures/images/tall.png", "--prompt", "Q:<image>\\nQ:<image>\\nA:"];
    const file = join(folder, "two.svg");
    const args = [...llava.slice(0, 4), ...two, "--layer", "0", "--out", file, "--json"];
    const processor = readProcessorConfig(
      JSON.parse(readFileSync("test/fixtures/llava/model/preprocessor_config.json", "utf8")),
    );
    const maps: unknown[] = [];
    for (const [span, name] of [
      ["image", "photo"],
      ["image2", "tall"],
    ] as const) {
      maps.push(JSON.parse(await xpatch("attend", ...args, "--span", span)).maps[0].weights);
      const seen = modelView(await loadImage(`test/fixtures/images/${name}.png`), processor);
      const data = Buffer.from(encodePng(seen)).toString("base64");
      expect(readFileSync(file, "utf8").includes(data), `${span} is drawn over ${name}.png`).toBe(true);
    }
    expect(maps[0]).not.toEqual(maps[1]);
  });

  test.each([
    [
      "attend",
      ["--model", "test/fixtures/llama/model", ...llava.slice(2)],
      PromptError,
      /\(llama\) takes no images/,
    ],
    [
      "lens",
      ["--model", "test/fixtures/llama/model", ...llava.slice(2)],
      PromptError,
      /\(llama\) takes no images/,
    ],
    ["attend", [...llava, "--head", "4"], SiteError, /--head: expected mean, or a head from 0 to 3, found 4/],
    ["attend", [...llava, "--layer", "3"], SiteError, /expected layers from 0 to 2 .*found 3/],
    ["attend", [...llava, "--token", "48"], PromptError, /found 48/],
    ["attend", [...llava, "--span", "image2"], PromptError, /no span "image2"; it has image\./],
    [
      "attend",
      [...llava.slice(0, 4), "--prompt", "what?"],
      PromptError,
      /0 placeholder\(s\) and 1 image\(s\)/,
    ],
    [
      "attend",
      [...llava, "--rollout", "--head", "1"],
      CommanderError,
      /--rollout is over the mean of all heads/,
    ],
    ["attend", [...llava, "--head", "all"], CommanderError, /Expected mean or a head's number/],
    ["attend", [...llava, "--out", "map.gif"], CommanderError, /a name that ends in \.png, \.svg, \.html/],
    [
      "lens",
      [...llava.slice(0, 2), ...llava.slice(4)],
      CommanderError,
      /--out draws the lens .* it needs --image/,
    ],
  ])("%s refuses %j", async (name, args, kind, message) => {
    const file = join(folder, "never.png");
    const refused = xpatch(name, ...args, "--out", file).catch((error: unknown) => error);
    expect(await refused).toBeInstanceOf(kind);
    expect((await refused) as Error).toMatchObject({ message: expect.stringMatching(message) });
    expect(existsSync(file)).toBe(false);
  });
});
