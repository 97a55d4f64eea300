import { describe, expect, test } from "vitest";
import { logitLens } from "../../../src/analysis/lens/logit-lens.ts";
import {
  encodeTaskVectors,
  extractTaskVectors,
  parseTaskVectors,
} from "../../../src/analysis/vectors/task-vectors.ts";
import { SiteError } from "../../../src/errors.ts";
import { readTensor } from "../../../src/model/checkpoint/entries/tensor-entry.ts";
import { openCheckpoint } from "../../../src/model/checkpoint/open-checkpoint.ts";
import { type Edit, scale, zero } from "../../../src/patching/edit.ts";
import { tap } from "../../../src/patching/tap.ts";
import { bf16Value } from "../../../src/tensor/dtype.ts";
import { expectClose } from "../../helpers/compare.ts";
import { fixtureModel, randomIds, readAll } from "../../helpers/model.ts";

// Sites that some families have and others lack.

const CLOSE = { atol: 1e-5, rtol: 1e-5 };
const LENGTH = 9;

async function qwen3() {
  const model = await fixtureModel("qwen3");
  const prompt = model.promptFromIds(randomIds(LENGTH, 6));
  const read = async (edits: Edit[] = []) => {
    const sites = ["q", "q_norm", "k", "k_norm", "scores"] as const;
    const taps = Object.fromEntries(sites.map((site) => [site, tap(`${site}.1`)]));
    const { logits, ...found } = model.run(prompt, { taps, edits });
    return await readAll({ logits, ...found } as Record<(typeof sites)[number] | "logits", typeof logits>);
  };
  return { model, prompt, read };
}

const isHidden = (score: number) => score === Number.NEGATIVE_INFINITY;

describe("q_norm and k_norm", () => {
  test.each(["q", "k"] as const)("%s_norm is the RMSNorm of each head, times the weight", async (part) => {
    const { model, read } = await qwen3();
    await using checkpoint = await openCheckpoint("test/fixtures/qwen3/model");
    const entry = checkpoint.entry(`model.layers.1.self_attn.${part}_norm.weight`);
    const gain = Float32Array.from(new Uint16Array((await readTensor(entry)).buffer), bf16Value);
    const { headDim, normEps } = model.config;
    const found = await read();
    const normed = found[part].map((x, i) => {
      const head = found[part].subarray(i - (i % headDim), i - (i % headDim) + headDim);
      return (
        (x / Math.sqrt(head.reduce((sum, y) => sum + y * y, 0) / headDim + normEps)) * gain[i % headDim]!
      );
    });
    expectClose(found[`${part}_norm`], normed, CLOSE);
    expect(() => expectClose(found[`${part}_norm`], found[part], CLOSE)).toThrow();
  });

  test("an edit of them reaches the scores; of the length before them nothing does", async () => {
    const { read } = await qwen3();
    const plain = await read();
    const before = await read([scale("q.1", "all", 3)]);
    // But for the eps in the norm.
    expectClose(before.scores, plain.scores, { atol: 1e-4, rtol: 1e-4 });
    const after = await read([scale("q_norm.1", "all", 3)]);
    expectClose(
      after.scores,
      plain.scores.map((x) => 3 * x),
      { atol: 1e-4, rtol: 1e-5 },
    );
    expect(() => expectClose(after.logits, plain.logits, CLOSE)).toThrow();
  });

  test("heads are those of queries and of keys", async () => {
    const { model, read } = await qwen3();
    const { heads, kvHeads } = model.config;
    const plain = await read();
    const zeroed = (scores: Float32Array, isZero: (head: number) => boolean) =>
      scores.map((x, i) => (isZero(Math.floor(i / LENGTH ** 2)) && !isHidden(x) ? 0 : x));
    const ofQuery = await read([zero("q_norm.1", "all", { head: 3 })]);
    expectClose(
      ofQuery.scores,
      zeroed(plain.scores, (head) => head === 3),
      CLOSE,
    );
    const ofKey = await read([zero("k_norm.1", "all", { head: 1 })]);
    const shared = heads / kvHeads;
    expectClose(
      ofKey.scores,
      zeroed(plain.scores, (head) => Math.floor(head / shared) === 1),
      CLOSE,
    );
    await expect(read([zero("k_norm.1", "all", { head: kvHeads })])).rejects.toThrow(SiteError);
  });

  test("are extracted as task vectors, and read back", async () => {
    const { model, prompt, read } = await qwen3();
    using vectors = extractTaskVectors(model, [prompt], { site: "q_norm", layers: [1] });
    using vector = vectors.at(1);
    const { q_norm } = await read();
    expectClose(await vector.read(), q_norm.slice(-vector.size), CLOSE);
    const stored = await parseTaskVectors(await encodeTaskVectors(vectors));
    expect(stored.origin.site).toBe("q_norm");
    expect(stored.at(1)).toEqual(await vector.read());
  });
});

describe("where a family has no such site, an error says what there is", () => {
  test.each([
    ["llama", "q_norm.0", "nothing norms its queries, q"],
    ["gpt2", "k_norm.2", "nothing norms its keys, k"],
    ["gpt_neox", "resid_mid.1", "attention and MLP both read resid_pre"],
  ] as const)("%s: %s", async (name, site, why) => {
    const model = await fixtureModel(name);
    const prompt = model.promptFromIds(randomIds(LENGTH, 6));
    const message = `${site}: the blocks of this model have no ${site.split(".")[0]} (${why}); they have resid_pre, attn_in, q, k, v`;
    for (const attempt of [
      () => model.run(prompt, { taps: { x: tap(site) } }),
      () => model.run(prompt, { edits: [zero(site, -1)] }),
    ]) {
      expect(attempt).toThrow(SiteError);
      expect(attempt).toThrow(message);
    }
    await expect(model.generate(prompt, { maxNewTokens: 1, edits: [zero(site, -1)] })).rejects.toThrow(
      message,
    );
  });

  test("the lens too, in parallel blocks", async () => {
    const model = await fixtureModel("gpt_neox");
    const prompt = model.promptFromIds(randomIds(LENGTH, 6));
    const lens = logitLens(model, prompt, { site: "resid_mid" });
    await expect(lens).rejects.toThrow("the blocks of this model have no resid_mid");
    expect(await logitLens(model, prompt, { site: "mlp_in" })).toHaveLength(3);
    const sequential = await fixtureModel("gpt_neox-sequential");
    expect(await logitLens(sequential, prompt, { site: "resid_mid" })).toHaveLength(3);
  });
});
