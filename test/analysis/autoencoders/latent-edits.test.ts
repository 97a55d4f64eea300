import { describe, expect, test } from "vitest";
import {
  ArgumentError,
  ablateLatents,
  addToLatents,
  addVector,
  type Edit,
  loadSparseAutoencoder,
  logitDifference,
  reach,
  resume,
  SiteError,
  scaleLatents,
  set,
  setLatents,
  tap,
} from "../../../src/index.ts";
import { expectClose, randomArray } from "../../helpers/compare.ts";
import { fixtureModel, randomIds } from "../../helpers/model.ts";
import { ruleWeights, saeFolder } from "../../helpers/sae.ts";

const CLOSE = { atol: 2e-5, rtol: 2e-5 };
const LATENTS = 64;
const model = await fixtureModel("llama");
const { width } = model.config;
const [prompt, other] = [8, 11].map((n) => model.promptFromIds(randomIds(n, n)));

async function saeAt(hook: string, architecture = "standard", own: object = {}) {
  const cfg = {
    ...{ architecture, d_in: width, d_sae: LATENTS, ...own },
    metadata: { sae_lens_version: "6.54.12", hook_name: hook },
  };
  const folder = await saeFolder(cfg, ruleWeights(architecture, width, LATENTS));
  return loadSparseAutoencoder(folder, { device: model.device });
}

const sae = await saeAt("blocks.1.hook_resid_post");
const topk = await saeAt("blocks.1.hook_resid_post", "topk", { k: 9, normalize_activations: "layer_norm" });

/** x and its latents at the site, by position. */
async function seen(at = sae) {
  const { x } = model.run(prompt!, { taps: { x: tap(at.site) } });
  const latents = at.encode(x as never);
  return { x: await x.read(), f: (await latents.read()) as Float32Array };
}

/** The latent that is most active at the last position. */
async function mostActive(at = sae): Promise<number> {
  const { f } = await seen(at);
  const last = [...f.subarray(f.length - LATENTS)];
  return last.indexOf(Math.max(...last));
}

test("each operation adds the change of the latents times their directions, and keeps the rest", async () => {
  const { x, f } = await seen();
  const W = await sae.weights.W_dec.read();
  const [i, j] = [await mostActive(), 5];
  const cases: [Edit, (f: number, which: number) => number][] = [
    [setLatents(sae, [i, j], [2, -1], [3, -1]), (_, which) => [3, -1][which]!],
    [setLatents(sae, [i, j], [2, -1], 2), () => 2],
    [addToLatents(sae, [i, j], [2, -1], 1.5), (own) => own + 1.5],
    [scaleLatents(sae, [i, j], [2, -1], [2, -3]), (own, which) => own * [2, -3][which]!],
    [ablateLatents(sae, [i, j], [2, -1]), () => 0],
  ];
  for (const [edit, becomes] of cases) {
    const { y } = model.run(prompt!, { taps: { y: tap(sae.site) }, edits: [edit] });
    const expected = x.map((value, k) => {
      const [position, column] = [Math.floor(k / width), k % width];
      if (position !== 2 && position !== prompt!.last) return value;
      return [i, j].reduce((sum, latent, which) => {
        const own = f[position * LATENTS + latent]!;
        return sum + (becomes(own, which) - own) * W[latent * width + column]!;
      }, value);
    });
    expectClose(await y.read(), expected, CLOSE);
  }
});

test("an edit that changes no latent changes nothing", async () => {
  const plain = await model.run(prompt!).logits!.read();
  for (const each of [sae, topk]) {
    const edits = [scaleLatents(each, [1, 2, 3], "all", 1), addToLatents(each, 4, "all", 0)];
    expectClose(await model.run(prompt!, { edits }).logits!.read(), plain, { atol: 1e-5, rtol: 1e-5 });
  }
});

test("set latents are what is read of the edited activation, where directions are the encoder's own", async () => {
  // W_enc a one: what is written along a latent's direction is what the encoder reads there.
  const eye = Float32Array.from({ length: width * width }, (_, k) =>
    Math.floor(k / width) === k % width ? 1 : 0,
  );
  const weights = new Map([
    ["W_enc", { shape: [width, width], values: eye }],
    ["W_dec", { shape: [width, width], values: eye }],
    ["b_enc", { shape: [width], values: new Float32Array(width) }],
    ["b_dec", { shape: [width], values: new Float32Array(width) }],
  ]);
  const metadata = { sae_lens_version: "6.54.12", hook_name: "blocks.0.hook_mlp_out" };
  const cfg = { architecture: "standard", d_in: width, d_sae: width, metadata };
  using plain = await loadSparseAutoencoder(await saeFolder(cfg, weights), { device: model.device });
  const edits = [setLatents(plain, [3, 7], -1, [4, 0.5])];
  const { y } = model.run(prompt!, { taps: { y: tap("mlp_out.0", [-1]) }, edits });
  const f = await plain.encode(y as never).read();
  // What was below 0 keeps the part that no latent says.
  const before = await model.run(prompt!, { taps: { y: tap("mlp_out.0", -1) } }).y.read();
  for (const [latent, value] of [
    [3, 4],
    [7, 0.5],
  ] as const) {
    expect(f[latent]).toBeCloseTo(value + Math.min(0, before[latent]!), 5);
  }
});

describe.each([
  ["standard", sae],
  ["topk", topk],
] as const)("%s", (_, each) => {
  test("resumed runs, batches and generation give what single full runs give", async () => {
    const latent = await mostActive(each);
    const edit = (at: number) => setLatents(each, latent, at, 6);
    using recording = model.record([prompt!, other!]);
    const variants = [
      { prompt: 0, edits: [edit(3)] },
      { prompt: 1, edits: [edit(-1)] },
      { prompt: 0, edits: [edit(5), ablateLatents(each, [1, 2], -1)] },
    ];
    const { logits, rowLayers } = resume(recording, variants);
    expect(rowLayers).toBe(5 + 1 + 3); // of the last layer alone
    const full = await Promise.all(
      variants.map(({ prompt: p, edits }) => model.run([prompt!, other!][p]!, { edits }).logits!.read()),
    );
    expectClose(
      await logits.read(),
      full.flatMap((own) => [...own]),
      CLOSE,
    );

    const options = { maxNewTokens: 3, stopIds: [], edits: [setLatents(each, latent, 8, 40), edit(-1)] };
    const [alone, together] = [
      await model.generate(prompt!, options),
      (
        await model.generate([prompt!, other!], {
          ...options,
          edits: options.edits.map((e) => ({ ...e, prompt: 0 })),
        })
      )[0]!,
    ];
    expect(together.ids).toEqual(alone.ids);
    const replayed = model.promptFromIds([...prompt!.ids, ...alone.ids.slice(0, 2)]);
    const at8 = await model
      .run(replayed, { edits: [setLatents(each, latent, 8, 40), edit(7)] })
      .logits!.read();
    expect(at8.indexOf(Math.max(...at8))).toBe(alone.ids[2]);
  });
});

test("it can reach what any edit of its site can", () => {
  const edit = setLatents(sae, 3, 4, 1);
  expect(reach(model, prompt!, [edit])).toEqual(
    reach(model, prompt!, [set(sae.site, 4, Array(width).fill(0))]),
  );
});

test("gradients go through it", async () => {
  const edits = [scaleLatents(sae, [await mostActive(), 5], "all", 3), setLatents(topk, [2, 9], -1, 1)];
  const metric = logitDifference(30, 40);
  const { gradients } = model.gradients(prompt!, metric, { edits, of: "resid_post.0", at: -1 });
  const slope = await gradients["resid_post.0"].read();
  const direction = randomArray(width, 3);
  const along = slope.reduce((sum, g, i) => sum + g * direction[i]!, 0);
  const at = async (step: number) => {
    const own = [addVector("resid_post.0", -1, direction, { scale: step }), ...edits];
    const logits = await model.run(prompt!, { edits: own }).logits!.read();
    return logits[30]! - logits[40]!;
  };
  const step = 2e-3;
  expect(((await at(step)) - (await at(-step))) / (2 * step) / along).toBeCloseTo(1, 1);
});

test("what is no latent, and models of another width, are refused", async () => {
  expect(() => setLatents(sae, 64, -1, 1)).toThrow(
    /setLatents: expected latents from 0 to 63, each once, found 64/,
  );
  expect(() => setLatents(sae, [], -1, 1)).toThrow(/found none/);
  expect(() => setLatents(sae, [1, 2], -1, [1])).toThrow(/expected 2 numbers, one for each latent, found 1/);
  expect(() => setLatents(sae, 1, -1, "3" as never)).toThrow(ArgumentError);
  expect(() => setLatents(model as never, 1, -1, 3)).toThrow(/sae to be a SparseAutoencoder/);
  using wide = await saeAt("blocks.1.mlp.hook_post");
  expect(() => wide.check(model)).toThrow(SiteError);
  expect(() => wide.check(model)).toThrow(/a model whose mlp_act\.1 is 48 wide \(d_in\), found \d+/);
  expect(() => model.run(prompt!, { edits: [setLatents(wide, 1, -1, 3)] })).toThrow(
    /takes \[rows, 48\], found/,
  );
  sae.check(model);
});
