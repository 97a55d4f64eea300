import { beforeAll, describe, expect, test } from "vitest";
import { ArgumentError, PromptError, SiteError } from "../../src/errors.ts";
import { Tape } from "../../src/gradient/tape.ts";
import { add, mul, square, sub } from "../../src/kernels/elementwise/elementwise.ts";
import { sum } from "../../src/kernels/reduction/reduce.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import { RowMap } from "../../src/model/walk/row-map.ts";
import { Sites, type Walk } from "../../src/model/walk/site-events.ts";
import { siteInfo, siteNames } from "../../src/model/walk/site-info.ts";
import type { SiteName } from "../../src/model/walk/sites.ts";
import { drive, scoped } from "../../src/model/walk/walk.ts";
import { addVector, scale, set, zero } from "../../src/patching/edit.ts";
import { klDivergence, logitDifference, logProbability } from "../../src/patching/metric.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { resolveTaps } from "../../src/patching/resolve-taps.ts";
import { nextTokenLoss } from "../../src/patching/run-metric.ts";
import { batchOf } from "../../src/patching/site-targets.ts";
import { gradient, tap } from "../../src/patching/tap.ts";
import { Watcher } from "../../src/patching/watcher.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, largest, randomArray } from "../helpers/compare.ts";
import { fixtureModel, randomIds, readAll } from "../helpers/model.ts";

// What gradients are is compared with PyTorch by test/parity. Here: what may be asked for, and that it means the same however it is asked.

const METRIC = logitDifference(301, 40);

let model: PatchableModel;
let prompt: Prompt;
beforeAll(async () => {
  model = await fixtureModel("llama");
  prompt = model.promptFromIds(randomIds(9, 1));
});

const numbers = async (tensor: Tensor) => (await tensor.read()) as Float32Array;

/** By how much the metric changes when a direction is added to a site, by central differences. */
async function slope(
  site: SiteName,
  at: number,
  direction: Float32Array,
  edits: Parameters<typeof measured>[0] = [],
) {
  const step = 2e-2;
  const value = async (factor: number) =>
    (await measured([...edits, addVector(site, at, direction, { scale: factor })]))[0]!;
  return ((await value(step)) - (await value(-step))) / (2 * step);
}

async function measured(edits: NonNullable<Parameters<PatchableModel["run"]>[1]>["edits"] = []) {
  const logits = await numbers(model.run(prompt, { edits: edits! }).logits!);
  return [logits[301]! - logits[40]!];
}

describe("of sites", () => {
  test("every site of the model has one, in the shape of its tap", async () => {
    const sites = siteNames(model.sites);
    const { gradients } = model.gradients(prompt, METRIC, { of: sites });
    const { x } = model.run(prompt, { taps: { x: tap(sites) } });
    expect(Object.keys(gradients)).toEqual(sites);
    for (const site of sites) expect(gradients[site]!.shape, site).toEqual(x[site]!.shape);
    const values = await model.device.read(sites.map((site) => gradients[site]!));
    const without = sites.filter((_, i) => largest(values[i]!) === 0);
    expect(without).toEqual([]);
  });

  test("is the slope of the metric along any direction, behind edits as well", async () => {
    const edits = [scale("resid_post.0", 3, 1.5), zero("z.1", 5, { head: 1 })];
    for (const before of [[], edits]) {
      for (const [site, at] of [
        ["resid_pre.1", 2],
        ["attn_in.2", -1],
        ["q.1", -1],
        ["mlp_act.0", 4],
      ] as const) {
        const { features } = siteInfo(model.sites, site);
        const direction = randomArray(features!, 7);
        const { gradients } = model.gradients(prompt, METRIC, { of: site, at, edits: before });
        const found = (await numbers(gradients[site])).reduce((total, g, i) => total + g * direction[i]!, 0);
        const expected = await slope(site, at, direction, before);
        expect(Math.abs(found - expected), `${site}: ${found} and ${expected}`).toBeLessThan(
          2e-3 * Math.max(1, Math.abs(expected)),
        );
      }
    }
  });

  test("what an attention or an MLP reads is not what the residual stream carries on", async () => {
    const { gradients } = model.gradients(prompt, METRIC, {
      of: ["resid_pre.2", "attn_in.2", "attn_out.2", "resid_mid.2"],
    });
    const { resid_pre, attn_in, attn_out, resid_mid } = await readAll({
      resid_pre: gradients["resid_pre.2"],
      attn_in: gradients["attn_in.2"],
      attn_out: gradients["attn_out.2"],
      resid_mid: gradients["resid_mid.2"],
    });
    expect(attn_out).toEqual(resid_mid);
    expect(largest(attn_in.map((x, i) => x - resid_pre[i]!))).toBeGreaterThan(0.1 * largest(resid_pre));
  });

  test("an activation that lies in the residual stream's own memory counts only what goes through its site", async () => {
    // As in a block whose attention reads the stream without a norm.
    const { device } = model;
    const width = siteInfo(model.sites, "attn_in.0").features!;
    const found = device.scope(() => {
      using tape = new Tape(device);
      const taps = { g: gradient("attn_in.0") };
      const watcher = new Watcher(
        [],
        resolveTaps(taps, model.sites, batchOf([prompt], undefined), true),
        tape,
      );
      const sites = new Sites((site) => watcher.uses(site), RowMap.packed([9]), { layer: 0 });
      function* block(): Walk<Tensor> {
        const x = device.tensor(randomArray(9 * width, 1), { shape: [9, width] });
        return add(x, mul(yield* sites.pass("attn_in", x), 2));
      }
      tape.backward(tape.record(() => sum(drive(scoped(device, block), watcher))));
      watcher.takeGradients();
      return watcher.finish()["g"] as Tensor;
    });
    expect(await numbers(found)).toEqual(new Float32Array(9 * width).fill(2));
  });

  test("a set activation has the gradient of its value, and what was there has none", async () => {
    const value = model.device.tensor(randomArray(48, 3));
    const { gradients, tensors } = model.gradients(prompt, METRIC, {
      edits: [set("resid_post.1", 4, value)],
      tensors: { value },
      of: ["resid_post.1", "mlp_out.1"],
      at: 4,
    });
    const found = await readAll({
      value: tensors.value,
      post: gradients["resid_post.1"],
      out: gradients["mlp_out.1"],
    });
    expect(found.value).toEqual(found.post);
    expect(largest(found.post)).toBeGreaterThan(0);
    expect(largest(found.out)).toBe(0);
  });

  test("one head of z, and patterns head by head", async () => {
    const { a, gradients, p } = model.gradients(prompt, METRIC, {
      taps: { a: gradient("z.1", -1, { head: 2 }), p: gradient("pattern.1", -1, { head: 2 }) },
      of: ["z.1", "pattern.1"],
      at: -1,
    });
    const found = await readAll({ a, p, z: gradients["z.1"], pattern: gradients["pattern.1"] });
    expect(found.a).toEqual(found.z.slice(24, 36));
    expect(found.p).toEqual(found.pattern.slice(2 * 9, 3 * 9));
  });

  test("a tap beside it is the activation", async () => {
    const found = model.gradients(prompt, METRIC, {
      taps: { x: tap("resid_post.1", -1) },
      of: "resid_post.1",
      at: -1,
    });
    const { x } = model.run(prompt, { taps: { x: tap("resid_post.1", -1) } });
    expect(await numbers(found.x)).toEqual(await numbers(x));
  });
});

describe("of several prompts", () => {
  test("each gets what it gets alone, whatever the metric", async () => {
    const prompts = [9, 4, 13].map((length, i) => model.promptFromIds(randomIds(length, i + 20)));
    for (const metric of [METRIC, logProbability(7), nextTokenLoss()]) {
      const together = model.gradients(prompts, metric, { of: "resid_post.0" });
      const values = await numbers(together.metric);
      for (const [i, one] of prompts.entries()) {
        const alone = model.gradients(one, metric, { of: "resid_post.0" });
        const own = await numbers(alone.gradients["resid_post.0"]);
        const close = { atol: 1e-5 * Math.max(1, largest(own)), rtol: 0 };
        expectClose(await numbers(together.gradients["resid_post.0"][i]!), own, close);
        expectClose([values[i]!], await numbers(alone.metric), close);
      }
    }
  });

  test("gradients of weights are those of the sum", async () => {
    const prompts = [5, 8].map((length, i) => model.promptFromIds(randomIds(length, i + 40)));
    const weights = ["model.layers.1.mlp.up_proj.weight"];
    const all = await numbers(model.gradients(prompts, METRIC, { weights }).weights[weights[0]!]!);
    const each = await Promise.all(
      prompts.map(async (one) => numbers(model.gradients(one, METRIC, { weights }).weights[weights[0]!]!)),
    );
    expectClose(
      all,
      each[0]!.map((x, i) => x + each[1]![i]!),
      { atol: 1e-5 * largest(all), rtol: 0 },
    );
  });
});

describe("metrics", () => {
  test("functions of logits and of taps", async () => {
    const byFunction = model.gradients(
      prompt,
      (logits) => sub(logits.slice(1, 301, 302), logits.slice(1, 40, 41)).reshape([1]),
      { of: "resid_mid.1" },
    );
    const byName = model.gradients(prompt, METRIC, { of: "resid_mid.1" });
    const read = (found: typeof byName) => numbers(found.gradients["resid_mid.1"]);
    expect(await read(byFunction)).toEqual(await read(byName));
    const ofTap = model.gradients(
      prompt,
      (_logits, _clean, taps) => sum(square(taps["x"] as Tensor)).reshape([1]),
      { taps: { x: tap("resid_post.2", -1) }, of: "resid_post.2", at: -1 },
    );
    const doubled = (await numbers(ofTap.x)).map((x) => 2 * x);
    expectClose(await numbers(ofTap.gradients["resid_post.2"]), doubled, { atol: 1e-6, rtol: 1e-6 });
  });

  test("the divergence from another run, at which it is least", async () => {
    const clean = model.run(prompt).logits!;
    const at = model.gradients(prompt, klDivergence(), { of: "resid_post.1", clean });
    const own = largest(await numbers(at.gradients["resid_post.1"]));
    const edits = [scale("resid_post.0", -1, 2)];
    const away = model.gradients(prompt, klDivergence(), { of: "resid_post.1", clean, edits });
    expect(await at.metric.item()).toBeCloseTo(0, 5);
    expect(own).toBeLessThan(1e-3 * largest(await numbers(away.gradients["resid_post.1"])));
  });

  test("a loss counts the positions that it is given, and computes no other logits", async () => {
    const { metric } = model.gradients(prompt, nextTokenLoss([3, 7]), { of: "embed" });
    const logits = await numbers(model.run(prompt, { logits: "all" }).logits!);
    const { vocab } = model.config;
    const losses = [3, 7].map((position) => {
      const row = logits.slice((position - 1) * vocab, position * vocab);
      const most = largest(row);
      return (
        Math.log(row.reduce((total, x) => total + Math.exp(x - most), 0)) + most - row[prompt.ids[position]!]!
      );
    });
    expect(await metric.item()).toBeCloseTo((losses[0]! + losses[1]!) / 2, 4);
  });
});

describe("memory", () => {
  test("with nothing kept between blocks the bits are the same, and less is in use at a time", async () => {
    const { device } = model;
    const long = model.promptFromIds(randomIds(64, 5));
    const run = async (keepBytes?: number) => {
      const before = device.memory.liveBytes;
      device.resetPeak();
      const options = { of: ["embed", "z.1"], weights: ["model.layers.0.self_attn.q_proj.weight"] } as const;
      const found = model.gradients(long, METRIC, {
        ...options,
        ...(keepBytes !== undefined && { keepBytes }),
      });
      const tensors = [...Object.values(found.gradients), ...Object.values(found.weights)] as Tensor[];
      const values = await device.read(tensors);
      const peak = device.peakBytes - before;
      for (const tensor of [...tensors, found.metric, found.logits as Tensor]) tensor.dispose();
      return { values, peak, left: device.memory.liveBytes - before };
    };
    await run(); // a weight whose gradient is asked for gets memory of its own
    const [kept, anew] = [await run(), await run(0)];
    expect(anew.values).toEqual(kept.values);
    expect(anew.peak).toBeLessThan(0.9 * kept.peak);
    expect([kept.left, anew.left]).toEqual([0, 0]);
  });

  test("a run that asks for none dispatches what it did before one was asked for", async () => {
    const { device } = model;
    const dispatches = async () => {
      const before = device.counters.dispatches;
      await numbers(model.run(prompt).logits!);
      return device.counters.dispatches - before;
    };
    const first = await dispatches();
    await numbers(model.gradients(prompt, METRIC, { of: "embed" }).metric);
    expect(await dispatches()).toBe(first);
  });
});

describe("refuses", () => {
  const at =
    (options: object, metric: unknown = METRIC, of: Prompt | Prompt[] = prompt) =>
    () =>
      model.gradients(of as Prompt, metric as never, options as never);

  test("what there is no gradient of", () => {
    expect(at({})).toThrow(/expected something to take gradients of/);
    expect(at({ of: "resid_pst.1" })).toThrow(SiteError);
    expect(at({ of: "resid_post.9" })).toThrow(SiteError);
    expect(at({ weights: ["model.norm.wieght"] })).toThrow(
      /no weight "model.norm.wieght"; the nearest is "model.norm.weight"/,
    );
    expect(at({ pixels: true })).toThrow(/expected a prompt with pictures/);
    const idle = model.device.zeros([4]);
    expect(at({ tensors: { idle }, of: "embed" })).toThrow(/tensor idle: nothing that was computed reads it/);
    expect(at({ taps: { gradients: tap("embed") }, of: "embed" })).toThrow(/cannot be called "gradients"/);
    expect(at({ of: "embed", wieghts: [] })).toThrow(/the nearest is "weights"/);
  });

  test("metrics that mean nothing here", () => {
    expect(at({ of: "embed" }, { kind: "logit" })).toThrow(ArgumentError);
    expect(at({ of: "embed" }, klDivergence())).toThrow(/expected the option clean/);
    expect(at({ of: "embed" }, nextTokenLoss(0))).toThrow(/nothing predicts the first token/);
    expect(at({ of: "embed" }, nextTokenLoss(), model.promptFromIds([5]))).toThrow(PromptError);
    expect(at({ of: "embed" }, (logits: Tensor) => logits)).toThrow(/expected the function to return \[1\]/);
    expect(at({ of: "embed", clean: model.device.zeros([3]) }, klDivergence())).toThrow(
      /clean: expected logits/,
    );
  });

  test("gradients among the taps of what has no metric", () => {
    expect(() => model.run(prompt, { taps: { g: gradient("embed") } })).toThrow(
      /expected a tap, found a gradient/,
    );
  });

  test("a loss where tokens see each other", async () => {
    const paligemma = await fixtureModel("paligemma");
    expect(() =>
      paligemma.gradients(paligemma.promptFromIds(randomIds(5, 1)), nextTokenLoss(), { of: "embed" }),
    ).toThrow(/attends both ways within a prompt/);
  });
});
