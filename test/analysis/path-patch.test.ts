import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { HEAD_OF, LAYER_OF } from "../../scripts/known-circuit/circuit.ts";
import { type PathPatchOptions, pathPatch } from "../../src/analysis/maps/path-patch.ts";
import { sub } from "../../src/kernels/elementwise/elementwise.ts";
import { addVector, set } from "../../src/patching/edit.ts";
import { logitDifference } from "../../src/patching/metric.ts";
import { tap } from "../../src/patching/tap.ts";
import { expectClose } from "../helpers/compare.ts";
import { examplesOf, loadVariant, prompt } from "../helpers/known-circuit.ts";
import { fixtureModel, randomIds } from "../helpers/model.ts";

const METRIC = logitDifference(30, 40);

async function setUp(name: string) {
  const model = await fixtureModel(name);
  const ids = randomIds(7, 5);
  return {
    model,
    clean: model.promptFromIds(ids),
    corrupted: model.promptFromIds(ids.with(4, ids[4]! + 1)),
  };
}

describe.each(["llama-gqa-tied", "gemma2", "gpt2", "gpt_neox"])("%s", (name) => {
  // With all else frozen the stream behind the sender is the patched prompt's, and what the sender adds to it.
  test("a path leads the sender's own change to the receivers, and nothing else", async () => {
    const { model, clean, corrupted } = await setUp(name);
    const last = model.config.layers - 1;
    const { z } = model.run(clean, { taps: { z: tap("z.0", "all", { head: 1 }) } });
    const sent = model.run(corrupted, {
      taps: { out: tap("attn_out.0") },
      edits: [set("z.0", "all", z, { head: 1 })],
    });
    const { out } = model.run(corrupted, { taps: { out: tap("attn_out.0") } });
    const change = sub(sent.out, out);
    const from = { site: "z.0", head: 1 } as const;
    const metricOf = async (edits: ReturnType<typeof set>[]) => {
      const logits = await model.run(corrupted, { edits }).logits!.read();
      return logits[30]! - logits[40]!;
    };

    const direct = await pathPatch(model, clean, corrupted, {
      from,
      to: [{ site: "final_norm" }],
      metric: METRIC,
    });
    const wanted = await metricOf([addVector(`resid_post.${last}`, "all", change)]);
    expectClose([direct.value], [wanted], { atol: 2e-5, rtol: 1e-4 });
    expect(Math.abs(direct.effect)).toBeGreaterThan(1e-3);

    const { q, v } = model.run(corrupted, {
      taps: { q: tap(`q.${last}`, [-2, -1], { head: 2 }), v: tap(`v.${last}`) },
      edits: [addVector(`resid_pre.${last}`, "all", change)],
    });
    const heads = await pathPatch(model, clean, corrupted, {
      from,
      to: [{ site: `q.${last}`, head: 2, at: [-2, -1] }, { site: `v.${last}` }],
      metric: METRIC,
    });
    const expected = await metricOf([set(`q.${last}`, [-2, -1], q, { head: 2 }), set(`v.${last}`, "all", v)]);
    expectClose([heads.value], [expected], { atol: 2e-5, rtol: 1e-4 });
  });

  test("from the embedding to the first layer's norms there is nothing between", async () => {
    const { model, clean, corrupted } = await setUp(name);
    for (const direction of ["denoising", "noising"] as const) {
      const options = { from: { site: "embed" }, to: [{ site: "resid_pre.0" }], direction } as const;
      const whole = await pathPatch(model, clean, corrupted, { ...options, metric: METRIC });
      expectClose([whole.effect], [1], { atol: 1e-3, rtol: 0 });
    }
  });
});

test("in the known circuit paths have effects where they are built, and nowhere else", async () => {
  const model = await loadVariant("model");
  const [clean, corrupted] = [0, 1].map((t) => prompt(model, "Boravia", examplesOf(t, "Boravia")));
  const effect = async (options: PathPatchOptions) => {
    const { effect } = await pathPatch(model, clean!, corrupted!, options);
    return Math.round(20 * effect) / 20 || 0;
  };
  const [layer, head] = HEAD_OF.gather;
  const gather = { site: `z.${layer}`, head } as const;
  const apply = { site: `mlp_in.${LAYER_OF.apply}` } as const;
  // The task goes from the head that gathers it to the MLP that looks up.
  expect(await effect({ from: gather, to: [{ ...apply, at: -1 }] })).toBe(1);
  expect(await effect({ from: gather, to: [{ ...apply, at: -2 }] })).toBe(0);
  expect(
    await effect({ from: gather, to: [{ site: `q.${HEAD_OF.fetch[0]}`, head: HEAD_OF.fetch[1] }] }),
  ).toBe(0);
  expect(await effect({ from: gather, to: [{ site: `mlp_in.${LAYER_OF.apply - 1}` }] })).toBe(0);
  // To the end it goes by way of that MLP alone.
  expect(await effect({ from: gather, to: [{ site: "final_norm" }] })).toBe(0);
  expect(await effect({ from: gather, to: [{ site: "final_norm" }], freeze: "attention" })).toBe(1);
  expect(await effect({ from: { ...gather, head: 1 }, to: [apply] })).toBe(0);
  // Which task an answer shows, the first MLP tells what that head gathers, not where it looks nor the MLP that looks up.
  const bind = { site: `mlp_out.${LAYER_OF.bind}` } as const;
  expect(await effect({ from: bind, to: [{ site: `v.${layer}`, head }] })).toBe(1);
  expect(await effect({ from: bind, to: [{ site: `q.${layer}`, head }] })).toBe(0);
  expect(await effect({ from: bind, to: [apply] })).toBe(0);
});

test("prints, is data and leaves no memory behind", async () => {
  const { model, clean, corrupted } = await setUp("llama");
  const options = {
    from: { site: "mlp_out.0" },
    to: [{ site: "q.2", head: 1, at: -1 }],
    metric: METRIC,
  } as const;
  const path = await pathPatch(model, clean, corrupted, options);
  expect(inspect(path)).toMatch(
    /^logit of .*\nmlp_out\.0, all positions → q\.2, head 1, position -1 \(denoising\): /,
  );
  expect(JSON.parse(JSON.stringify(path)).value).toBe(path.value);
  const before = model.device.memory.liveBytes;
  await pathPatch(model, clean, corrupted, options);
  expect(model.device.memory.liveBytes).toBe(before);
});

test.each<[string, object, RegExp]>([
  [
    "senders that do not write into the stream",
    { from: { site: "q.0" } },
    /a sender that writes .*, found q\.0/,
  ],
  ["receivers that are frozen", { to: [{ site: "z.2", head: 0 }] }, /receivers that read .*, found z\.2/],
  [
    "receivers before the sender",
    { from: { site: "mlp_out.1" } },
    /behind the sender mlp_out\.1, found q\.1/,
  ],
  ["whole patterns", { to: [{ site: "pattern.1" }] }, /pattern\.1 is received head by head; name a head/],
  ["no receivers", { to: [] }, /to to be at least one receiver/],
  [
    "heads that there are not",
    { to: [{ site: "q.1", head: 9 }] },
    /expected a head from 0 to 3, found head 9/,
  ],
  ["sites of other models", { from: { site: "vision.z.0" } }, /vision\.z\.0: this model has no vision tower/],
  ["options that there are not", { form: 1 }, /has no "form"; the nearest is "from"/],
])("refuses %s", async (_, change, message) => {
  const { model, clean, corrupted } = await setUp("llama");
  const options = { from: { site: "z.0" }, to: [{ site: "q.1" }], metric: METRIC, ...change };
  await expect(pathPatch(model, clean, corrupted, options as never)).rejects.toThrow(message);
});
