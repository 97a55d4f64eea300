import { describe, expect, test } from "vitest";
import { PromptError, SiteError } from "../../src/errors.ts";
import { loadImage } from "../../src/images/files/load.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import { siteInfo, siteNames } from "../../src/model/walk/site-info.ts";
import { parseSite, type SiteName } from "../../src/model/walk/sites.ts";
import { addVector, type Edit, scale, zero } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { reach } from "../../src/patching/reached.ts";
import { run } from "../../src/patching/run.ts";
import { tap } from "../../src/patching/tap.ts";
import { randomArray } from "../helpers/compare.ts";
import { fixtureModel, readAll } from "../helpers/model.ts";

/** Causal, windows, parallel blocks, an encoder-decoder; pictures in the embedding, behind layers, by cross-attention. */
const TEXT = ["llama", "mistral", "gemma2", "gpt_neox", "t5"];
const PICTURES = ["llava", "paligemma", "gemma3", "qwen3_vl", "idefics", "mllama", "blip2-t5"];

async function promptOf(name: string, model: PatchableModel): Promise<Prompt> {
  if (TEXT.includes(name)) return model.prompt("Q: Greece\nA: Athens\n\nQ: Italy\nA:");
  const image = await loadImage("test/fixtures/images/tall.png");
  return model.prompt(["Q: sky\n", { image }, "Q: Greece\nA:"]);
}

/** For each layer the positions whose residual stream an edit changes. */
async function changed(model: PatchableModel, prompt: Prompt, edits: readonly Edit[]): Promise<number[][]> {
  const { layers, width } = model.config;
  const taps = Object.fromEntries(
    Array.from({ length: layers }, (_, layer) => [`${layer}`, tap(`resid_post.${layer}`)]),
  );
  const read = async (edits: readonly Edit[]) => {
    const { logits, ...values } = run(model, prompt, { taps, edits });
    logits?.dispose();
    return readAll(values as never) as Promise<Record<string, Float32Array>>;
  };
  // With the same sites in use, which else are fused away with other roundings.
  const clean = await read(edits.map(({ site, at }) => scale(site, at, 1)));
  const edited = await read(edits);
  const { length } = model.sequenceOf(prompt);
  return Array.from({ length: layers }, (_, layer) =>
    Array.from({ length }, (_, position) => position).filter((position) => {
      const row = (values: Float32Array) => values.subarray(position * width, (position + 1) * width);
      const [before, after] = [row(clean[layer]!), row(edited[layer]!)];
      return before.some((value, i) => value !== after[i]);
    }),
  );
}

function editAt(model: PatchableModel, prompt: Prompt, site: SiteName, seed: number): Edit {
  const { features, sequences, order } = siteInfo(model.sites, site);
  const { length } = model.sequenceOf(prompt);
  const position = sequences === "prompts" ? seed % length : seed % 3;
  const at = order === model.config.layers ? length - 1 : position;
  if (features === undefined) return seed % 2 ? zero(site, at) : scale(site, at, 0.5);
  return addVector(site, at, randomArray(features, seed, 2));
}

describe.each([...TEXT, ...PICTURES])("%s", (name) => {
  test("an edit changes nothing but what it can reach", async () => {
    const model = await fixtureModel(name);
    const prompt = await promptOf(name, model);
    // Of the layers one or two of each stack; others are alike.
    const sites = siteNames(model.sites).filter((site) => {
      const { stack, layer = 1 } = parseSite(site);
      return layer === 1 || (layer === 0 && stack === "text");
    });
    let marked = 0;
    let moved = 0;
    // Each site, at positions that walk through the prompt.
    for (const [i, site] of sites.entries()) {
      const edit = editAt(model, prompt, site, 3 * i + 1);
      const { cells, layer, position } = reach(model, prompt, [edit]);
      const found = await changed(model, prompt, [edit]);
      for (const [l, positions] of found.entries()) {
        expect
          .soft({ site, l, out: positions.filter((p) => !cells[l]!.includes(p)) })
          .toEqual({ site, l, out: [] });
        if (positions.length > 0)
          expect(l).toBeGreaterThanOrEqual(Math.min(layer, siteInfo(model.sites, site).order));
        if (positions.length > 0) expect(positions[0]).toBeGreaterThanOrEqual(position);
      }
      marked += cells.flat().length;
      moved += found.flat().length;
    }
    // Nor does it mark much that nothing changes: what a tower computes behind what is read of it, activations that are 0 anyway.
    expect(moved).toBeGreaterThan(0.7 * marked);
  });
});

test("in a causal model a patch of one layer at one token reaches that token there, and all behind it above", async () => {
  const model = await fixtureModel("llama");
  const prompt = model.prompt("Q: Greece\nA:");
  const at = prompt.length - 3;
  const behind = [at, at + 1, at + 2];
  const { cells, layer, position } = reach(model, prompt, [zero("resid_post.0", at)]);
  expect({ layer, position }).toEqual({ layer: 1, position: at });
  expect(cells).toEqual(
    model.config.layers === 2 ? [[at], behind] : [[at], ...Array(model.config.layers - 1).fill(behind)],
  );
  expect(reach(model, prompt, []).cells.flat()).toEqual([]);
});

test("what is no edit of the prompt is refused", async () => {
  const model = await fixtureModel("llama");
  const prompt = model.prompt("Q:");
  expect(() => reach(model, prompt, [zero("resid_post.99", 0)])).toThrow(SiteError);
  expect(() => reach(model, prompt, [zero("resid_post.0", 99)])).toThrow(PromptError);
});
