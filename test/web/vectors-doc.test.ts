import { expect, test } from "vitest";
import type { TaskSummary } from "../../src/session/messages/results.ts";
import { toCsv } from "../../web/src/keep/csv.ts";
import { mixOf } from "../../web/src/vectors/mix.ts";
import { NO_CONTEXT, queryOf } from "../../web/src/vectors/query.ts";
import { type Recipe, readRecipe, recipeInWords, taskOf } from "../../web/src/vectors/recipe.ts";
import { changeVector, firstLayer, SHELF, withoutVector, withVector } from "../../web/src/vectors/shelf.ts";
import { VECTORS, withDrop, withoutPicture, withPicture } from "../../web/src/views/vectors/vectors-slice.ts";

const capital: Recipe = {
  kind: "examples",
  task: "country-capital",
  asked: "text",
  count: 5,
  seed: 0,
  items: 12,
};
const words: Recipe = { kind: "instruction", text: "The language of the country:" };
const overJson = <T>(value: T): unknown => JSON.parse(JSON.stringify(value));

test("recipes survive the document; what is none is refused by its place", () => {
  const mix = mixOf(capital, words, 0.35);
  expect(mix.parts.map(({ weight }) => weight)).toEqual([0.65, 0.35]);
  for (const recipe of [capital, words, mix]) expect(readRecipe(overJson(recipe), "r")).toEqual(recipe);
  expect(recipeInWords(mix)).toMatch(
    /^0\.65 × \(country-capital, 5 text examples.*\) \+ 0\.35 × \(instruction/,
  );
  expect([taskOf(capital), taskOf(mix), taskOf(mixOf(capital, capital, 0.5))]).toEqual([
    "country-capital",
    undefined,
    "country-capital",
  ]);
  expect(() => readRecipe({ ...capital, count: -1 }, "r")).toThrow(/r\.count/);
  expect(() => readRecipe({ ...capital, site: "mlp_out" }, "r")).toThrow(/no field "site"/);
  expect(() => readRecipe({ kind: "file", name: "a", hash: "../../x" }, "r")).toThrow(/r\.hash/);
  let deep: Recipe = capital;
  for (let i = 0; i < 10; i++) deep = { kind: "mix", parts: [{ recipe: deep, weight: 1 }] };
  expect(() => readRecipe(overJson(deep), "r")).toThrow(/mixes in one another/);
});

test("vectors of the shelf keep their ids, and have names of their own", () => {
  const put = (shelf: Parameters<typeof withVector>[0], name: string) =>
    withVector(shelf, { name, recipe: capital, layer: 21 }).shelf;
  const two = put(put(SHELF.initial, "capital"), "capital");
  expect(two.vectors.map(({ id, name }) => [id, name])).toEqual([
    ["v1", "capital"],
    ["v2", "capital 2"],
  ]);
  const third = put(withoutVector(two, "v1"), "other");
  expect(third.vectors.map(({ id }) => id)).toEqual(["v2", "v3"]);
  expect(changeVector(third, "v3", { layer: 4 }).vectors.map(({ layer }) => layer)).toEqual([21, 4]);
  expect(SHELF.read(overJson(third), "shelf")).toEqual(third);
  expect([firstLayer(30), firstLayer(1)]).toEqual([21, 0]);
});

test("what lies on a picture goes with it", () => {
  const poland = "task/country-capital/Poland";
  const dropped = withDrop(withDrop(VECTORS.initial, { vector: "v1", picture: poland }), {
    vector: "v1",
    picture: poland,
  });
  expect(dropped.drops).toHaveLength(1);
  expect(VECTORS.read(overJson(dropped), "vectors")).toEqual(dropped);
  const without = withoutPicture(dropped, poland);
  expect(without.drops).toEqual([]);
  expect(without.pictures).toHaveLength(VECTORS.initial.pictures.length - 1);
  expect(withPicture(without, without.pictures[0]!)).toBe(without);
});

const tasks: TaskSummary[] = [
  {
    name: "country-capital",
    instruction: "The capital city of the country:",
    items: [
      { input: "Italy", outputs: ["Rome"], split: "test", picture: true },
      { input: "Peru", outputs: ["Lima"], split: "train", picture: true },
    ],
  },
];

test("questions about own pictures are written as the library writes them", () => {
  const own = { kind: "own", hash: "0".repeat(64), name: "mine.png" } as const;
  const text = (specify: "none" | "text" | "instruction") => {
    const prompt = queryOf(own, { ...NO_CONTEXT, specify }, tasks);
    return prompt.kind === "written" && prompt.pieces[0];
  };
  expect(text("none")).toEqual({ text: "Q:" });
  expect(text("instruction")).toEqual({ text: "The capital city of the country:\nQ:" });
  expect(text("text")).toEqual({ text: "Q: Peru\nA: Lima\n\nQ:" });
  expect(() => queryOf(own, { ...NO_CONTEXT, specify: "image" }, tasks)).toThrow(/examples in words/);
  expect(
    queryOf({ kind: "task", task: "other", input: "Italy" }, { ...NO_CONTEXT, specify: "text" }, tasks),
  ).toMatchObject({ kind: "task", task: "country-capital", input: "Italy", asked: "image" });
});

test("tables of numbers are CSV with all digits", () => {
  expect(
    toCsv(
      ["layer", "answer"],
      [
        [0, 'say "a, b"'],
        [1, 1 / 3],
        ["x", undefined],
      ],
    ),
  ).toBe(`layer,answer\r\n0,"say ""a, b"""\r\n1,${1 / 3}\r\nx,\r\n`);
});
