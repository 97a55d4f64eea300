import { describe, expect, test } from "vitest";
import { HeadRanking } from "../../src/analysis/heads/rank-heads.ts";
import { PatchMap } from "../../src/analysis/maps/patch-map-result.ts";
import { ArgumentError } from "../../src/errors.ts";
import { curveFigure } from "../../src/figures/curve-figure.ts";
import { heatFigure } from "../../src/figures/heat-figure.ts";
import { tokenFigure } from "../../src/figures/token-figure.ts";
import { coloursOf, luma, textsOf, titlesOf } from "../helpers/svg.ts";

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
    expect(() => heatFigure([[1]] as never)).toThrow(/expected data\[0\] to be a PatchMap/);
    expect(() => heatFigure({} as never)).toThrow(/expected data\.rows to be a list, found undefined/);
    expect(() => heatFigure(map(), { titel: "x" } as never)).toThrow(/the nearest is "title"/);
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
  });
});
