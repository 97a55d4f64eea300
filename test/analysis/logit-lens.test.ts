import { inspect } from "node:util";
import { expect, expectTypeOf, test } from "vitest";
import { type LensCell, logitLens } from "../../src/analysis/lens/logit-lens.ts";
import { lensFigure } from "../../src/figures/lens-figure.ts";
import { fixtureModel, randomIds } from "../helpers/model.ts";

test("a lens is a list of cells that prints as a table", async () => {
  const model = await fixtureModel("llama");
  const prompt = model.promptFromIds(randomIds(7, 2));
  const one = await logitLens(model, prompt, { k: 3 });
  expectTypeOf(one).toExtend<LensCell[]>();
  const lines = one.table().split("\n");
  expect(lines).toHaveLength(1 + model.config.layers);
  expect(lines[0]).toBe("layer");
  const [first] = one[1]!.tokens;
  expect(lines[2]).toMatch(/^1 +"[^"]*" +[\d.]+ % +".*" [\d.]+ % +".*" [\d.]+ %$/);
  expect(lines[2]).toContain(`${(100 * first!.probability).toFixed(1)} %`);
  expect(inspect(one)).toBe(one.table());

  const several = await logitLens(model, prompt, { at: [2, -1], layers: [0, 2] });
  const [head, zero, two] = several.table().split("\n");
  expect(head!.match(/(?<= )\d+ "/g)).toEqual(['2 "', '6 "']); // with their tokens
  expect(zero!.match(/%/g)).toHaveLength(2);
  expect(two).toMatch(/^2 /);
  // What is made of it is a plain list.
  expect(several.map(({ layer }) => layer)).toStrictEqual([0, 0, 2, 2]);
  expect(several.filter(({ layer }) => layer === 2).constructor).toBe(Array);
});

test("positions that do not fit on a line stand in tables below", async () => {
  const model = await fixtureModel("llama");
  const prompt = model.promptFromIds(randomIds(40, 2));
  const lens = await logitLens(model, prompt, { at: "all" });
  const tables = lens.table().split("\n\n");
  expect(tables.length).toBeGreaterThan(3);
  for (const table of tables) {
    expect(table.split("\n").map((line) => line.split(" ")[0])).toEqual(["layer", "0", "1", "2"]);
    expect(Math.max(...table.split("\n").map((line) => [...line].length))).toBeLessThanOrEqual(120);
  }
  expect(lens.table().match(/ %(?= |$)/gm)).toHaveLength(40 * model.config.layers);
});

test("a lens of no words, or of half a one, is refused", async () => {
  const model = await fixtureModel("llama");
  const prompt = model.promptFromIds(randomIds(4, 2));
  for (const k of [0, 1.5, -1]) {
    await expect(logitLens(model, prompt, { k })).rejects.toThrow(/expected k to be a whole number from 1/);
  }
});

test("cells know the texts of the tokens that were read: of an encoder-decoder those of its decoder", async () => {
  const model = await fixtureModel("t5");
  const prompt = model.prompt("hello world");
  const cells = await logitLens(model, prompt, { at: "all" });
  const { tokens, length } = model.sequenceOf(prompt);
  expect(cells.tokens).toEqual(tokens);
  expect(length).toBeLessThan(prompt.length);
  expect(`${lensFigure(cells).title}`).toBe(`logit lens at 0 ${tokens[0]}`);
  expect(() => lensFigure(cells, { tokens: prompt.tokens })).toThrow(
    /expected 1 tokens, as many as were read/,
  );
});
