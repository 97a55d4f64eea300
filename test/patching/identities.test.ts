import { describe, expect, test } from "vitest";
import { ropeMagnitude } from "../../src/kernels/attention/rope.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import { siteInfo, siteNames } from "../../src/model/walk/site-info.ts";
import { blockSites } from "../../src/model/walk/site-shapes.ts";
import { LAYER_SITES, type LayerSite, type SiteName } from "../../src/model/walk/sites.ts";
import { type Edit, set } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import { expectClose, randomArray } from "../helpers/compare.ts";
import { fixtureModel, randomIds, readAll, TEXT_FIXTURES } from "../helpers/model.ts";

// What holds between the activations of one run, whatever the weights are. Each identity comes with a control: the
// same comparison on activations that do not belong together has to fail.

const CLOSE = { atol: 1e-5, rtol: 1e-5 };
const LENGTH = 13;

/** The named sites of one layer, at all positions; without names all that its block has. */
async function activations(
  model: PatchableModel,
  prompt: Prompt,
  layer: number,
  sites = blockSites(model.config),
) {
  const taps = Object.fromEntries(sites.map((site) => [site, tap(`${site}.${layer}`)]));
  const { logits, ...tapped } = model.run(prompt, { taps });
  logits?.dispose();
  return await readAll(tapped as Record<LayerSite, typeof tapped.q>);
}

function sum(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value + b[i]!);
}

/** pattern [heads, T, T] times v [T, kvHeads * headDim] → [T, heads * headDim]; `kvHead` says whose values a head reads. */
function mix(
  pattern: Float32Array,
  v: Float32Array,
  { heads, kvHeads, headDim }: { heads: number; kvHeads: number; headDim: number },
  kvHead: (head: number) => number,
): Float32Array {
  const z = new Float32Array(LENGTH * heads * headDim);
  for (let t = 0; t < LENGTH; t++) {
    for (let head = 0; head < heads; head++) {
      for (let i = 0; i < headDim; i++) {
        let total = 0;
        for (let s = 0; s < LENGTH; s++) {
          total +=
            pattern[(head * LENGTH + t) * LENGTH + s]! * v[(s * kvHeads + kvHead(head)) * headDim + i]!;
        }
        z[(t * heads + head) * headDim + i] = total;
      }
    }
  }
  return z;
}

describe.each(TEXT_FIXTURES)("%s", (name) => {
  const setUp = async () => {
    const model = await fixtureModel(name);
    return { model, prompt: model.promptFromIds(randomIds(LENGTH, 3)) };
  };

  test("attention and MLP add their outputs to the residual stream", async () => {
    const { model, prompt } = await setUp();
    for (let layer = 0; layer < model.config.layers; layer++) {
      const a = await activations(model, prompt, layer);
      const mid = model.config.parallel ? sum(a.resid_pre, a.attn_out) : a.resid_mid;
      expectClose(sum(a.resid_pre, a.attn_out), mid, CLOSE);
      expectClose(sum(mid, a.mlp_out), a.resid_post, CLOSE);
      expect(() => expectClose(sum(a.resid_pre, a.mlp_out), mid, CLOSE)).toThrow();
      expect(() => expectClose(sum(mid, a.attn_out), a.resid_post, CLOSE)).toThrow();
    }
  });

  test("a layer starts from what the one before left", async () => {
    const { model, prompt } = await setUp();
    const [first, second] = [await activations(model, prompt, 0), await activations(model, prompt, 1)];
    expectClose(second.resid_pre, first.resid_post, CLOSE);
    expect(() => expectClose(second.resid_pre, first.resid_pre, CLOSE)).toThrow();
  });

  test("the pattern mixes the values of each head's own group", async () => {
    const { model, prompt } = await setUp();
    const { heads, kvHeads } = model.config;
    const group = heads / kvHeads;
    const { pattern, v, z } = await activations(model, prompt, 1);
    expectClose(
      mix(pattern, v, model.config, (head) => Math.floor(head / group)),
      z,
      CLOSE,
    );
    const otherGroup = mix(pattern, v, model.config, (head) => (Math.floor(head / group) + 1) % kvHeads);
    expect(() => expectClose(otherGroup, z, CLOSE)).toThrow();
  });

  test("scores of a token with itself are its query times its key, scaled and capped", async () => {
    const { model, prompt } = await setUp();
    const { heads, kvHeads, headDim, qkNorm, rope } = model.config;
    const stretch = ropeMagnitude(rope?.scaling) ** 2; // LongRoPE's, of queries and keys
    const { scale = headDim ** -0.5, scoreSoftcap = Number.POSITIVE_INFINITY } = model.config as {
      scale?: number;
      scoreSoftcap?: number;
    };
    const a = await activations(model, prompt, 1);
    const [q, k] = qkNorm ? [a.q_norm, a.k_norm] : [a.q, a.k];
    /** Queries and keys of a position are turned by one angle, so that their product is as if they were not turned. */
    const products = (q: Float32Array, k: Float32Array, apart: number) =>
      Array.from({ length: heads * LENGTH }, (_, i) => {
        const [head, t] = [Math.floor(i / LENGTH), i % LENGTH];
        const own = (values: Float32Array, row: number, all: number, index: number) =>
          values.subarray((row * all + index) * headDim, (row * all + index + 1) * headDim);
        const key = own(k, Math.max(0, t - apart), kvHeads, Math.floor((head * kvHeads) / heads));
        const product =
          own(q, t, heads, head).reduce((total, x, d) => total + x * key[d]!, 0) * stretch * scale;
        return Number.isFinite(scoreSoftcap) ? scoreSoftcap * Math.tanh(product / scoreSoftcap) : product;
      });
    const diagonal = Array.from({ length: heads * LENGTH }, (_, i) => a.scores[i * LENGTH + (i % LENGTH)]!);
    expectClose(products(q, k, 0), diagonal, CLOSE);
    expect(() => expectClose(products(q, k, 1), diagonal, CLOSE)).toThrow();
    if (qkNorm) expect(() => expectClose(products(a.q, a.k, 0), diagonal, CLOSE)).toThrow();
  });

  test("rows of the pattern are the softmax of the scores, over the keys that the mask shows", async () => {
    const { model, prompt } = await setUp();
    const { heads, layers, window = Number.POSITIVE_INFINITY, windowedLayers } = model.config;
    for (let layer = 0; layer < layers; layer++) {
      const { pattern, scores } = await activations(model, prompt, layer, ["scores", "pattern"]);
      const rows = (values: Float32Array) =>
        Array.from({ length: heads * LENGTH }, (_, row) => values.subarray(row * LENGTH, (row + 1) * LENGTH));
      const softmax = rows(scores).flatMap((row) => {
        const weights = [...row].map((x) => Math.exp(x - Math.max(...row)));
        const total = weights.reduce((a, b) => a + b);
        return weights.map((w) => w / total);
      });
      expectClose(pattern, softmax, CLOSE);
      expect(() => expectClose(pattern, scores.map(Math.exp), CLOSE)).toThrow();
      const reach = (windowedLayers?.[layer] ?? true) ? window : Number.POSITIVE_INFINITY;
      pattern.forEach((p, i) => {
        const [query, key] = [Math.floor(i / LENGTH) % LENGTH, i % LENGTH];
        const visible = key <= query && key > query - reach;
        expect(p > 0, `layer ${layer}, query ${query}, key ${key}`).toBe(visible);
      });
    }
  });

  test("tapping changes no numbers, though fused kernels give way to plain ones", async () => {
    const { model, prompt } = await setUp();
    const everything = siteNames(model.sites);
    const run = async (sites: readonly SiteName[]) => {
      const { device } = model;
      const operations = new Set<string>();
      const scope = device.openScope();
      const stop = device.observe(({ operation }) => operations.add(operation.name));
      try {
        const taps = Object.fromEntries(sites.map((site) => [`at ${site}`, tap(site)]));
        const result = scope.enter(() => model.run(prompt, { taps, logits: "all" }));
        const values = await readAll({ logits: result.logits, stream: result["at resid_post.2"] });
        return { operations, ...values };
      } finally {
        stop();
        scope.dispose();
      }
    };
    const fused = await run(["resid_post.2"]);
    const plain = await run(everything);
    const untapped = await run([]);
    expect(untapped.operations).toContain("attention");
    expect(plain.operations).not.toContain("attention");
    expectClose(plain.stream, fused.stream, CLOSE);
    // Sums of terms as large as the largest logit.
    const close = { atol: 2e-6 * Math.max(...untapped.logits.map(Math.abs)), rtol: 1e-5 };
    expectClose(plain.logits, untapped.logits, close);
    expectClose(fused.logits, untapped.logits, close);
  });
});

const OF_A_LAYER: SiteName[] = LAYER_SITES.map((site): SiteName => `${site}.1`);
const USUAL: SiteName[] = ["embed", ...OF_A_LAYER, "final_norm", "logits"];

describe.each<[string, SiteName[]]>([
  ["llama-gqa-tied", USUAL],
  ["mistral", USUAL],
  ["gpt2", USUAL],
  ["gpt_neox", USUAL.filter((site) => site !== "resid_mid.1")],
  ["qwen3", [...USUAL, "q_norm.1", "k_norm.1"]],
  ["gemma2", USUAL],
  ["olmo2", [...USUAL, "q_norm.1", "k_norm.1"]],
  ["phi3", USUAL],
])("an edit with the tapped value, %s", (name, sites) => {
  test.each(sites)("%s", async (site) => {
    const model = await fixtureModel(name);
    const prompt = model.promptFromIds(randomIds(LENGTH, 4));
    const { logits, value } = await readAll(
      (({ logits, value }) => ({ logits, value }))(
        model.run(prompt, { taps: { value: tap(site) }, logits: "all" }),
      ),
    );
    const { layout, heads = 1 } = siteInfo(model.sites, site);
    const editsWith = (values: Float32Array): Edit[] => {
      if (layout === "rows") return [set(site, "all", values)];
      return Array.from({ length: heads }, (_, head) => {
        const ofHead = values.slice(head * LENGTH * LENGTH, (head + 1) * LENGTH * LENGTH);
        return set(site, "all", model.device.tensor(ofHead, { shape: [LENGTH, LENGTH] }), { head });
      });
    };
    const rerun = async (values: Float32Array) => {
      const scope = model.device.openScope();
      try {
        const edited = scope.enter(() => model.run(prompt, { edits: editsWith(values), logits: "all" }));
        return (await readAll({ logits: edited.logits })).logits;
      } finally {
        scope.dispose();
      }
    };
    expectClose(await rerun(value), logits, CLOSE);
    const noise = randomArray(value.length, 5, 0.1);
    const off = await rerun(value.map((x, i) => x + noise[i]!));
    expect(() => expectClose(off, logits, CLOSE)).toThrow();
  });
});
