import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { patchEach } from "../../../src/analysis/vectors/sweep-layers.ts";
import { GenerationError, PromptError, SiteError } from "../../../src/errors.ts";
import type { Prompt } from "../../../src/model/prompt/prompt.ts";
import { generateTokens } from "../../../src/model/walk/generate-tokens.ts";
import { createSampler, greedy, type Sampler } from "../../../src/model/walk/sampling.ts";
import { siteInfo, siteNames } from "../../../src/model/walk/site-info.ts";
import type { SiteName } from "../../../src/model/walk/sites.ts";
import { addVector, type Edit, scale, set, zero } from "../../../src/patching/edit.ts";
import type { PatchableModel } from "../../../src/patching/model.ts";
import { batchOf } from "../../../src/patching/site-targets.ts";
import { resolveEdits, Watcher } from "../../../src/patching/watcher.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { expectClose, randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";
import { fixtureModel, randomIds, readAll } from "../../helpers/model.ts";

// Generation keeps keys and values and computes one new row a step. It has to give what a full run over everything so
// far gives at each step, edits included.

/** Logits and ids of one sequence, step by step. */
interface Steps {
  readonly logits: Float32Array[];
  readonly ids: number[];
}

/** The way with a cache: all prompts at once. */
async function cached(
  model: PatchableModel,
  prompts: readonly Prompt[],
  edits: readonly Edit[],
  maxNewTokens: number,
  stopIds: ReadonlySet<number> = new Set(),
): Promise<Steps[]> {
  const { device, network, sites, config } = model;
  const scope = device.openScope();
  const steps: Steps[] = prompts.map(() => ({ logits: [], ids: [] }));
  try {
    const batch = batchOf(prompts, model.config.vision);
    const resolved = scope.enter(() => resolveEdits(edits, sites, device, batch, maxNewTokens - 1));
    const visitor = new Watcher(resolved, {});
    let latest = new Float32Array();
    const sampler: Sampler = async (logits, rows) => {
      latest = (await logits.read()) as Float32Array<ArrayBuffer>;
      return await greedy(logits, rows);
    };
    for await (const step of generateTokens(network, prompts, { maxNewTokens, stopIds, sampler, visitor })) {
      step.sequences.forEach((sequence, i) => {
        steps[sequence]!.logits.push(latest.slice(i * config.vocab, (i + 1) * config.vocab));
        steps[sequence]!.ids.push(step.ids[i]!);
      });
    }
  } finally {
    scope.dispose();
  }
  return steps;
}

/** The way without: a full run a step, with those of the edits (at absolute positions) whose position is there. */
async function recomputed(
  model: PatchableModel,
  prompt: Prompt,
  edits: readonly Edit[],
  maxNewTokens: number,
  stopIds: ReadonlySet<number> = new Set(),
): Promise<Steps> {
  const steps: Steps = { logits: [], ids: [] };
  while (steps.ids.length < maxNewTokens && !stopIds.has(steps.ids.at(-1)!)) {
    const sequence = model.promptFromIds([...prompt.ids, ...steps.ids]);
    const there = edits.filter((edit) => (edit.at as number) < sequence.length);
    const { logits } = await readAll({ logits: model.run(sequence, { edits: there }).logits });
    steps.logits.push(logits);
    steps.ids.push(logits.indexOf(Math.max(...logits)));
  }
  return steps;
}

function expectSame(found: Steps, expected: Steps): void {
  expect(found.logits.length).toBe(expected.logits.length);
  for (const [step, logits] of expected.logits.entries()) {
    const largest = Math.max(...logits.map(Math.abs));
    expectClose(found.logits[step]!, logits, { atol: 1e-5 * largest, rtol: 0, label: `step ${step}` });
  }
  expect(found.ids).toEqual(expected.ids);
}

const NEW_TOKENS = 5;

describe.each(["llama-gqa-tied", "mistral", "gpt2", "gemma2", "gemma3_text"])("%s", (name) => {
  test("a KV cache gives what recomputation gives, with edits in the prompts and in the answers", async () => {
    const model = await fixtureModel(name);
    const sites = siteNames(model.sites);
    const editArbitrary = fc.record({
      site: fc.nat({ max: sites.length - 1 }),
      kind: fc.constantFrom("set", "add", "scale", "zero"),
      factor: fc.constantFrom(0.5, 0, -1),
      prompt: fc.nat(),
      position: fc.nat(),
      seed: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 11 }), { minLength: 1, maxLength: 3 }),
        fc.array(editArbitrary, { maxLength: 4 }),
        async (lengths, drawn) => {
          const prompts = lengths.map((length, i) => model.promptFromIds(randomIds(length, i)));
          const edits = drawn.map(({ site: index, kind, factor, prompt: p, position, seed }): Edit => {
            const site = sites[index]!;
            const { features, order } = siteInfo(model.sites, site);
            const prompt = p % prompts.length;
            const { last } = prompts[prompt]!;
            // Of the head only last positions are computed, of a prompt and then of every new token.
            const first = order === model.config.layers ? last : 0;
            const at = first + (position % (last + NEW_TOKENS - first));
            if (kind === "zero") return zero(site, at, { prompt });
            if (features === undefined || kind === "scale") return scale(site, at, factor, { prompt });
            const value = randomArray(features, seed);
            return (kind === "set" ? set : addVector)(site, at, value, { prompt });
          });
          const found = await cached(model, prompts, edits, NEW_TOKENS);
          for (const [p, prompt] of prompts.entries()) {
            const own = edits.filter((e) => e.prompt === p).map((e) => ({ ...e, prompt: undefined }));
            expectSame(found[p]!, await recomputed(model, prompt, own, NEW_TOKENS));
          }
        },
      ),
      { numRuns: 25 },
    );
  });

  test("sequences that have ended leave the others as they were", async () => {
    const model = await fixtureModel(name);
    const prompts = [6, 3, 9].map((length, i) => model.promptFromIds(randomIds(length, i)));
    const [first] = await cached(model, prompts, [], NEW_TOKENS);
    const stopIds = new Set([first!.ids[1]!]);
    const found = await cached(model, prompts, [], NEW_TOKENS, stopIds);
    expect(found[0]!.ids.length).toBeLessThan(NEW_TOKENS);
    expect(Math.max(...found.map(({ ids }) => ids.length))).toBe(NEW_TOKENS);
    for (const [p, prompt] of prompts.entries()) {
      expectSame(found[p]!, await recomputed(model, prompt, [], NEW_TOKENS, stopIds));
    }
  });
});

describe("generate", () => {
  const setUp = async () => {
    const model = await fixtureModel("llama");
    return { model, prompt: model.prompt("The capital of France is") };
  };
  const answer = (
    model: PatchableModel,
    prompt: Prompt,
    edits: readonly Edit[] = [],
    maxNewTokens = NEW_TOKENS,
  ) => model.generate(prompt, { maxNewTokens, edits, stopIds: [] });

  test("an edit fires in the step that computes its position, and not before", async () => {
    const { model, prompt } = await setUp();
    const plain = (await answer(model, prompt)).ids;
    const wrong = randomArray(48, 2, 30);
    for (const late of [0, 1, 2]) {
      // The row of new token `late` makes the token after it.
      const { ids } = await answer(model, prompt, [set("resid_post.2", prompt.length + late, wrong)]);
      expect(ids.slice(0, late + 1)).toEqual(plain.slice(0, late + 1));
      expect(ids[late + 1]).not.toBe(plain[late + 1]);
    }
  });

  test("negative positions count from the end of the prompt", async () => {
    const { model, prompt } = await setUp();
    const edit = (at: number) => [set("resid_post.1", at, randomArray(48, 2, 30))];
    const { ids } = await answer(model, prompt, edit(-1));
    expect(ids).toEqual((await answer(model, prompt, edit(prompt.last))).ids);
    expect(ids).not.toEqual((await answer(model, prompt, edit(prompt.length))).ids);
    expect(ids).not.toEqual((await answer(model, prompt)).ids);
  });

  test("several prompts give what each gives alone, token by token", async () => {
    const { model, prompt } = await setUp();
    const prompts = [prompt, model.prompt("The sky"), model.promptFromIds([7])];
    const edits = [addVector("mlp_out.1", -1, randomArray(48, 3, 5), { prompt: 1 })];
    const seen: number[][] = prompts.map(() => []);
    const onToken = ({ prompt, id }: { prompt: number; id: number }) => seen[prompt]!.push(id);
    const options = { maxNewTokens: NEW_TOKENS, stopIds: [], edits, onToken };
    const together = await model.generate(prompts, options);
    expect(seen).toEqual(together.map(({ ids }) => ids));
    for (const [p, one] of prompts.entries()) {
      const own = edits.filter((e) => e.prompt === p).map((e) => ({ ...e, prompt: undefined }));
      expect(together[p]).toEqual(await answer(model, one, own));
    }
    expect(together[1]).not.toEqual(await answer(model, prompts[1]!));
  });

  test("the pieces of text that come with the tokens are the answer's text, whoever comes with them", async () => {
    const { model, prompt } = await setUp();
    const prompts = [prompt, model.prompt("The sky"), model.promptFromIds([7])];
    const seen = prompts.map(() => "");
    const onToken = ({ prompt: p, text }: { prompt: number; text: string }) => {
      seen[p] += text;
    };
    const sampling = { temperature: 3, seed: 5 };
    const answers = await model.generate(prompts, { maxNewTokens: 40, stopIds: [], onToken, ...sampling });
    expect(seen).toEqual(answers.map(({ text }) => text));
    expect(seen.some((text) => text.trim().includes(" "))).toBe(true);
  });

  test("says whether an end token came or the limit", async () => {
    const { model, prompt } = await setUp();
    const { ids, ended } = await answer(model, prompt);
    expect([ids.length, ended]).toEqual([NEW_TOKENS, false]);
    const stopped = await model.generate(prompt, { maxNewTokens: NEW_TOKENS, stopIds: [ids[2]!] });
    expect([stopped.ids, stopped.ended]).toEqual([ids.slice(0, ids.indexOf(ids[2]!) + 1), true]);
  });

  const site: SiteName = "resid_post.0";
  test.each<[string, (length: number) => Edit, RegExp]>([
    ["before the prompt", (length) => zero(site, -length - 1), /found -/],
    ["after the last row that is computed", (length) => zero(site, length + NEW_TOKENS - 1), /found \d+/],
    ["in another prompt", () => zero(site, 0, { prompt: 1 }), /resid_post\.0.*no prompt 1 among 1/],
  ])("an edit %s throws", async (_, edit, message) => {
    const { model, prompt } = await setUp();
    const attempt = answer(model, prompt, [edit(prompt.length)]);
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toSatisfy((e) => e instanceof PromptError || e instanceof SiteError);
  });

  test("an edit whose position never came, because the answer ended, is reported with the answer", async () => {
    const { model, prompt } = await setUp();
    const other = model.prompt("The sky and the sea");
    const first = zero("mlp_out.0", 0);
    const plain = await model.generate([prompt, other], {
      maxNewTokens: NEW_TOKENS,
      edits: [first],
      stopIds: [],
    });
    const stop = plain[0]!.ids[1]!; // the second token ends the first answer
    expect(plain[1]!.ids).not.toContain(stop);
    const steer = (p: number, { length }: Prompt) => {
      const at = { start: length, end: length + NEW_TOKENS - 1 };
      return scale("resid_post.0", at, 1, { prompt: p });
    };
    const edits = [first, steer(0, prompt), steer(1, other)];
    const options = { maxNewTokens: NEW_TOKENS, edits, stopIds: [stop] };
    const [short, long] = await model.generate([prompt, other], options);
    expect(short!.ended).toBe(true);
    const { ids, unfired } = short!;
    const { length } = prompt;
    // The end token itself is never fed back.
    const positions = Array.from({ length: NEW_TOKENS - ids.length }, (_, i) => length + ids.length - 1 + i);
    const label = `scale at resid_post.0, positions ${length} to ${length + NEW_TOKENS - 2}`;
    expect(unfired).toEqual([{ edit: 1, label, positions }]);
    expect([long!.ids.length, long!.unfired]).toEqual([NEW_TOKENS, []]);
  });

  test("of the logits of a prompt only those of the last token can be edited, and all of them means that", async () => {
    const { model, prompt } = await setUp();
    const sample = (temperature: number, edits: Edit[]) =>
      model.generate(prompt, { maxNewTokens: 1, edits, temperature, seed: 3, stopIds: [] });
    const [doubled, colder] = [await sample(1, [scale("logits", "all", 2)]), await sample(0.5, [])];
    expect(doubled.ids).toEqual(colder.ids);
    const wanted = 11;
    const only = Array.from({ length: 448 }, (_, id) => (id === wanted ? 50 : 0));
    const { ids } = await answer(model, prompt, [
      addVector("logits", [0, -1], only),
      scale("final_norm", "all", 1),
    ]);
    expect(ids[0]).toBe(wanted);
    const attempt = answer(model, prompt, [zero("logits", 0)]);
    await expect(attempt).rejects.toThrow(SiteError);
    await expect(attempt).rejects.toThrow(/zero at logits, position 0: .*from the prompt's last token on/);
  });

  test("a prompt may fill the context, and one token more comes", async () => {
    const { model } = await setUp();
    const full = model.promptFromIds(randomIds(256, 3));
    const { ids } = await answer(model, full, [], 1);
    const { logits } = await readAll({ logits: model.run(full).logits });
    expect(ids).toEqual([logits.indexOf(Math.max(...logits))]);
    await expect(answer(model, full, [], 2)).rejects.toThrow(/at most 256 tokens.*found 257/);
  });

  test("more tokens than the context holds, or none, throw", async () => {
    const { model, prompt } = await setUp();
    await expect(answer(model, prompt, [], 256)).rejects.toThrow(/at most 256 tokens/);
    await expect(answer(model, prompt, [], 0)).rejects.toThrow(/maxNewTokens.*found 0/);
  });
});

describe("sampling", () => {
  const options = { maxNewTokens: 8, stopIds: [], temperature: 1.5 };

  test("gives each prompt of a batch what it gets alone", async () => {
    const model = await fixtureModel("llama");
    const [a, b] = [model.prompt("The capital of France is"), model.prompt("The sky")];
    const alone = {
      a: await model.generate(a, { ...options, seed: 5 }),
      b: await model.generate(b, { ...options, seed: 5 }),
    };
    expect(await model.generate([a, b], { ...options, seed: 5 })).toEqual([alone.a, alone.b]);
    expect(await model.generate([b, a, b], { ...options, seed: 5 })).toEqual([alone.b, alone.a, alone.b]);
    // A neighbour that ends early does not shift the others' numbers either.
    const stopIds = [alone.b.ids[0]!];
    const [first, second] = await model.generate([b, a], { ...options, seed: 5, stopIds });
    expect(first!.ids).toEqual([alone.b.ids[0]]);
    expect(second).toEqual(await model.generate(a, { ...options, seed: 5, stopIds }));
  });

  test("takes a seed for each prompt", async () => {
    const model = await fixtureModel("llama");
    const prompt = model.prompt("The sky");
    const each = await model.generate([prompt, prompt, prompt], { ...options, seed: [1, 2, 1] });
    expect(each[0]).toEqual(await model.generate(prompt, { ...options, seed: 1 }));
    expect(each[1]).toEqual(await model.generate(prompt, { ...options, seed: 2 }));
    expect(each[2]).toEqual(each[0]);
    expect(each[1]).not.toEqual(each[0]);
    const attempt = model.generate([prompt, prompt], { ...options, seed: [1] });
    await expect(attempt).rejects.toThrow(/a seed for each of 2 prompt\(s\), found 1/);
    await expect(model.generate(prompt, { ...options, seed: 0.5 })).rejects.toThrow(
      /whole numbers as seed, found 0.5/,
    );
  });

  const { POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: none, NaN: nan } = Number;
  const rows = { sequences: [3], step: 2 };
  const samplers = (seed = 0) => [
    greedy,
    createSampler({ temperature: 0.7, seed }, 4),
    createSampler({ temperature: inf, topP: 0.9, seed }, 4),
  ];

  async function choose(sampler: Sampler, logits: readonly number[]): Promise<number> {
    using tensor = (await testDevice()).tensor(logits, { shape: [1, logits.length] });
    return (await sampler(tensor, rows))[0]!;
  }

  test("an infinite logit is chosen", async () => {
    const logits = Array.from({ length: 9 }, (_, i) => (i === 7 ? inf : i));
    for (const sampler of samplers()) expect(await choose(sampler, logits)).toBe(7);
  });

  test("of several infinite logits each is as likely", async () => {
    const counts = [0, 0, 0, 0, 0];
    const [, sampler] = samplers(1);
    for (let i = 0; i < 400; i++) counts[await choose(sampler!, [3, inf, 99, inf, none])]!++;
    expect([counts[0], counts[2], counts[4]]).toEqual([0, 0, 0]);
    expect(Math.abs(counts[1]! - 200)).toBeLessThan(50); // five standard deviations
    expect(await choose(greedy, [3, inf, 99, inf, none])).toBe(1);
  });

  test("a logit of -infinity is never chosen, however hot", async () => {
    const hot = samplers()[2]!;
    for (let i = 0; i < 50; i++) expect(await choose(hot, [none, 1, none, none])).toBe(1);
  });

  test.each([
    ["NaN", [1, nan, inf], /new token 2 of prompt 3 .*there is a NaN among the logits/],
    ["-infinity alone", [none, none], /new token 2 of prompt 3 .*all logits are -Infinity/],
  ] as const)("logits of %s are an error", async (_, logits, message) => {
    for (const sampler of samplers()) {
      const attempt = choose(sampler, logits);
      await expect(attempt).rejects.toThrow(message);
      await expect(attempt).rejects.toThrow(GenerationError);
    }
  });

  test("NaN in a layer is an error of the prompt and the token that it reaches", async () => {
    const model = await fixtureModel("llama");
    const prompts = [model.prompt("The sky"), model.prompt("The capital of France is")];
    const spoilt = set("resid_post.1", prompts[1]!.length, Array(48).fill(nan), { prompt: 1 });
    for (const temperature of [undefined, 1]) {
      const attempt = model.generate(prompts, { maxNewTokens: 4, stopIds: [], edits: [spoilt], temperature });
      await expect(attempt).rejects.toThrow(/new token 1 of prompt 1 .*NaN/);
    }
    const edits = [[zero("mlp_out.0", -1)], [set("resid_post.1", -1, Array(48).fill(nan))]];
    await expect(patchEach(model, prompts, edits)).rejects.toThrow(/query 0 under edits\[1\].*NaN/);
  });
});

describe("what is found before anything runs", () => {
  const uniform = (keys: number) => Array(keys).fill(1 / keys);

  test("values for another number of keys than there will be, as the answer grows", async () => {
    const model = await fixtureModel("llama");
    const prompt = model.promptFromIds(randomIds(5, 3));
    let tokens = 0;
    const options = { maxNewTokens: 4, stopIds: [], onToken: () => tokens++ };
    for (const [edit, message] of [
      [
        set("pattern.0", 6, uniform(5)),
        "set at pattern.0, position 6: expected values for 7 keys at position 6, found 5",
      ],
      [set("pattern.0", [4, 5], uniform(5)), "expected values for 6 keys at position 5, found 5"],
      [addVector("scores.1", -1, uniform(6)), "expected values for 5 keys at position 4, found 6"],
    ] as const) {
      const attempt = model.generate(prompt, { ...options, edits: [edit] });
      await expect(attempt).rejects.toThrow(message);
      await expect(attempt).rejects.toThrow(SiteError);
    }
    expect(tokens).toBe(0);
    const edits = [set("pattern.0", [3, 4], uniform(5)), set("pattern.0", 6, uniform(7))];
    expect((await model.generate(prompt, { ...options, edits })).unfired).toEqual([]);
    expect(tokens).toBe(4);
  });
});

test("what the caller does with list and tensors meanwhile changes no answer", async () => {
  const model = await fixtureModel("llama");
  const prompts = [5, 8].map((length) => model.promptFromIds(randomIds(length, length)));
  const options = { maxNewTokens: 4, stopIds: [] };
  const vector = () => model.device.tensor(new Float32Array(48).fill(3));
  const edit = (value: Tensor) => ({ ...options, edits: [addVector("resid_post.0", 9, value)] });
  using kept = vector();
  const expected = [await model.generate(prompts, options), await model.generate(prompts[1]!, edit(kept))];
  const given = [...prompts];
  const value = vector();
  const answers = [model.generate(given, options), model.generate(prompts[1]!, edit(value))];
  given.length = 0;
  value.dispose();
  expect(await Promise.all<unknown>(answers)).toEqual(expected);
});
