import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { headPattern, headPatterns } from "../../src/analysis/heads/head-pattern.ts";
import { ArgumentError, PromptError, SiteError } from "../../src/errors.ts";
import { tap } from "../../src/patching/tap.ts";
import { fixtureModel, randomIds } from "../helpers/model.ts";

const LENGTH = 7;

describe.each(["llama", "gpt2", "mistral"])("%s", (name) => {
  test("a head's pattern is that of the site, with the tokens that it is about", async () => {
    const model = await fixtureModel(name);
    const prompt = model.promptFromIds(randomIds(LENGTH, 3));
    const { heads } = model.config;
    const { x } = model.run(prompt, { taps: { x: tap("pattern.1") } });
    const all = await x.read(); // [heads, tokens, tokens]
    const pattern = await headPattern(model, prompt, { layer: 1, head: 2 });
    expect(pattern.weights.flat()).toEqual([...all.subarray(2 * LENGTH ** 2, 3 * LENGTH ** 2)]);
    expect(pattern).toMatchObject({
      layer: 1,
      head: 2,
      tokens: prompt.ids.map((id) => model.tokenizer.decode([id])),
    });

    const each = await headPatterns(model, prompt, { layer: 1 });
    expect(each.map(({ head }) => head)).toEqual(Array.from({ length: heads }, (_, head) => head));
    for (const one of each)
      expect(one).toEqual(await headPattern(model, prompt, { layer: 1, head: one.head! }));

    const whole = await headPattern(model, prompt, { layer: 1 });
    expect(whole.head).toBeUndefined();
    for (const [i, weight] of whole.weights.flat().entries()) {
      const sum = Array.from({ length: heads }, (_, head) => all[head * LENGTH ** 2 + i]!).reduce(
        (a, b) => a + b,
      );
      expect(weight).toBeCloseTo(sum / heads, 6);
    }
  });
});

test("it prints what each token looks at most", async () => {
  const model = await fixtureModel("llama");
  const prompt = model.prompt("Q: Greece\nA:");
  const pattern = await headPattern(model, prompt, { layer: 0, head: 1 });
  const lines = pattern.toString().split("\n");
  expect(inspect(pattern)).toBe(pattern.toString());
  expect(lines).toHaveLength(1 + prompt.length);
  expect(lines[0]).toBe("layer 0, head 1: what each token looks at most");
  expect(lines[1]).toMatch(/^0 "<s>" → +0 "<s>" 100\.0 %$/);
  const most = pattern.top(-1)[0]!;
  for (const outside of [prompt.length, -prompt.length - 1, 0.5]) {
    expect(() => pattern.top(outside)).toThrow(PromptError);
  }
  expect(most.weight).toBe(Math.max(...pattern.weights.at(-1)!));
  expect(lines.at(-1)).toMatch(/^9 ".*" → /);
  expect(lines.at(-1)!.replaceAll(/ +/g, " ")).toContain(
    `→ ${most.position} ${JSON.stringify(most.token)} ${(100 * most.weight).toFixed(1)} %`,
  );
  const long = await headPattern(model, model.promptFromIds(randomIds(50, 3)), { layer: 0 });
  expect(`${long}`.split("\n")).toHaveLength(41);
  expect(`${long}`).toContain(
    "layer 0, the mean of the heads: what each token looks at most, the last 40 of 50\n10 ",
  );
});

test("in an encoder-decoder the tokens are the decoder's", async () => {
  const model = await fixtureModel("t5");
  const prompt = model.prompt("translate: Paris", { answer: "in France" });
  const { tokens, weights } = await headPattern(model, prompt, { layer: 1, head: 0 });
  expect(tokens).toHaveLength(1 + prompt.answer!.length);
  expect(weights.map((row) => row.length)).toEqual(tokens.map(() => tokens.length));
});

test("layers and heads that are not there are refused", async () => {
  const model = await fixtureModel("llama");
  const prompt = model.prompt("a");
  await expect(headPattern(model, prompt, { layer: 3 })).rejects.toThrow(SiteError);
  await expect(headPattern(model, prompt, { layer: 0, head: 4 })).rejects.toThrow(SiteError);
  await expect(headPatterns(model, prompt, { layer: 3 })).rejects.toThrow(SiteError);
  await expect(headPatterns(model, prompt, { layer: 0, head: 1 } as never)).rejects.toThrow(ArgumentError);
  const none = headPattern(model, prompt, {} as never);
  await expect(none).rejects.toThrow(ArgumentError);
  await expect(none).rejects.toThrow(/^headPattern: expected layer to be a number, found undefined/);
});
