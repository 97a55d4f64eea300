import { describe, expect, test } from "vitest";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import { siteInfo, siteNames } from "../../src/model/walk/site-shapes.ts";
import { LAYER_SITES, type SiteName } from "../../src/model/walk/sites.ts";
import { type Edit, set } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import { expectClose, randomArray } from "../helpers/compare.ts";
import { fixtureModel, randomIds, readAll } from "../helpers/model.ts";

// What holds between the activations of one run, whatever the weights are. Each identity comes with a control: the
// same comparison on activations that do not belong together has to fail.

const CLOSE = { atol: 1e-5, rtol: 1e-5 };
const LENGTH = 13;

/** The named sites of one layer, at all positions. */
async function activations(model: PatchableModel, prompt: Prompt, layer: number, sites = LAYER_SITES) {
  const taps = Object.fromEntries(sites.map((site) => [site, tap(`${site}.${layer}`)]));
  const { logits, ...tapped } = model.run(prompt, { taps });
  logits?.dispose();
  return await readAll(tapped as Record<(typeof LAYER_SITES)[number], typeof tapped.q>);
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

describe.each(["llama", "llama-gqa-tied", "llama-rope-llama3", "mistral"])("%s", (name) => {
  const setUp = async () => {
    const model = await fixtureModel(name);
    return { model, prompt: model.promptFromIds(randomIds(LENGTH, 3)) };
  };

  test("attention and MLP add their outputs to the residual stream", async () => {
    const { model, prompt } = await setUp();
    for (let layer = 0; layer < model.config.layers; layer++) {
      const a = await activations(model, prompt, layer);
      expectClose(sum(a.resid_pre, a.attn_out), a.resid_mid, CLOSE);
      expectClose(sum(a.resid_mid, a.mlp_out), a.resid_post, CLOSE);
      expect(() => expectClose(sum(a.resid_pre, a.mlp_out), a.resid_mid, CLOSE)).toThrow();
      expect(() => expectClose(sum(a.resid_mid, a.attn_out), a.resid_post, CLOSE)).toThrow();
    }
  });

  test("a layer starts from what the one before left", async () => {
    const { model, prompt } = await setUp();
    const [first, second] = [await activations(model, prompt, 0), await activations(model, prompt, 1)];
    expectClose(second.resid_pre, first.resid_post, CLOSE);
    expect(() => expectClose(second.resid_pre, first.resid_mid, CLOSE)).toThrow();
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

  test("rows of the pattern sum to 1, over the keys that the mask shows", async () => {
    const { model, prompt } = await setUp();
    const { heads, window = Number.POSITIVE_INFINITY } = model.config;
    const { pattern, scores } = await activations(model, prompt, 1);
    const rowSums = (values: Float32Array) =>
      Array.from({ length: heads * LENGTH }, (_, row) =>
        values.subarray(row * LENGTH, (row + 1) * LENGTH).reduce((a, b) => a + b, 0),
      );
    const ones = new Float32Array(heads * LENGTH).fill(1);
    expectClose(rowSums(pattern), ones, CLOSE);
    expect(() => expectClose(rowSums(scores.map(Math.exp)), ones, CLOSE)).toThrow();
    pattern.forEach((p, i) => {
      const [query, key] = [Math.floor(i / LENGTH) % LENGTH, i % LENGTH];
      const visible = key <= query && key > query - window;
      expect(p > 0, `query ${query}, key ${key}`).toBe(visible);
    });
  });

  test("tapping changes no numbers, though fused kernels give way to plain ones", async () => {
    const { model, prompt } = await setUp();
    const everything = siteNames(model.sites);
    const run = async (sites: readonly SiteName[]) => {
      const { device } = model;
      const operations = new Set<string>();
      const scope = device.openScope();
      device.onOperation = ({ operation }) => operations.add(operation.name);
      try {
        const taps = Object.fromEntries(sites.map((site) => [`at ${site}`, tap(site)]));
        const result = scope.enter(() => model.run(prompt, { taps, logits: "all" }));
        const values = await readAll({ logits: result.logits, stream: result["at resid_post.2"] });
        return { operations, ...values };
      } finally {
        device.onOperation = undefined;
        scope.dispose();
      }
    };
    const fused = await run(["resid_post.2"]);
    const plain = await run(everything);
    const untapped = await run([]);
    expect(untapped.operations).toContain("attention");
    expect(plain.operations).not.toContain("attention");
    expectClose(plain.stream, fused.stream, CLOSE);
    expectClose(plain.logits, untapped.logits, CLOSE);
    expectClose(fused.logits, untapped.logits, CLOSE);
  });
});

describe.each(["llama-gqa-tied", "mistral"])("an edit with the tapped value, %s", (name) => {
  /** Every site outside the layers, and those of one layer. */
  const sites: SiteName[] = [
    "embed",
    ...LAYER_SITES.map((site): SiteName => `${site}.1`),
    "final_norm",
    "logits",
  ];

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
