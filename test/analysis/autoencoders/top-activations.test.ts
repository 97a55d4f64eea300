import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type { PatchableModel } from "../../../src/index.ts";
import {
  ArgumentError,
  ablateLatents,
  collectActivations,
  latentAttribution,
  latentFigure,
  loadImage,
  loadSparseAutoencoder,
  logitDifference,
  modelView,
  type Prompt,
  SiteError,
  scaleLatents,
  tap,
  topActivations,
  topLatents,
} from "../../../src/index.ts";
import { fixtureModel, randomIds } from "../../helpers/model.ts";
import { ruleWeights, saeFolder } from "../../helpers/sae.ts";

const LATENTS = 64;
const model = await fixtureModel("llama");
const folder = await mkdtemp(join(tmpdir(), "xpatch-top-"));
afterAll(() => rm(folder, { recursive: true }));

async function saeOf(
  { device, config }: PatchableModel,
  hook: string,
  architecture = "topk",
  own: object = { k: 12 },
) {
  const cfg = {
    ...{ architecture, d_in: config.width, d_sae: LATENTS, ...own },
    metadata: { sae_lens_version: "6.54.12", hook_name: hook },
  };
  const weights = ruleWeights(architecture, config.width, LATENTS);
  return loadSparseAutoencoder(await saeFolder(cfg, weights), { device });
}

const sae = await saeOf(model, "blocks.1.hook_resid_post");
const prompts = Array.from({ length: 40 }, (_, i) => model.promptFromIds(randomIds(4 + ((i * 5) % 9), i)));

/** The latents of a prompt, [positions][latents], from a run of its own. */
async function latentsOf(prompt: Prompt): Promise<number[][]> {
  const { x } = model.run(prompt, { taps: { x: tap(sae.site) } });
  const all = await sae.encode(x as never).read();
  return Array.from({ length: prompt.length }, (_, row) => [
    ...all.subarray(row * LATENTS, (row + 1) * LATENTS),
  ]);
}
const expected = await Promise.all(prompts.map(latentsOf));
const asked = [5, 17, 40, 63];

test("each latent's best tokens are those of single runs, one of each prompt, with the latent around them", async () => {
  const found = await topActivations(
    sae,
    { model, prompts },
    { latents: asked, k: 6, context: 2, batchTokens: 50 },
  );
  for (const latent of asked) {
    const { examples, active, tokens } = found.of(latent);
    const all = expected.map((rows) => rows.map((row) => row[latent]!));
    expect(tokens).toBe(all.flat().length);
    expect(active).toBe(all.flat().filter((value) => value > 0).length);
    const best = all
      .map((values, prompt) => ({
        prompt,
        value: Math.max(...values),
        position: values.indexOf(Math.max(...values)),
      }))
      .filter(({ value }) => value > 0)
      .sort((a, b) => b.value - a.value)
      .slice(0, 6);
    expect(examples.map(({ prompt, position }) => [prompt, position])).toEqual(
      best.map(({ prompt, position }) => [prompt, position]),
    );
    for (const { value, prompt, position, start, tokens: around, values, token } of examples) {
      expect(value).toBeCloseTo(all[prompt]![position]!, 4);
      expect([start, token]).toEqual([Math.max(0, position - 2), prompts[prompt]!.tokens[position]]);
      expect(around).toEqual(prompts[prompt]!.tokens.slice(start, position + 3));
      values.forEach((own, i) => {
        expect(own).toBeCloseTo(all[prompt]![start + i]!, 4);
      });
    }
  }
  expect(asked.map((latent) => found.of(latent).examples.length)).toContain(6);
  const lines = `${found}`.split("\n");
  expect(lines[0]).toBe("sae, resid_post.1");
  expect(lines[2]).toMatch(/^latent 5: active at \d+(\.\d)? % of \d+ tokens$/);
  expect(lines[3]).toMatch(/^ {2}prompt \d+, position \d+ +[\d.]+ .*«.+»/);
});

describe.each(["safetensors", "parquet"] as const)("a store of %s", (files) => {
  test("gives what the model's own runs give", async () => {
    const options = { latents: asked, k: 5 };
    const store = await collectActivations(model, prompts, join(folder, files), {
      ...{ sites: ["resid_post.1", "resid_post.0"], files, shardBytes: 30_000 },
    });
    expect(store.manifest.shards.length).toBeGreaterThan(2);
    const [own, stored] = [
      await topActivations(sae, { model, prompts }, options),
      await topActivations(sae, store, options),
    ];
    for (const latent of asked) {
      const [a, b] = [own.of(latent), stored.of(latent)];
      expect([b.active, b.tokens]).toEqual([a.active, a.tokens]);
      const plain = (each: typeof a) =>
        each.examples.map(({ value, values, ...rest }) => ({
          ...rest,
          value: value.toFixed(4),
          values: values.map((x) => x.toFixed(3)),
        }));
      expect(plain(b)).toEqual(plain(a));
    }
  });
});

test("a store of some positions only leaves the others open", async () => {
  const store = await collectActivations(model, prompts, join(folder, "last"), {
    sites: "resid_post.1",
    at: -1,
  });
  const { examples, tokens } = (await topActivations(sae, store, { latents: [17], k: 3, context: 2 })).of(17);
  expect(tokens).toBe(40);
  for (const { position, prompt, values } of examples) {
    expect(position).toBe(prompts[prompt]!.last);
    expect(values.map(Number.isNaN)).toEqual([true, true, false]);
  }
});

test("patches of pictures are named by row and column, from runs and from a store, and drawn over the picture", async () => {
  const vlm = await fixtureModel("llava");
  using seeing = await saeOf(vlm, "blocks.0.hook_resid_post");
  const photo = await loadImage("test/fixtures/images/photo.png");
  const seen = [vlm.prompt(["Q:", photo, "\nA:"]), vlm.promptFromIds(randomIds(5, 1))];
  const store = await collectActivations(vlm, seen, join(folder, "seen"), { sites: "resid_post.0" });
  const patches = new Map<number, string>();
  for (const source of [{ model: vlm, prompts: seen }, store]) {
    const { latents } = await topActivations(seeing, source, {
      latents: Array.from({ length: LATENTS }, (_, i) => i),
      k: 2,
    });
    for (const activity of latents) {
      const [found] = activity.examples.filter(({ patch }) => patch);
      if (!found) continue;
      const { patch, position, value } = found;
      expect(position).toBe(seen[0]!.span("image").start + patch!.row * 4 + patch!.column);
      expect(patch).toMatchObject({ span: "image", grid: { rows: 4, columns: 4 } });
      expect(patch!.values[patch!.row * 4 + patch!.column]).toBe(value);
      const known = patches.get(activity.latent);
      if (known !== undefined) expect(`${patch!.row} ${patch!.column}`).toBe(known);
      patches.set(activity.latent, `${patch!.row} ${patch!.column}`);
      if (patches.size > 1) continue;
      const picture = modelView(photo, vlm.config.vision!.processor);
      const figure = latentFigure(activity, { picture, prompt: 0 });
      expect(`${figure}`).toMatch(/prompt 0, image, row \d, column \d: /);
      expect((await figure.svg()).match(/<image/g)!.length).toBeGreaterThanOrEqual(2);
      expect(() => latentFigure(activity, { picture, prompt: 1 })).toThrow(
        /none of the examples .* of prompt 1/,
      );
    }
  }
  expect(patches.size).toBeGreaterThan(5);
});

test("texts are drawn on the colours of the latent", async () => {
  const activity = (await topActivations(sae, { model, prompts }, { latents: [17], k: 3, context: 3 })).of(
    17,
  );
  const figure = latentFigure(activity, { lines: ["tiny"] });
  expect(`${figure}`.split("\n")).toHaveLength(2 + activity.examples.length);
  expect(await figure.svg()).toContain(`prompt ${activity.examples[0]!.prompt}`);
  expect(() => latentFigure({ ...activity, examples: [] })).toThrow(/latent 17 is active nowhere/);
  expect(() => latentFigure(activity, { prompt: 3 })).toThrow(ArgumentError);
});

test("the latents of a prompt, the most active first", async () => {
  const found = await topLatents(sae, model, prompts[3]!, { at: [2, -1], k: 7 });
  const all = [2, prompts[3]!.last].flatMap((position) =>
    expected[3]![position]!.map((value, latent) => ({ latent, position, value })),
  );
  all.sort((a, b) => b.value - a.value);
  expect(found.map(({ latent, position }) => [latent, position])).toEqual(
    all.slice(0, 7).map(({ latent, position }) => [latent, position]),
  );
});

describe.each([
  ["topk", { k: 12 }],
  ["standard", { normalize_activations: "layer_norm" }],
  ["topk", { k: 12, rescale_acts_by_decoder_norm: true, normalize_activations: "constant_norm_rescale" }],
] as const)("attribution, %s %o", (architecture, own) => {
  test("is the metric's slope along each latent, and near what ablating it does", async () => {
    using each = await saeOf(model, "blocks.1.hook_resid_post", architecture, own);
    const [prompt, metric] = [prompts[8]!, logitDifference(30, 40)];
    const found = await latentAttribution(each, model, prompt, metric, { k: 6 });
    expect(found).toHaveLength(6);
    const measured = async (edits: Parameters<PatchableModel["run"]>[1]) => {
      const logits = await model.run(prompt, edits).logits!.read();
      return logits[30]! - logits[40]!;
    };
    const before = await measured({});
    for (const { latent, position, value, effect, gradient } of found) {
      expect(effect).toBeCloseTo(value * gradient, 5);
      const step = 0.02;
      const [less, more] = [
        await measured({ edits: [scaleLatents(each, latent, position, 1 - step)] }),
        await measured({ edits: [scaleLatents(each, latent, position, 1 + step)] }),
      ];
      expect(Math.abs((more - less) / (2 * step) - effect)).toBeLessThan(0.05 * Math.abs(effect) + 2e-3);
    }
    const [{ latent, position, effect }] = found as [(typeof found)[0]];
    const fell = before - (await measured({ edits: [ablateLatents(each, latent, position)] }));
    expect(Math.sign(fell)).toBe(Math.sign(effect));
    expect(found.map((one) => Math.abs(one.effect))).toEqual(
      found.map((one) => Math.abs(one.effect)).toSorted((a, b) => b - a),
    );
  });
});

test("what does not fit is refused", async () => {
  const other = await fixtureModel("llava");
  using wide = await saeOf(model, "blocks.1.mlp.hook_post");
  await expect(topActivations(wide, { model, prompts }, { latents: [1] })).rejects.toThrow(SiteError);
  await expect(topActivations(sae, { model, prompts }, { latents: [64] })).rejects.toThrow(
    /latents from 0 to 63/,
  );
  await expect(topActivations(sae, { model, prompts }, {} as never)).rejects.toThrow(
    /an object with latents|latents/,
  );
  await expect(topActivations(sae, prompts as never, { latents: [1] })).rejects.toThrow(
    /source to be \{ model, prompts \}, or an activation store/,
  );
  await expect(topLatents(sae, model, prompts[0]!, { k: 5000 })).rejects.toThrow(/k to be at most 1024/);
  const store = await collectActivations(model, prompts.slice(0, 2), join(folder, "other"), {
    sites: "mlp_act.1",
  });
  await expect(topActivations(sae, store, { latents: [1] })).rejects.toThrow(
    /expected resid_post\.1 48 wide, which sae is of, found mlp_act\.1/,
  );
  await expect(topActivations(wide, store, { latents: [1] })).rejects.toThrow(/mlp_act\.1 \d+ wide/);
  expect(other.config.width).toBe(48);
});
