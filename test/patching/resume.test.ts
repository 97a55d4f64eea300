import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { sweepLayers } from "../../src/analysis/vectors/sweep-layers.ts";
import { extractTaskVectors } from "../../src/analysis/vectors/task-vectors.ts";
import { argmax } from "../../src/kernels/reduction/reduce.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import { siteInfo, siteNames } from "../../src/model/walk/site-info.ts";
import { answerEach } from "../../src/patching/answer.ts";
import { addVector, type Edit, scale, set, zero } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { resume, type Variant } from "../../src/patching/resume.ts";
import { tap } from "../../src/patching/tap.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, expectSame, largest, randomArray } from "../helpers/compare.ts";
import { EDIT_KINDS, type EditKind, makeEdit } from "../helpers/edits.ts";
import { fullRuns } from "../helpers/full-runs.ts";
import { fixtureModel, randomIds, readAll } from "../helpers/model.ts";

// A patch costs only what it can change: resumed runs compute some rows of some layers, and have to give what full
// runs give.

const CLOSE = { atol: 1e-5, rtol: 1e-5 };

/** Edits at the last position that happen to change next to nothing, by fixture. All others change something. */
const WITHOUT_EFFECT: Readonly<Record<string, readonly string[]>> = {
  gpt2: ["projectOut at v.0, 11", "zero at k.1, 11"],
  gpt_neox: [
    "projectOut at z.0, 11",
    "projectOut at resid_pre.1, 11",
    "add at v.1, 11",
    "projectOut at v.1, 11",
  ],
  qwen2: ["projectOut at k.2, 11"],
  qwen3: ["projectOut at k_norm.2, 11"],
  gemma3_text: ["add at k.2, 11", "projectOut at k.2, 11"],
  olmo2: ["projectOut at attn_out.2, 11"],
  "phi3-longrope": ["add at v.2, 11"],
  persimmon: [
    "projectOut at v.0, 11",
    "projectOnto at k_norm.1, 11",
    "set at v.2, 11",
    "interpolate at v.2, 11",
    "projectOnto at v.2, 11",
    "projectOut at pattern.2, 11",
  ],
};

/** A place, an operation and a seed for its value; the numbers are fractions of what there is to choose from. */
const editArbitrary = fc.record({
  site: fc.nat(),
  kind: fc.constantFrom(...EDIT_KINDS),
  position: fc.nat(),
  head: fc.option(fc.nat(), { nil: undefined }),
  seed: fc.nat(),
});

type Drawn = { site: number; kind: EditKind; position: number; head?: number; seed: number };

function drawnEdit(model: PatchableModel, prompt: Prompt, drawn: Drawn): Edit {
  const sites = siteNames(model.sites);
  const site = sites[drawn.site % sites.length]!;
  const { heads, features, order } = siteInfo(model.sites, site);
  // Of the head only the last position is computed in a resumed run, as in a plain one.
  const position = order === model.config.layers ? prompt.last : drawn.position % prompt.length;
  const head = heads && drawn.head !== undefined ? drawn.head % heads : undefined;
  const width = features === undefined ? prompt.length : head === undefined ? features : features / heads!;
  // Scores of hidden keys are -infinity; whatever takes dot products with them is NaN in full runs too.
  const kind = site.startsWith("scores") && drawn.kind.startsWith("project") ? "add" : drawn.kind;
  return makeEdit(kind, site, position, randomArray(width, drawn.seed), { head });
}

const FIXTURES = [
  ...["llama-gqa-tied", "mistral"],
  ...["gpt2", "gpt_neox", "gpt_neox-sequential", "qwen2", "qwen3", "gemma2", "gemma3_text"],
  ...["olmo2", "phi3-longrope", "persimmon"],
];

describe.each(FIXTURES)("%s", (name) => {
  let model: PatchableModel;
  let prompts: Prompt[];
  beforeAll(async () => {
    model = await fixtureModel(name);
    prompts = [12, 5, 9].map((length, i) => model.promptFromIds(randomIds(length, i)));
  });

  async function full({ prompt = 0, edits }: Variant): Promise<Float32Array> {
    const result = model.run(prompts[prompt]!, { edits });
    return (await readAll({ logits: result.logits })).logits;
  }

  test("gives what full runs give, for any edits of any variants of any prompts", async () => {
    using recording = model.record(prompts);
    const unpatched = await Promise.all(prompts.map((_, prompt) => full({ prompt, edits: [] })));
    const variantArbitrary = fc.record({
      prompt: fc.nat({ max: 2 }),
      drawn: fc.array(editArbitrary, { minLength: 1, maxLength: 3 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(variantArbitrary, { minLength: 1, maxLength: 4 }), async (drawn) => {
        const variants = drawn.map(({ prompt, drawn }) => ({
          prompt,
          edits: drawn.map((d) => drawnEdit(model, prompts[prompt]!, d)),
        }));
        const { logits, rowLayers } = resume(recording, variants);
        const found = (await readAll({ logits })).logits;
        const { vocab, layers } = model.config;
        const expected = await fullRuns(model, prompts, variants);
        for (const [i, variant] of variants.entries()) {
          const label = `variant ${i}: ${variant.edits.map((e) => `${e.operation} ${e.site}`).join(", ")}`;
          const own = found.slice(i * vocab, (i + 1) * vocab);
          const takesAway = variant.edits.some(({ operation }) => operation === "projectOnto");
          expectSame(own, expected[i]!, label, takesAway ? unpatched[variant.prompt] : undefined);
        }
        const plain = variants.reduce((sum, { prompt }) => sum + prompts[prompt]!.length * layers, 0);
        expect(rowLayers).toBeLessThanOrEqual(plain);
      }),
      { numRuns: FIXTURES.indexOf(name) < 2 ? 60 : 30 },
    );
  });

  test("every site, every kind of edit, in the middle and at the end", async () => {
    using recording = model.record(prompts);
    const { vocab } = model.config;
    const unpatched = await full({ edits: [] });
    const scale = largest(unpatched);
    const without: string[] = [];
    for (const site of siteNames(model.sites).keys()) {
      const variants = [3, 11].flatMap((position) =>
        EDIT_KINDS.map((kind, k): Variant => {
          const drawn = { site, kind, position, head: site % 2 ? k : undefined, seed: site };
          return { prompt: 0, edits: [drawnEdit(model, prompts[0]!, drawn)] };
        }),
      );
      const found = (await readAll({ logits: resume(recording, variants).logits })).logits;
      const expected = await fullRuns(model, prompts, variants);
      for (const [i, variant] of variants.entries()) {
        const [edit] = variant.edits;
        const label = `${edit!.operation} at ${edit!.site}, ${edit!.at}`;
        const own = found.slice(i * vocab, (i + 1) * vocab);
        expectSame(own, expected[i]!, label);
        const effect = largest(own.map((x, j) => x - unpatched[j]!));
        if (edit!.at === 11 && effect < 1e-3 * scale) without.push(label);
      }
    }
    expect(without).toEqual(WITHOUT_EFFECT[name] ?? []);
  });

  test("taps see what full runs hold, at changed rows", async () => {
    using recording = model.record(prompts);
    const taps = {
      stream: tap("resid_post.2", -1),
      pattern: tap("pattern.2", -1),
      keys: tap("k.2", (p) => p.last),
      late: tap("mlp_act.2", [-2, -1]),
    };
    const variants: Variant[] = [2, 0, 1].map((prompt) => ({
      prompt,
      edits: [addVector("resid_post.0", -2, randomArray(model.config.width, prompt))],
    }));
    const { stream, pattern, keys, late } = resume(recording, variants, { taps });
    const stacked = await readAll({ stream: stream as Tensor, keys: keys as Tensor });
    for (const [i, { prompt, edits }] of variants.entries()) {
      const expected = await readAll(model.run(prompts[prompt!]!, { taps, edits }));
      const own = await readAll({ pattern: (pattern as Tensor[])[i], late: (late as Tensor[])[i] });
      for (const site of ["stream", "keys"] as const) {
        const { length } = expected[site];
        expectClose(stacked[site].slice(i * length, (i + 1) * length), expected[site], CLOSE);
      }
      expectClose(own.pattern, expected.pattern, CLOSE);
      expectClose(own.late, expected.late, CLOSE);
    }
  });

  test("computes the rows from the patch on, in the layers above it, and no others", async () => {
    using recording = model.record(prompts);
    const cost = (...edits: Edit[]) => {
      const { logits, rowLayers } = resume(recording, [{ prompt: 0, edits }]);
      logits.dispose();
      return rowLayers;
    };
    expect(recording.rowLayers).toBe((12 + 5 + 9) * 3);
    expect(cost(zero("resid_post.0", -1))).toBe(2);
    expect(cost(zero("resid_post.2", -1))).toBe(0);
    expect(cost(zero("resid_pre.2", 4))).toBe(8);
    expect(cost(zero("embed", 0))).toBe(36);
    expect(cost(zero("resid_post.1", 7), zero("mlp_out.1", 9))).toBe(5 * 2);
  });

  test("sweeps all layers as the plain way does, for a fraction of it", async () => {
    using vectors = extractTaskVectors(model, prompts);
    const { layers, patched, unpatched, rowLayers, plainRowLayers } = await sweepLayers(
      model,
      prompts,
      vectors,
      {
        batchRows: 7, // more than one batch
      },
    );
    expect(layers).toEqual([0, 1, 2]);
    for (const [q, query] of prompts.entries()) {
      const answer = async (edits: Edit[]) => {
        using logits = model.run(query, { edits }).logits!;
        using id = argmax(logits, -1);
        return await id.item();
      };
      expect(unpatched[q]).toBe(await answer([]));
      for (const [l, layer] of layers.entries()) {
        using vector = vectors.at(layer);
        expect(patched[l]![q]).toBe(await answer([set(`resid_post.${layer}`, -1, vector)]));
      }
    }
    expect(plainRowLayers).toBe(26 * 3 * 4);
    expect(rowLayers).toBe(26 * 3 + 3 * (2 + 1 + 0));
  });
});

test("edits that name another prompt than theirs are not made on it", async () => {
  const model = await fixtureModel("llama");
  const prompts = [7, 9].map((length) => model.promptFromIds(randomIds(length, length)));
  const edit = (prompt: number) => scale("resid_post.0", -1, -2, { prompt });
  using recording = model.record(prompts);
  expect(() => resume(recording, [{ prompt: 0, edits: [edit(1)] }])).toThrow(
    "resume: variant 0 is of prompt 0, but one of its edits of 1",
  );
  const ids = async (edits: Edit[], query: number) =>
    (await model.generate(prompts[query]!, { maxNewTokens: 2, edits })).ids;
  const plain = [await ids([], 0), await ids([], 1)];
  const edited = await ids([scale("resid_post.0", -1, -2)], 1);
  expect(edited).not.toEqual(plain[1]);
  const answers = await answerEach(model, prompts, [[edit(1)], []], 2);
  expect(answers.map((set) => set.map((answer) => answer.ids))).toEqual([[plain[0], edited], plain]);
  await expect(answerEach(model, prompts, [[edit(2)]], 2)).rejects.toThrow(
    "answerEach: edits[0] names query 2 of 2",
  );
});
