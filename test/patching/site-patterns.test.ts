import { describe, expect, expectTypeOf, test } from "vitest";
import { siteNames } from "../../src/model/walk/site-info.ts";
import type { SiteName } from "../../src/model/walk/sites.ts";
import { scale, set, zero } from "../../src/patching/edit.ts";
import { resume } from "../../src/patching/resume.ts";
import { matchSites } from "../../src/patching/site-patterns.ts";
import { tap } from "../../src/patching/tap.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose } from "../helpers/compare.ts";
import { fixtureModel, randomIds, readAll } from "../helpers/model.ts";

const LENGTH = 9;

async function setUp(name = "llama") {
  const model = await fixtureModel(name);
  return { model, prompt: model.promptFromIds(randomIds(LENGTH, 5)) };
}

describe("patterns", () => {
  test("stand for the sites that fit, in the order of the forward pass", async () => {
    const { sites } = await fixtureModel("llama");
    expect(matchSites(sites, ["resid_post.*"])).toEqual(["resid_post.0", "resid_post.1", "resid_post.2"]);
    expect(matchSites(sites, ["*_out.1", "embed"])).toEqual(["embed", "attn_out.1", "mlp_out.1"]);
    expect(matchSites(sites, ["*.2"])).toHaveLength(15);
    expect(matchSites(sites, ["z.2", "z.*"])).toEqual(["z.0", "z.1", "z.2"]);
    expect(matchSites(sites, ["*"])).toEqual(siteNames(sites));
  });

  test("keep the stacks apart", async () => {
    const { sites } = await fixtureModel("llava");
    expect(matchSites(sites, ["z.*"])).toEqual(["z.0", "z.1", "z.2"]);
    expect(matchSites(sites, ["*.0"]).every((site) => !site.startsWith("vision."))).toBe(true);
    expect(matchSites(sites, ["vision.z.*"]).every((site) => site.startsWith("vision.z."))).toBe(true);
  });

  test.each([
    ["resid_pots.*", /no site of this model is called "resid_pots\.\*"; the nearest is "resid_post\.\*"/],
    ["blocks.*.hook_resid_post", /called "blocks\.\*\.hook_resid_post"; it is called "resid_post\.\*" here/],
    ["vision.z.*", /no site is called "vision\.z\.\*": vision\.z\.0: this model has no vision tower/],
    ["q_norm.*", /the blocks of this model have no q_norm/],
    ["resid_post.7", /there are 3 layers/],
    ["resid_pots.1", /the nearest is "resid_post\.1"/],
  ])("%s is refused", async (pattern, message) => {
    const { sites } = await fixtureModel("llama");
    expect(() => matchSites(sites, [pattern])).toThrow(message);
  });
});

describe("taps of several sites", () => {
  test("give what taps of each by itself give", async () => {
    const { model, prompt } = await setUp();
    const run = model.run(prompt, {
      taps: {
        all: tap(["z.*", "mlp_out.1"], -1),
        heads: tap("pattern.*", "all", { head: 1 }),
        one: tap("z.2", -1),
      },
    });
    expect(Object.keys(run.all)).toEqual(["z.0", "z.1", "mlp_out.1", "z.2"]);
    expect(run.heads["pattern.2"]!.shape).toEqual([LENGTH, LENGTH]);
    const { found, expected } = await readAll({ found: run.all["z.2"], expected: run.one });
    expect(found).toEqual(expected);
    expectTypeOf(run.one).toEqualTypeOf<Tensor<"f32">>();
    expectTypeOf(run.heads).toEqualTypeOf<{ [site: `pattern.${number}`]: Tensor<"f32"> }>();
    // @ts-expect-error: no such site was tapped
    expect(run.heads["q.1"]).toBeUndefined();
  });

  test("of a list of prompts and of variants come as single taps do", async () => {
    const { model, prompt } = await setUp();
    const taps = { last: tap("resid_post.*", -1), whole: tap(["resid_post.*"]) };
    const batch = model.run([prompt, prompt], { taps });
    expectTypeOf(batch.last["resid_post.1"]!).toEqualTypeOf<Tensor<"f32">>();
    expectTypeOf(batch.whole["resid_post.1"]!).toEqualTypeOf<Tensor<"f32">[]>();
    expect(batch.last["resid_post.1"]!.shape).toEqual([2, model.config.width]);
    expect(batch.whole["resid_post.1"]).toHaveLength(2);
    using recording = model.record(prompt);
    const resumed = resume(recording, [{ edits: [zero("z.1", -1)] }], {
      taps: { after: tap(["resid_post.1", "resid_post.2"], -1) },
    });
    expect(resumed.after["resid_post.2"]!.shape).toEqual([1, model.config.width]);
  });

  test("are checked like others", async () => {
    const { model, prompt } = await setUp();
    expect(() => model.run(prompt, { taps: { x: tap([]) } })).toThrow(/at least one site/);
    expect(() => model.run(prompt, { taps: { x: tap("mlp_out.*", -1, { head: 0 }) } })).toThrow(/no heads/);
    expect(() => model.run(prompt, { taps: { x: tap("resid_post.*") }, stopAfter: 0 })).toThrow(/never fire/);
    expect(() => model.run(prompt, { taps: { x: tap("z.*", "all", { image: 0 }) } })).toThrow(/vision side/);
  });
});

describe("cacheAll", () => {
  test("keeps every site, as taps give them", async () => {
    const { model, prompt } = await setUp();
    const cache = model.cacheAll(prompt);
    expect(Object.keys(cache)).toEqual(siteNames(model.sites));
    expectTypeOf(cache["resid_post.1"]).toEqualTypeOf<Tensor<"f32"> | undefined>();
    expectTypeOf(cache.logits).toEqualTypeOf<Tensor<"f32">>();
    const bytes = Object.values(cache).reduce((sum, tensor) => sum + tensor.bytes, 0);
    expect(model.cacheBytes(prompt)).toBe(bytes);
    const { z, logits } = model.run(prompt, { taps: { z: tap("z.1") }, logits: "all" });
    const read = await readAll({ z, logits, cachedZ: cache["z.1"], cachedLogits: cache.logits });
    expectClose(read.cachedZ!, read.z!, { atol: 1e-5, rtol: 1e-5 });
    expectClose(read.cachedLogits!, read.logits!, { atol: 1e-5, rtol: 1e-5 });
  });

  test("keeps what patterns name or a function lets through, of some positions, under edits", async () => {
    const { model, prompt } = await setUp();
    const some = model.cacheAll(prompt, ["resid_post.*", "embed"], { at: [-2, -1] });
    expect(Object.keys(some)).toEqual(["embed", "resid_post.0", "resid_post.1", "resid_post.2"]);
    expect(some["resid_post.1"]!.shape).toEqual([2, model.config.width]);
    expectTypeOf(some.embed).toEqualTypeOf<Tensor<"f32">>();
    // @ts-expect-error: not cached
    expect(some["q.1"]).toBeUndefined();
    const byFunction = model.cacheAll(prompt, (site: SiteName) => site.startsWith("q."), {
      edits: [zero("q.1", "all")],
    });
    expect(Object.keys(byFunction)).toEqual(["q.0", "q.1", "q.2"]);
    const q = await byFunction["q.1"]!.read();
    expect(q.every((x) => x === 0)).toBe(true);
    expect(() => model.cacheAll(prompt, () => false)).toThrow(/at least one of/);
  });

  test("says what it would take when that is too much", async () => {
    const { model, prompt } = await setUp();
    const bytes = model.cacheBytes(prompt);
    const long = model.promptFromIds(Array.from({ length: 147 }, () => 5));
    // 3 layers, 4 heads, 147 × 147 numbers of 4 bytes.
    expect(() => model.cacheAll(long, "scores.*", { maxBytes: 0 })).toThrow(/ would take 1010 KiB /);
    expect(() => model.cacheAll(prompt, "*", { maxBytes: bytes })).not.toThrow();
    expect(() => model.cacheAll(prompt, "*", { maxBytes: bytes - 1 })).toThrow(
      /^cacheAll: 48 sites of 9 tokens would take [\d.]+ KiB \(most of it logits [\d.]+ KiB, mlp_pre\.\* .*\); expected at most maxBytes/,
    );
  });

  test("of a prompt with a picture has the vision side, of one without it has not", async () => {
    const model = await fixtureModel("llava");
    const { data, ...size } = { data: new Uint8Array(8 * 8 * 3).fill(99), width: 8, height: 8 };
    const looking = model.prompt(["Q:", { ...size, data }, "\nA:"]);
    const cache = model.cacheAll(looking, undefined, { at: -1 });
    expect(Object.keys(cache)).toEqual(siteNames(model.sites));
    expect(model.cacheBytes(looking)).toBe(
      Object.values(model.cacheAll(looking)).reduce((sum, tensor) => sum + tensor.bytes, 0),
    );
    const plain = Object.keys(model.cacheAll(model.prompt("Q: A:")));
    expect(plain).toEqual(siteNames(model.sites).filter((site) => !/^(vision|projector)/.test(site)));
  });
});

describe("recordings with edits", () => {
  // Edits that would show if they were applied twice, or not again.
  test.each(["llama", "gemma2", "gpt_neox"])(
    "%s: resumed runs equal full ones with both edits",
    async (name) => {
      const { model, prompt } = await setUp(name);
      const sites = matchSites(model.sites, ["*.1", "embed", "resid_post.0"]);
      const value = new Float32Array(model.config.width).fill(0.5);
      for (const site of sites) {
        const base = [scale(site, [3, 6], 1.5), scale(site, -1, 0.7)];
        using recording = model.record(prompt, { edits: base });
        const variants = [0, 1, 2].flatMap((layer) =>
          [5, 8].map((at) => ({ edits: [set(`resid_post.${layer}`, at, value), scale(site, at, 3)] })),
        );
        variants.push({ edits: [set("embed", 7, value)] }, { edits: [scale("z.2", -1, 2)] });
        const logits = await resume(recording, variants).logits.read();
        const { vocab } = model.config;
        for (const [i, { edits }] of variants.entries()) {
          const full = await model.run(prompt, { edits: [...base, ...edits] }).logits!.read();
          const found = logits.subarray(i * vocab, (i + 1) * vocab);
          expectClose(found, full, { atol: 2e-5, rtol: 1e-5, label: `${site}, variant ${i}` });
        }
      }
    },
  );

  test("keep their values, and apply to the prompt that they name", async () => {
    const { model, prompt } = await setUp();
    const other = model.promptFromIds(randomIds(6, 8));
    const value = model.device.tensor(new Float32Array(model.config.width).fill(0.5));
    const edits = [set("resid_mid.0", -1, value, { prompt: 1 })];
    using recording = model.record([prompt, other], { edits });
    const full = await readAll({
      logits: model.run([prompt, other], { edits }).logits as Tensor<"f32">,
      zeroed: model.run(other, {
        edits: [set("resid_mid.0", -1, value), zero("z.1", -1)],
      }).logits,
      first: model.run(prompt, { edits: [zero("z.1", -1)] }).logits,
    });
    value.dispose();
    const { logits } = resume(recording, [
      { prompt: 1, edits: [zero("z.1", -1)] },
      { prompt: 0, edits: [zero("z.1", -1)] },
    ]);
    const found = await logits.read();
    const recorded = await recording.logits.read();
    const { vocab } = model.config;
    const close = { atol: 2e-5, rtol: 1e-5 };
    expectClose(recorded, full.logits!, close);
    expectClose(found.subarray(0, vocab), full.zeroed!, close);
    expectClose(found.subarray(vocab), full.first!, close);
  });

  test("of pictures: kept where pictures are encoded again and where they are not", async () => {
    const model = await fixtureModel("llava");
    const picture = { data: new Uint8Array(8 * 8 * 3).map((_, i) => (i * 37) % 256), width: 8, height: 8 };
    const prompt = model.prompt(["Q:", picture, "\nA:"]);
    const base = [scale("vision.resid_post.0", 3, 2), scale("projector", 4, 1.5), scale("z.1", "all", 0.5)];
    const variants = [
      { edits: [zero("vision.mlp_out.0", 5)] },
      { edits: [scale("projector", 7, 3)] },
      { edits: [zero("embed", -2)] },
      { edits: [zero("z.1", -1)] },
    ];
    using recording = model.record(prompt, { edits: base });
    for (const some of [variants, variants.slice(2)]) {
      const found = await resume(recording, some).logits.read();
      const full = await Promise.all(
        some.map(({ edits }) => model.run(prompt, { edits: [...base, ...edits] }).logits!.read()),
      );
      expectClose(
        found,
        full.flatMap((logits) => [...logits]),
        { atol: 2e-5, rtol: 1e-5 },
      );
    }
  });

  test("refuse edits that could not fire", async () => {
    const { model, prompt } = await setUp();
    expect(() => model.record(prompt, { edits: [zero("final_norm", 0)] })).toThrow(/fired for 0 of 1/);
    expect(() => model.record(prompt, { edits: [zero("resid_post.9", 0)] })).toThrow(/3 layers/);
  });
});
