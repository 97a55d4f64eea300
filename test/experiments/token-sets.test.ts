import { describe, expect, test } from "vitest";
import { TARGETS, tokenSets, typeTokens } from "../../experiments/cells/token-sets.ts";
import type { Task, TaskItem } from "../../src/tasks/task.ts";
import { tokenizerOf } from "../helpers/tokenizers.ts";

const item = (input: string, ...outputs: string[]): TaskItem => ({ input, outputs, split: "test" });
const task: Task = { name: "country-capital", items: [] };

describe("what a tokenizer has no token for", () => {
  const tokenizer = tokenizerOf("bert");
  const { unknownId } = tokenizer;
  const known = item("the", "of");

  test("is in no set", () => {
    expect(tokenizer.encode("☃", { specials: false })).toEqual([unknownId]);
    const items = [known, item("and", "☃"), item("☃", "to")];
    const sets = tokenSets(tokenizer, task, items, known)!;
    for (const target of TARGETS) expect(sets[target]).not.toContain(unknownId);
    const types = typeTokens(tokenizer, { ...task, name: "country-☃" }, items);
    expect(Object.values(types).flat()).not.toContain(unknownId);
    expect(types.answers.length).toBeGreaterThan(1);
  });

  test("can't be looked for: such an item is left out", () => {
    for (const one of [item("☃", "of"), item("the", "☃"), item("☃", "☂")]) {
      expect(tokenSets(tokenizer, task, [known, one], one)).toBeUndefined();
    }
    // One right answer that there is a token for is enough.
    const two = item("the", "☃", "of");
    expect(tokenSets(tokenizer, task, [two], two)!.answer).toEqual(
      tokenSets(tokenizer, task, [known], known)!.answer,
    );
  });
});

test("small letters are another beginning where case differs", () => {
  const tokenizer = tokenizerOf("byte-gpt2");
  const one = item("Peru", "Lima");
  const folded = tokenSets(tokenizer, task, [one], one)!;
  const strict = tokenSets(tokenizer, task, [one], one, undefined, { caseSensitive: true })!;
  // Its tokens are letters.
  const ids = (...letters: string[]) => new Set(letters.map((letter) => tokenizer.idOf(letter)));
  expect(new Set(folded.answer)).toEqual(ids("L", "l"));
  expect(new Set(strict.answer)).toEqual(ids("L"));
  expect(new Set(strict.input)).toEqual(ids("P"));
});
