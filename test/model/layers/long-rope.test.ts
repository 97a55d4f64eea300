import { describe, expect, test } from "vitest";
import { PromptError } from "../../../src/errors.ts";
import { addVector } from "../../../src/patching/edit.ts";
import { resume } from "../../../src/patching/resume.ts";
import { expectClose, randomArray } from "../../helpers/compare.ts";
import { fixtureModel, randomIds } from "../../helpers/model.ts";

/** Tokens up to which the fixture's short factors hold (original_max_position_embeddings). */
const BORDER = 9;
const CLOSE = { atol: 1e-5, rtol: 1e-5 };
const greedily = (maxNewTokens: number) => ({ maxNewTokens, stopIds: [] });

async function setUp() {
  const model = await fixtureModel("phi3-longrope");
  const promptOf = (length: number, seed = length) => model.promptFromIds(randomIds(length, seed));
  return { model, promptOf };
}

describe("LongRoPE", () => {
  test("every token turns otherwise in a prompt beyond the border", async () => {
    const { model } = await setUp();
    const ids = randomIds(BORDER + 1, 3);
    // The first tokens, which see no later ones.
    const logitsOf = async (length: number) => {
      const { logits } = model.run(model.promptFromIds(ids.slice(0, length)), { logits: "all" });
      return (await logits!.read()).subarray(0, (BORDER - 1) * model.config.vocab);
    };
    expectClose(await logitsOf(BORDER - 1), await logitsOf(BORDER), CLOSE);
    const [within, beyond] = [await logitsOf(BORDER), await logitsOf(BORDER + 1)];
    expect(() => expectClose(beyond, within, CLOSE)).toThrow();
  });

  test("answers that stay on one side, with a cache, are those without one, also in one batch", async () => {
    const { model, promptOf } = await setUp();
    const prompts = [promptOf(4), promptOf(BORDER + 1), promptOf(BORDER + 4)];
    const newTokens = BORDER - 4 + 1; // the last is never fed back
    const expected: number[][] = [];
    for (const prompt of prompts) {
      let ids = [...prompt.ids];
      for (let i = 0; i < newTokens; i++) {
        const [next] = (await model.generate(model.promptFromIds(ids), greedily(1))).ids;
        ids = [...ids, next!];
      }
      expected.push(ids.slice(prompt.length));
    }
    const together = await model.generate(prompts, greedily(newTokens));
    expect(together.map(({ ids }) => [...ids])).toEqual(expected);
    // Requests at the same time share their steps.
    const atOnce = await Promise.all(prompts.map((prompt) => model.generate(prompt, greedily(newTokens))));
    expect(atOnce.map(({ ids }) => [...ids])).toEqual(expected);
  });

  test("an answer that would cross the border is refused, with what can be had", async () => {
    const { model, promptOf } = await setUp();
    const generate = (length: number, tokens: number) => model.generate(promptOf(length), greedily(tokens));
    await expect(generate(4, BORDER - 4 + 2)).rejects.toThrow(PromptError);
    await expect(generate(4, BORDER - 4 + 2)).rejects.toThrow(/at most 5 .*maxNewTokens 6.*LongRoPE/);
    await expect(generate(BORDER, 2)).rejects.toThrow("original_max_position_embeddings");
    await expect(model.generate([promptOf(12), promptOf(4)], greedily(9))).rejects.toThrow(PromptError);
    expect((await generate(BORDER, 1)).ids).toHaveLength(1);
    expect((await generate(BORDER + 1, 9)).ids).toHaveLength(9);
  });

  test("resumed runs on both sides of the border in one recording", async () => {
    const { model, promptOf } = await setUp();
    const prompts = [promptOf(5), promptOf(12)];
    const edits = [addVector("resid_post.0", 3, randomArray(model.config.width, 1))];
    using recording = model.record(prompts);
    const variants = prompts.map((_, prompt) => ({ prompt, edits }));
    const resumed = await resume(recording, variants).logits.read();
    const full = await Promise.all(prompts.map((prompt) => model.run(prompt, { edits }).logits!.read()));
    expectClose(
      resumed,
      full.flatMap((row) => [...row]),
      CLOSE,
    );
  });
});
