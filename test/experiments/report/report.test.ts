import { describe, expect, test } from "vitest";
import { type Table, tableCsv, tableMarkdown } from "../../../experiments/report/table.ts";
import { normal, sample, seededRandom } from "../../../experiments/statistics/random.ts";

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
