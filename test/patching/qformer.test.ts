import { beforeAll, describe, expect, test } from "vitest";
import { SiteError } from "../../src/errors.ts";
import { loadImage } from "../../src/images/files/load.ts";
import { imageRowCount } from "../../src/model/checkpoint/config/vision-setup.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import { siteInfo, siteNames } from "../../src/model/walk/site-info.ts";
import type { SiteName } from "../../src/model/walk/sites.ts";
import { addVector, type Edit } from "../../src/patching/edit.ts";
import { logitDifference } from "../../src/patching/metric.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { resume, type Variant } from "../../src/patching/resume.ts";
import { batchOf } from "../../src/patching/site-targets.ts";
import { tap } from "../../src/patching/tap.ts";
import { expectClose, expectSame, largest, randomArray } from "../helpers/compare.ts";
import { fullRuns } from "../helpers/full-runs.ts";
import { fixtureModel, readAll } from "../helpers/model.ts";

// A Q-Former between tower and language model, and an encoder that takes its features: what edits in each stack change, what
// resumed runs and recordings with edits make of them, and gradients through all of them.

const distance = (a: ArrayLike<number>, b: ArrayLike<number>) => largest(Array.from(a, (x, i) => x - b[i]!));

async function promptsFor(model: PatchableModel): Promise<Prompt[]> {
  const [photo, tall] = await Promise.all(
    ["photo", "tall"].map((name) => loadImage(`test/fixtures/images/${name}.png`)),
  );
  const answer = model.config.encoder ? { answer: "blue it is" } : {};
  return [
    model.prompt(["Q:", tall!, "A: red\n\nQ:", photo!, "A:"], answer),
    model.prompt([photo!, "a photo of"]),
    model.prompt("what color is the sky?"),
  ];
}

async function logitsOf(model: PatchableModel, prompt: Prompt, edits: readonly Edit[] = []) {
  return (await readAll({ logits: model.run(prompt, { edits }).logits })).logits;
}

/** An addition at the first or the last row of a site of a prompt. */
function editAt(
  model: PatchableModel,
  prompt: Prompt,
  site: SiteName,
  at: "first" | "last",
  image = 0,
): Edit {
  const { features, sequences, rowsOf, keyRowsOf, keySequences, order } = siteInfo(model.sites, site);
  const sequence = model.sequenceOf(prompt);
  const counts = batchOf([sequence], model.config.vision).images[0]![image];
  const rowsOfSite = {
    images: () => imageRowCount(counts!, rowsOf!),
    sources: () => prompt.length,
    prompts: () => (order === model.config.layers ? 1 : sequence.length),
  };
  const rows = rowsOfSite[sequences]();
  const keys = keySequences ? prompt.length : keyRowsOf ? imageRowCount(counts!, keyRowsOf) : rows;
  const position = order === model.config.layers ? sequence.last : at === "first" ? 0 : rows - 1;
  const value = randomArray(features ?? keys, site.length + at.length);
  return addVector(site, position, value, sequences === "images" ? { image } : {});
}

describe.each(["blip2-opt", "blip2-t5", "instructblip-llama"])("%s", (name) => {
  let model: PatchableModel;
  let prompts: Prompt[];
  beforeAll(async () => {
    model = await fixtureModel(name);
    prompts = await promptsFor(model);
  });

  test("every site of every stack: a resumed run gives what a full one gives, and the edit has an effect", async () => {
    const [prompt] = prompts as [Prompt];
    using recording = model.record(prompts);
    const { vocab } = model.config;
    const plain = await logitsOf(model, prompt);
    const without: string[] = [];
    const bySite = siteNames(model.sites).map((site) => ({
      site,
      variants: (["first", "last"] as const).map(
        (at, image): Variant => ({ prompt: 0, edits: [editAt(model, prompt, site, at, image)] }),
      ),
    }));
    const full = await fullRuns(
      model,
      prompts,
      bySite.flatMap(({ variants }) => variants),
    );
    for (const { site, variants } of bySite) {
      const found = (await readAll({ logits: resume(recording, variants).logits })).logits;
      const expected = full.splice(0, variants.length);
      let effect = 0;
      for (const [i, { edits }] of variants.entries()) {
        const own = found.slice(i * vocab, (i + 1) * vocab);
        expectSame(own, expected[i]!, `${edits[0]!.operation} at ${site}`);
        effect = Math.max(effect, distance(own, plain));
      }
      if (effect < 1e-4 * largest(plain)) without.push(site);
    }
    expect(without).toEqual([]);
  }, 240_000);

  test("edits of a recording come by again in what a variant computes anew, and nowhere else", async () => {
    const picks = ["vision.resid_post.1", "qformer.resid_mid.0", "qformer.xattn_k.0", "projector"];
    const ofEncoder = ["encoder.embed", "encoder.resid_post.0", "xattn_k.0"];
    const sites = [...picks, ...(model.sites.encoder ? ofEncoder : []), "resid_post.0"] as SiteName[];
    for (const before of sites) {
      const edits = [{ ...editAt(model, prompts[0]!, before, "first"), prompt: 0 }];
      using recording = model.record(prompts, { edits });
      const variants = sites.map(
        (site): Variant => ({ prompt: 0, edits: [editAt(model, prompts[0]!, site, "last")] }),
      );
      const { vocab } = model.config;
      const found = (await readAll({ logits: resume(recording, variants).logits })).logits;
      for (const [i, variant] of variants.entries()) {
        const whole = await logitsOf(model, prompts[0]!, [...edits, ...variant.edits]);
        expectSame(found.slice(i * vocab, (i + 1) * vocab), whole, `${before}, then ${sites[i]}`);
      }
    }
  }, 240_000);

  test("cross-attention is of the queries and of the layers that have it", async () => {
    const { layers } = model.sites.qformer!.cross!;
    expect(layers).toEqual([0, 2]);
    const prompt = prompts[1]!;
    const taps = {
      pattern: tap("qformer.xattn_pattern.2"),
      k: tap("qformer.xattn_k.0"),
      mid: tap("qformer.xresid_mid.0"),
      all: tap("qformer.resid_post.0"),
    };
    const { pattern, k, mid, all } = model.run(prompt, { taps });
    expect(pattern.shape).toEqual([3, 6, 17]);
    expect([k.shape, mid.shape]).toEqual([
      [17, 24],
      [6, 24],
    ]);
    const text = prompt.instruction?.length ?? 0;
    expect(all.shape).toEqual([6 + text, 24]);
    expect(text > 0).toBe(name === "instructblip-llama");
    for (const tensor of [pattern, k, mid, all]) tensor.dispose();
    const at = (site: string) => () => model.run(prompt, { taps: { x: tap(site as SiteName) } });
    expect(at("qformer.xattn_q.1")).toThrow(SiteError);
    expect(at("qformer.xattn_q.1")).toThrow("there is no cross-attention in layer 1; it is in 0, 2");
    expect(at("qformer.resid_post.3")).toThrow("there are 3 layers, 0 to 2");
    expect(at("qformer.resid_attn.0")).toThrow("qformer.resid_mid.0");
    expect(at("qformer.encoder.layer.1.crossattention")).toThrow("qformer.xresid_mid.1");
  });

  test("gradients through all stacks are those of finite differences", async () => {
    const prompt = prompts[1]!;
    const metric = logitDifference(20, 31);
    const sites: SiteName[] = [
      "vision.resid_post.0",
      "qformer.resid_post.0",
      "qformer.xattn_k.0",
      "projector",
      "resid_post.0",
    ];
    if (model.sites.encoder) sites.push("encoder.resid_post.0");
    for (const site of sites) {
      const info = siteInfo(model.sites, site);
      const along = randomArray(info.features!, 7);
      const position = info.sequences === "prompts" ? -1 : 2;
      const { gradients } = model.gradients(prompt, metric, { of: [site], at: position });
      const own = (await readAll({ g: gradients[site] as never })).g as Float32Array;
      const slope = own.reduce((sum, g, i) => sum + g * along[i]!, 0);
      const at = async (step: number) => {
        const edits = [addVector(site, position, along.map((x) => step * x) as Float32Array)];
        const logits = await logitsOf(model, prompt, edits);
        return logits[20]! - logits[31]!;
      };
      const step = 2e-2;
      const measured = ((await at(step)) - (await at(-step))) / (2 * step);
      expect(Math.abs(slope), site).toBeGreaterThan(1e-4);
      expectClose([slope], [measured], { atol: 5e-3, rtol: 2e-2 });
    }
    const weights = ["query_tokens", "language_projection.weight"];
    const { weights: ofWeights, pixels } = model.gradients(prompt, metric, { weights, pixels: true });
    expect(ofWeights["query_tokens"]!.shape).toEqual([1, 6, 24]);
    expect(pixels[0]!.shape).toEqual([3, 28, 28]);
    const read = await readAll({ queries: ofWeights["query_tokens"], pixels: pixels[0] });
    expect(largest(read.queries)).toBeGreaterThan(0);
    expect(largest(read.pixels)).toBeGreaterThan(0);
  });
});
