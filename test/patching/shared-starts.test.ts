import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { loadImage } from "../../src/images/files/load.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import { sharedStarts } from "../../src/model/walk/shared-starts.ts";
import { siteInfo, siteNames } from "../../src/model/walk/site-info.ts";
import { type Edit, zero } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { type Tap, tap } from "../../src/patching/tap.ts";
import { profileWork } from "../../src/profile/profile.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectSame, randomArray } from "../helpers/compare.ts";
import { EDIT_KINDS, makeEdit } from "../helpers/edits.ts";
import { fixtureModel, randomIds, TEXT_FIXTURES } from "../helpers/model.ts";

// Prompts of one batch that begin alike are computed once: that is never to be seen in what comes out.

const START = 26;

/** Five prompts that begin with the same tokens, the longest not first, and two others. */
function textPrompts(model: PatchableModel, start = START): Prompt[] {
  const common = randomIds(start, 5);
  const tails = [4, 1, 6, 2, 3].map((length, i) => [...common, ...randomIds(length, 20 + i)]);
  return [randomIds(9, 7), ...tails, randomIds(30, 8)].map((ids) => model.promptFromIds(ids));
}

/** Prompts about the same picture. */
async function picturePrompts(model: PatchableModel): Promise<Prompt[]> {
  const [image, other] = await Promise.all(
    ["photo", "tall"].map((name) => loadImage(`test/fixtures/images/${name}.png`)),
  );
  const ask = (picture: typeof image, text: string) => model.prompt([{ image: picture! }, text]);
  const texts = ["", "sky", "red or blue", "where"].map(
    (text) => `\nWhat is it that can be seen here, and where would one look for it? ${text}\nA:`,
  );
  // One picture and the other by turns: by their tokens alone they may be the same.
  return texts.flatMap((text) => [ask(image, text), ask(other, text)]);
}

const saved = (model: PatchableModel, prompts: readonly Prompt[]) =>
  prompts.reduce((sum, { length }) => sum + length, 0) -
  (sharedStarts(model.network, prompts)?.rows.length ?? Number.NaN);

/** What a batch gives, against what each prompt gives alone. */
async function expectAlike(
  model: PatchableModel,
  prompts: readonly Prompt[],
  edits: readonly Edit[],
  taps: Readonly<Record<string, Tap>>,
): Promise<void> {
  const together = model.run(prompts, { edits, taps }) as unknown as Record<string, Tensor | Tensor[]>;
  for (const [i, prompt] of prompts.entries()) {
    const own = edits.filter((edit) => edit.prompt === i).map(({ prompt: _, ...edit }) => edit as Edit);
    const alone = model.run(prompt, { taps, edits: own }) as unknown as Record<string, Tensor>;
    for (const [name, value] of Object.entries(alone)) {
      const all = together[name]!;
      const found = Array.isArray(all) ? all[i]! : all.at(i);
      expectSame((await found.read()) as Float32Array, (await value.read()) as Float32Array, `${name} ${i}`);
      value.dispose();
    }
  }
  for (const value of Object.values(together).flat()) value.dispose();
}

describe("runs of prompts that begin alike give what each gives alone", () => {
  test.each(TEXT_FIXTURES)("%s", async (name) => {
    const model = await fixtureModel(name);
    const prompts = textPrompts(model);
    expect(saved(model, prompts)).toBe(4 * START);
    const { layers } = model.config;
    await expectAlike(model, prompts, [], {
      stream: tap(`resid_post.${layers - 1}`, [-1]),
      pattern: tap(`pattern.${layers - 1}`, [-1]),
      keys: tap("k.0", [-1]),
    });
  });

  test.each(["gemma3", "qwen2_vl", "qwen3_vl", "llava", "llava_next", "internvl", "smolvlm"])(
    "%s, about the same picture",
    async (name) => {
      const model = await fixtureModel(name);
      const prompts = await picturePrompts(model);
      // The picture is among what they share.
      expect(saved(model, prompts)).toBeGreaterThanOrEqual(64);
      await expectAlike(model, prompts, [], { stream: tap("resid_post.0", [-1]) });
    },
  );

  test.each(["llama-gqa-tied", "gemma2", "qwen2_vl"])("%s: with edits and taps anywhere", async (name) => {
    const model = await fixtureModel(name);
    const prompts = name === "qwen2_vl" ? await picturePrompts(model) : textPrompts(model);
    const sites = siteNames(model.sites).filter((site) => {
      const { sequences, layout, order } = siteInfo(model.sites, site);
      return sequences === "prompts" && layout === "rows" && order < model.config.layers;
    });
    const drawn = fc.record({
      prompt: fc.nat({ max: prompts.length - 1 }),
      site: fc.constantFrom(...sites),
      kind: fc.constantFrom(...EDIT_KINDS),
      // From the prompt's end, since most of them share what is at its start.
      back: fc.nat({ max: 12 }),
      seed: fc.nat(),
    });
    const edited = fc.array(drawn, { minLength: 1, maxLength: 3 });
    const tapped = fc.record({ site: fc.constantFrom(...sites), at: fc.integer({ min: -8, max: -1 }) });
    await fc.assert(
      fc.asyncProperty(edited, tapped, async (edits, { site, at }) => {
        const made = edits.map(({ prompt, site, kind, back, seed }) => {
          const { features } = siteInfo(model.sites, site);
          const position = Math.max(0, prompts[prompt]!.last - back);
          return { ...makeEdit(kind, site, position, randomArray(features!, seed)), prompt } as Edit;
        });
        await expectAlike(model, prompts, made, { tapped: tap(site, [at]) });
      }),
      { numRuns: 8 },
    );
  });
});

test("generations of prompts that begin alike give what each gives alone, whichever ends first", async () => {
  for (const name of ["llama-gqa-tied", "mistral", "gemma2", "qwen2_vl"]) {
    const model = await fixtureModel(name);
    const prompts = name === "qwen2_vl" ? await picturePrompts(model) : textPrompts(model);
    const alone = [];
    for (const prompt of prompts)
      alone.push((await model.generate(prompt, { maxNewTokens: 8, stopIds: [] })).ids);
    const whole = await model.generate(prompts, { maxNewTokens: 8, stopIds: [] });
    expect(whole.map(({ ids }) => ids)).toEqual(alone);
    const stop = alone[1]![2]!; // the one that computes the start ends, and the others go on
    const until = (ids: readonly number[]) =>
      ids.includes(stop) ? ids.slice(0, ids.indexOf(stop) + 1) : ids;
    const stopped = await model.generate(prompts, { maxNewTokens: 8, stopIds: [stop] });
    expect(stopped.map(({ ids }) => ids)).toEqual(alone.map(until));
  }
});

describe("a shared start", () => {
  test("is not computed again: the arithmetic is that of the rows that are left", async () => {
    const model = await fixtureModel("llama");
    const { device } = model;
    const prompts = textPrompts(model);
    const limits = { gflops: 1, gbPerSecond: 1 };
    const flopsOf = async (edits: readonly Edit[]) => {
      const work = () => device.scope(() => void model.run(prompts, { edits }));
      const { phases } = await profileWork(device, work, { rounds: 1, limits });
      return phases[0]!.flops;
    };
    const shared = await flopsOf([zero("resid_post.0", -1)]);
    const whole = await flopsOf([zero("resid_post.0", 0)]);
    const rows = prompts.reduce((sum, { length }) => sum + length, 0);
    expect(shared / whole).toBeLessThan((rows - 4 * START) / rows + 0.1);
  });

  test("ends where something is wanted or changed, and where it is too short there is none", async () => {
    const model = await fixtureModel("llama");
    const { network } = model;
    const prompts = textPrompts(model);
    const none = prompts.map(() => Number.POSITIVE_INFINITY);
    const firsts = (limits?: { wanted?: number[]; changed?: number[] }) => {
      const starts = sharedStarts(network, prompts, { wanted: none, changed: none, ...limits });
      return starts && prompts.map((_, s) => starts.first(s));
    };
    const all = firsts()!;
    expect(all.filter((first) => first === START)).toHaveLength(4);
    const leader = [1, 2, 3, 4, 5].find((s) => all[s] === 0)!;
    const follower = all.indexOf(START);
    expect(firsts({ wanted: none.map((n, s) => (s === follower ? 20 : n)) })![follower]).toBe(20);
    expect(firsts({ wanted: none.map((n, s) => (s === leader ? 20 : n)) })).toEqual(all);
    expect(
      firsts({ changed: none.map((n, s) => (s === leader ? 20 : n)) })!.filter((f) => f === 20),
    ).toHaveLength(4);
    // Another one computes it, then.
    const without = firsts({ changed: none.map((n, s) => (s === leader ? 3 : n)) })!;
    expect(without.filter((first) => first === START)).toHaveLength(3);
    expect(without[leader]).toBe(0);
    expect(sharedStarts(network, textPrompts(model, 15))).toBeUndefined();
    expect(sharedStarts(network, prompts.slice(0, 2))).toBeUndefined();
  });

  test("is found group by group", async () => {
    const { network, promptFromIds } = await groups();
    const header = randomIds(17, 1);
    const kinds = [2, 3].map((seed) => [...header, ...randomIds(40, seed)]);
    const prompts = [0, 1, 0, 1, 0, 1].map((kind, i) =>
      promptFromIds([...kinds[kind]!, ...randomIds(2, 9 + i)]),
    );
    const starts = sharedStarts(network, prompts)!;
    expect(prompts.map((_, s) => starts.first(s)).sort((a, b) => a - b)).toEqual([0, 0, 57, 57, 57, 57]);

    async function groups() {
      const model = await fixtureModel("llama");
      return { network: model.network, promptFromIds: (ids: number[]) => model.promptFromIds(ids) };
    }
  });

  test("ends before another picture, and within no picture that sees itself whole", async () => {
    const model = await fixtureModel("gemma3");
    const prompts = await picturePrompts(model);
    const [a, b] = prompts;
    expect(b!.ids).toEqual(a!.ids); // only the picture is another
    const starts = sharedStarts(model.network, prompts)!;
    const firsts = prompts.map((_, s) => starts.first(s));
    const { end } = a!.spans.image!;
    expect(firsts.filter((first) => first > end)).toHaveLength(6);
    expect(firsts.filter((first) => first === 0)).toHaveLength(2);
    // What is wanted within the picture leaves no part of it to be shared.
    const wanted = prompts.map(() => end - 1);
    const changed = prompts.map(() => Number.POSITIVE_INFINITY);
    expect(sharedStarts(model.network, prompts, { wanted, changed })).toBeUndefined();
  });

  test("is none where queries see what is behind them, or all tokens turn otherwise in a longer prompt", async () => {
    const paligemma = await fixtureModel("paligemma");
    const prompts = await picturePrompts(paligemma);
    expect(sharedStarts(paligemma.network, prompts)).toBeUndefined();
    const phi = await fixtureModel("phi3-longrope");
    const border = phi.config.rope!.beyond!.tokens;
    expect(border).toBeLessThan(START); // so that all of those above are beyond it
    const near = {
      ...phi.network,
      config: {
        ...phi.config,
        rope: { ...phi.config.rope!, beyond: { ...phi.config.rope!.beyond!, tokens: START + 2 } },
      },
    };
    const starts = sharedStarts(Object.assign(Object.create(phi.network), near), textPrompts(phi));
    expect(starts).toBeUndefined();
  });
});
