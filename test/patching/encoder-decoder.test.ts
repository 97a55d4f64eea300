import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { argmax } from "../../src/kernels/reduction/reduce.ts";
import { hashPrompts, type Prompt } from "../../src/model/prompt/prompt.ts";
import { siteInfo, siteNames } from "../../src/model/walk/site-info.ts";
import { parseSite, type SiteName } from "../../src/model/walk/sites.ts";
import { addVector, type Edit, scale, set, zero } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { resume, type Variant } from "../../src/patching/resume.ts";
import { rowLayersOf } from "../../src/patching/row-layers.ts";
import { tap } from "../../src/patching/tap.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, expectSame, largest, randomArray } from "../helpers/compare.ts";
import { fullRuns } from "../helpers/full-runs.ts";
import { fixtureModel, randomIds, readAll } from "../helpers/model.ts";

// Encoder-decoders: the encoder reads the prompt, the layers without prefix are the decoder's. Edits in either are as in a
// full run, in resumed runs and in generation.

const CLOSE = { atol: 1e-5, rtol: 1e-5 };

const KINDS = ["set", "add", "scale", "zero"] as const;

interface Drawn {
  readonly site: number;
  readonly kind: (typeof KINDS)[number];
  readonly position: number;
  readonly seed: number;
}

/** Length of what a site's rows, and the keys of its pattern, are positions of. */
function extentsOf(model: PatchableModel, prompt: Prompt, site: SiteName): { rows: number; keys: number } {
  const { sequences, keySequences } = siteInfo(model.sites, site);
  const answered = 1 + (prompt.answer?.length ?? 0);
  const rows = sequences === "sources" ? prompt.length : answered;
  return { rows, keys: keySequences === "sources" ? prompt.length : rows };
}

function drawnEdit(model: PatchableModel, prompt: Prompt, { site: n, kind, position, seed }: Drawn): Edit {
  const sites = siteNames(model.sites);
  const site = sites[n % sites.length]!;
  const { features, order } = siteInfo(model.sites, site);
  const { rows, keys } = extentsOf(model, prompt, site);
  // Of the head only the last position is computed in a resumed run, as in a plain one.
  const at = order === model.config.layers ? rows - 1 : position % rows;
  const value = randomArray(features ?? keys, seed, 2);
  if (kind === "set") return set(site, at, value);
  if (kind === "add") return addVector(site, at, value);
  return kind === "scale" ? scale(site, at, -1.5) : zero(site, at);
}

describe.each(["t5", "t5-relu-tied"])("%s", (name) => {
  let model: PatchableModel;
  let prompts: Prompt[];
  beforeAll(async () => {
    model = await fixtureModel(name);
    // Prompts and answers of several lengths, one longer than the distances that have buckets of their own; one without answer.
    prompts = [
      [12, 4],
      [31, 28],
      [5, 0],
    ].map(([length, answered], i) =>
      model.promptFromIds(randomIds(length!, i), [], randomIds(answered!, i + 10)),
    );
  });

  async function full({ prompt = 0, edits }: Variant): Promise<Float32Array> {
    const result = model.run(prompts[prompt]!, { edits });
    return (await readAll({ logits: result.logits })).logits;
  }

  test("a walk shows every site once, in order, and ends in the logits", async () => {
    const seen: string[] = [];
    const walk = model.walk(prompts[0]!);
    let step = walk.next();
    for (; !step.done; step = walk.next()) seen.push(step.value.site);
    expect(seen).toEqual(siteNames(model.sites));
    expect(seen).toContain("encoder.embed");
    expect(seen.indexOf("xattn_in.0")).toBe(seen.indexOf("resid_mid.0") + 1);
    expect(seen.indexOf("mlp_in.0")).toBe(seen.indexOf("xresid_mid.0") + 1);
    const { logits } = await readAll({ logits: step.value });
    expectClose(logits, await full({ edits: [] }), CLOSE);
  });

  test("self-attention, cross-attention and MLP add their outputs; its pattern mixes the encoder's values", async () => {
    const sites = [
      "resid_pre",
      "attn_out",
      "resid_mid",
      "xattn_out",
      "xresid_mid",
      "mlp_out",
      "resid_post",
    ] as const;
    const more = ["xattn_pattern", "xattn_v", "xattn_z"] as const;
    const taps = Object.fromEntries([...sites, ...more].map((site) => [site, tap(`${site}.1`)]));
    const { logits, ...tapped } = model.run(prompts[0]!, { taps });
    logits?.dispose();
    const a = (await readAll(tapped as Record<string, Tensor>)) as Record<
      (typeof sites)[number] | (typeof more)[number],
      Float32Array
    >;
    const sum = (x: Float32Array, y: Float32Array) => x.map((value, i) => value + y[i]!);
    expectClose(sum(a.resid_pre, a.attn_out), a.resid_mid, CLOSE);
    expectClose(sum(a.resid_mid, a.xattn_out), a.xresid_mid, CLOSE);
    expectClose(sum(a.xresid_mid, a.mlp_out), a.resid_post, CLOSE);
    expect(() => expectClose(sum(a.resid_mid, a.attn_out), a.xresid_mid, CLOSE)).toThrow();
    const { heads, headDim } = model.config;
    const [rows, keys] = [5, 12];
    const mixed = (shift: number) =>
      Float32Array.from({ length: rows * heads * headDim }, (_, i) => {
        const [row, column] = [Math.floor(i / (heads * headDim)), i % (heads * headDim)];
        const head = Math.floor(column / headDim);
        let total = 0;
        for (let key = 0; key < keys; key++) {
          const weight = a.xattn_pattern[(head * rows + row) * keys + key]!;
          total += weight * a.xattn_v[((key + shift) % keys) * heads * headDim + column]!;
        }
        return total;
      });
    expectClose(mixed(0), a.xattn_z, CLOSE);
    expect(() => expectClose(mixed(1), a.xattn_z, CLOSE)).toThrow();
  });

  test("a batch gives what its prompts give alone", async () => {
    const taps = {
      encoded: tap("encoder.final_norm"),
      across: tap("xattn_pattern.1"),
      end: tap("resid_post.1", -1),
    };
    const { logits, encoded, across, end } = model.run(prompts, { taps });
    const together = await readAll({ logits: logits as Tensor, end });
    for (const [i, prompt] of prompts.entries()) {
      const alone = await readAll(model.run(prompt, { taps }));
      const own = await readAll({ encoded: encoded[i], across: across[i] });
      expectClose(own.encoded, alone.encoded, CLOSE);
      expectClose(own.across, alone.across, CLOSE);
      expectSame(together.end.slice(i * 48, (i + 1) * 48), alone.end, "end");
      const { vocab } = model.config;
      expectSame(together.logits.slice(i * vocab, (i + 1) * vocab), alone.logits, "logits");
    }
  });

  test("resumed runs give what full runs give, for any edits of any variants of any prompts", async () => {
    using recording = model.record(prompts);
    const editArbitrary = fc.record({
      site: fc.nat(),
      kind: fc.constantFrom(...KINDS),
      position: fc.nat(),
      seed: fc.nat(),
    });
    const variantArbitrary = fc.record({
      prompt: fc.nat({ max: 2 }),
      drawn: fc.array(editArbitrary, { minLength: 1, maxLength: 3 }),
    });
    const { vocab } = model.config;
    await fc.assert(
      fc.asyncProperty(fc.array(variantArbitrary, { minLength: 1, maxLength: 4 }), async (drawn) => {
        const variants = drawn.map(({ prompt, drawn }) => ({
          prompt,
          edits: drawn.map((d) => drawnEdit(model, prompts[prompt]!, d)),
        }));
        const { logits, rowLayers } = resume(recording, variants);
        const found = (await readAll({ logits })).logits;
        const expected = await fullRuns(model, prompts, variants);
        for (const [i, variant] of variants.entries()) {
          const label = `variant ${i}: ${variant.edits.map((e) => `${e.operation} ${e.site}`).join(", ")}`;
          expectSame(found.slice(i * vocab, (i + 1) * vocab), expected[i]!, label);
        }
        const each = variants.map(({ prompt }) => rowLayersOf(model, prompts[prompt]!));
        expect(rowLayers).toBeLessThanOrEqual(each.reduce((sum, n) => sum + n, 0));
      }),
      { numRuns: 40 },
    );
  });

  test("every site has an effect, the same in full and in resumed runs", async () => {
    using recording = model.record(prompts);
    const { vocab } = model.config;
    const unpatched = await full({ edits: [] });
    const variants = siteNames(model.sites).map((site, n): Variant => {
      const { rows } = extentsOf(model, prompts[0]!, site);
      return {
        edits: [drawnEdit(model, prompts[0]!, { site: n, kind: "add", position: rows - 1, seed: n })],
      };
    });
    const found = (await readAll({ logits: resume(recording, variants).logits })).logits;
    const expected = await fullRuns(model, prompts, variants);
    const without: string[] = [];
    for (const [i, variant] of variants.entries()) {
      const own = found.slice(i * vocab, (i + 1) * vocab);
      expectSame(own, expected[i]!, variant.edits[0]!.site);
      const effect = largest(own.map((x, j) => x - unpatched[j]!));
      if (effect < 1e-3 * largest(unpatched)) without.push(variant.edits[0]!.site);
    }
    expect(without).toEqual([]);
  });

  test("an edit in the encoder reaches all of the decoder, one in the decoder its later positions", async () => {
    using recording = model.record(prompts);
    const cost = (...edits: Edit[]) => {
      const { logits, rowLayers } = resume(recording, [{ prompt: 0, edits }]);
      logits.dispose();
      return rowLayers;
    };
    const { layers, encoder } = model.config;
    const encoders = prompts.map(({ length }) => length * encoder!.layers);
    expect(recording.rowLayers).toBe((5 + 29 + 1) * layers + encoders.reduce((sum, n) => sum + n, 0));
    expect(cost(zero("encoder.resid_post.0", -1))).toBe(5 * layers + encoders[0]!);
    expect(cost(zero("encoder.final_norm", 0))).toBe(5 * layers + encoders[0]!);
    expect(cost(zero(`xattn_v.${layers - 1}`, 3))).toBe(5);
    expect(cost(zero("xattn_out.0", 3))).toBe(2 * layers);
    expect(cost(zero("resid_post.0", -1))).toBe(layers - 1);
    const taps = { rows: tap("resid_post.1") };
    const rowsOf = async (edits: Edit[]) => (await readAll(model.run(prompts[0]!, { edits, taps }))).rows;
    const plain = await rowsOf([]);
    const changed = (rows: Float32Array) =>
      [0, 1, 2, 3, 4].filter((row) =>
        rows.slice(row * 48, row * 48 + 48).some((x, i) => x !== plain[row * 48 + i]),
      );
    expect(changed(await rowsOf([zero("encoder.resid_post.0", -1)]))).toEqual([0, 1, 2, 3, 4]);
    expect(changed(await rowsOf([zero("xattn_out.0", 3)]))).toEqual([3, 4]);
  });

  test("variants that change the encoder and others share a resumed run and its taps", async () => {
    using recording = model.record(prompts);
    const variants: Variant[] = [
      { prompt: 0, edits: [scale("encoder.resid_pre.1", 2, -2)] },
      { prompt: 0, edits: [zero("resid_mid.0", 0)] },
      {
        prompt: 1,
        edits: [addVector("xattn_k.0", 7, randomArray(model.config.heads * model.config.headDim, 3))],
      },
    ];
    const taps = { across: tap("xattn_pattern.1", -1), z: tap("xattn_z.1", -1) };
    const { across, z, logits } = resume(recording, variants, { taps });
    logits.dispose();
    const stacked = await readAll({ z });
    for (const [i, { prompt, edits }] of variants.entries()) {
      const { logits, ...expected } = model.run(prompts[prompt!]!, { edits, taps });
      logits?.dispose();
      const values = await readAll(expected);
      expectClose((await readAll({ across: across[i] })).across, values.across, CLOSE);
      const width = values.z.length;
      expectClose(stacked.z.slice(i * width, (i + 1) * width), values.z, CLOSE);
    }
  });

  test("generation with edits is that of recomputing the answer so far", async () => {
    const inner = model.config.heads * model.config.headDim;
    const early = [
      addVector("encoder.resid_post.0", 3, randomArray(48, 1)),
      addVector("xattn_v.1", 2, randomArray(inner, 2)),
      addVector("resid_post.0", 0, randomArray(48, 3)),
    ];
    const late = addVector("resid_mid.1", 2, randomArray(48, 4), { scale: 3 });
    const prompt = model.promptFromIds(randomIds(14, 3));
    const options = { maxNewTokens: 5, stopIds: [] };
    const { ids, unfired } = await model.generate(prompt, { ...options, edits: [...early, late] });
    expect(unfired).toEqual([]);
    for (let step = 0; step < 5; step++) {
      const given = model.promptFromIds(prompt.ids, [], ids.slice(0, step));
      using logits = model.run(given, { edits: step >= 2 ? [...early, late] : early }).logits!;
      using id = argmax(logits, -1);
      expect(ids[step]).toBe(await id.item());
    }
    const plain = await model.generate(prompt, options);
    expect(plain.ids).not.toEqual(ids);
    // An answer is gone on with, in batches and beside other generations too.
    const begun = model.promptFromIds(prompt.ids, [], plain.ids.slice(0, 2));
    const [rest, batch] = await Promise.all([
      model.generate(begun, { maxNewTokens: 3, stopIds: [] }),
      model.generate([prompts[0]!, prompt], options),
    ]);
    expect(rest.ids).toEqual(plain.ids.slice(2));
    expect(batch[1]!.ids).toEqual(plain.ids);
  });

  test("positions are those of what a stack reads", async () => {
    const parts = ["Where is ", { text: "Paris", name: "x" }, "?"];
    const prompt = model.prompt(parts, { answer: ["in ", { text: "France", name: "y" }] });
    const taps = {
      x: tap("encoder.embed", { span: "x" }),
      y: tap("embed", { span: "y" }),
      all: tap("embed"),
    };
    const { x, y, all, logits } = model.run(prompt, { taps });
    expect(x.dim(0)).toBe(prompt.span("x").end - prompt.span("x").start);
    expect(y.dim(0)).toBe(prompt.answer!.length - prompt.answer!.span("y").start);
    expect(all.dim(0)).toBe(1 + prompt.answer!.length);
    for (const t of [x, y, all, logits!]) t.dispose();
    expect(() => model.run(prompt, { taps: { a: tap("embed", { span: "x" }) } })).toThrow(
      /no span "x"; it has y/,
    );
    expect(() => model.run(prompt, { edits: [zero("encoder.embed", prompt.length)] })).toThrow(/position/);
    expect(() => model.run(prompt, { edits: [zero("vision.embed", 0)] })).toThrow(
      /this model has no vision tower/,
    );
    expect(() => model.run(prompt, { edits: [zero("xattn_gate.0", 0)] })).toThrow(/has no gate/);
    expect(() => model.run(prompt, { edits: [set("xattn_pattern.0", 0, [1])] })).toThrow(
      /expected values for/,
    );
  });
});

test.each([
  ["encoder.block.1.layer.0.SelfAttention.q", "encoder.q.1"],
  ["decoder.block.1.layer.1.EncDecAttention", "xattn_out.1"],
  ["decoder.block.0.layer.2.DenseReluDense.wo.input", "mlp_act.0"],
  ["decoder.1.hook_resid_mid_cross", "xresid_mid.1"],
  ["encoder.2.attn.hook_pattern", "encoder.pattern.2"],
  ["encoder.final_layer_norm", "encoder.final_norm"],
])("%s is called %s here", (name, site) => {
  expect(() => parseSite(name)).toThrow(`it is called "${site}" here`);
  expect(parseSite(site).site).toBeDefined();
});

test("a hash of prompts tells their answers apart", async () => {
  const model = await fixtureModel("t5");
  const hashes = [[], [7], [8]].map((answer) => hashPrompts([model.promptFromIds([5, 6], [], answer)]));
  expect(new Set(hashes).size).toBe(3);
});

test("a model without encoder takes no answer beside the prompt", async () => {
  const llama = await fixtureModel("llama");
  expect(() => llama.prompt("Q:", { answer: "A" })).toThrow(/no encoder.*found "A"/);
  expect(() => llama.promptFromIds([5, 6], [], [7])).toThrow(/no encoder/);
  expect(() => llama.run(llama.prompt("Q:"), { edits: [zero("encoder.embed", 0)] })).toThrow(
    /has no encoder of text/,
  );
});
