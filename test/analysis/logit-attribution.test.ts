import { inspect } from "node:util";
import { describe, expect, expectTypeOf, test } from "vitest";
import { headOutputs } from "../../src/analysis/heads/head-outputs.ts";
import { logitAttribution } from "../../src/analysis/lens/logit-attribution.ts";
import { add, mul } from "../../src/kernels/elementwise/elementwise.ts";
import { linear } from "../../src/kernels/matmul/linear.ts";
import { matmul } from "../../src/kernels/matmul/matmul.ts";
import { cast } from "../../src/kernels/movement/copy.ts";
import { sum } from "../../src/kernels/reduction/reduce.ts";
import { frozenNorm } from "../../src/model/layers/frozen-norm.ts";
import { blockPartsOf, type WeightName } from "../../src/model/layers/named-weights.ts";
import { addVector, scale } from "../../src/patching/edit.ts";
import { loadModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import { expectClose, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel, randomIds, readAll, TEXT_FIXTURES } from "../helpers/model.ts";

const LENGTH = 9;
const CLOSE = { atol: 2e-5, rtol: 2e-5 };

async function setUp(name: string) {
  const model = await fixtureModel(name);
  return { model, prompt: model.promptFromIds(randomIds(LENGTH, 5)) };
}

describe.each(TEXT_FIXTURES)("%s", (name) => {
  test("the parts of a logit sum to it", async () => {
    const { model, prompt } = await setUp(name);
    const logits = await model.run(prompt, { logits: "all" }).logits!.read();
    const { vocab, layers, heads } = model.config;
    const { logitSoftcap: cap } = model.config as { logitSoftcap?: number };
    const shown = (raw: number) => (cap === undefined ? raw : cap * Math.tanh(raw / cap));
    for (const [at, answer] of [
      [-1, 33],
      [4, 57],
    ] as const) {
      const attribution = await logitAttribution(model, prompt, { answer, at });
      const logit = logits[((at + LENGTH) % LENGTH) * vocab + answer]!;
      expectClose([shown(attribution.total)], [logit], CLOSE);
      const byHead = attribution.components.filter(({ head }) => head !== undefined);
      expect(byHead).toHaveLength(layers * heads);
      // A control: without its largest part it is another sum.
      const [largest] = attribution.top(1);
      expect(() => expectClose([shown(attribution.total - largest!.value)], [logit], CLOSE)).toThrow();
    }
  });

  test("a difference is the difference of two, under edits too", async () => {
    const { model, prompt } = await setUp(name);
    const edits = [scale("z.1", "all", 2, { head: 1 }), scale("mlp_out.0", -1, 0.5)];
    const of = (options: { answer: number; against?: number }) =>
      logitAttribution(model, prompt, { ...options, edits });
    const [both, one, other] = [
      await of({ answer: 33, against: 57 }),
      await of({ answer: 33 }),
      await of({ answer: 57 }),
    ];
    const values = (of: typeof both) => of.components.map(({ value }) => value);
    expectClose(
      values(both),
      values(one).map((value, i) => value - values(other)[i]!),
      CLOSE,
    );
  });

  test("heads' outputs sum to attn_out less the bias, which a norm behind it scales as it scales them", async () => {
    const { model, prompt } = await setUp(name);
    const { width, heads } = model.config;
    for (const layer of [0, 1]) {
      const { z, out } = model.run(prompt, { taps: { z: tap(`z.${layer}`), out: tap(`attn_out.${layer}`) } });
      const outputs = headOutputs(model, z, layer);
      expect(outputs.shape).toEqual([LENGTH, heads, width]);
      const total = sum(outputs, 1);
      const { attention, attentionPostNorm: post } = blockPartsOf(model.network.stack, layer);
      const { bias: stored } = attention.o;
      const bias = stored && post ? frozenNorm(post, attention.o.apply(z)).apply(stored) : stored;
      const read = await readAll({
        out,
        total: bias ? add(total, bias) : total,
        one: headOutputs(model, z.at(2), layer),
      });
      expectClose(read.total, read.out, CLOSE);
      const whole = await outputs.read();
      expectClose(read.one, whole.subarray(2 * heads * width, 3 * heads * width), CLOSE);
    }
  });

  test("named weights are what the model multiplies by", async () => {
    const { model, prompt } = await setUp(name);
    const { heads, kvHeads, headDim, width, mlpWidth, vocab } = model.config;
    expect(model.weight("W_U").shape).toEqual([width, vocab]);
    expect(model.weight("W_E").shape).toEqual([vocab, width]);
    const taps = {
      x: tap(["attn_in.1", "mlp_in.1", "q.1", "k.1", "v.1", "z.1", "mlp_pre.1", "final_norm"], -1),
    };
    const { x, logits } = model.run(prompt, { taps });
    const row = (t: typeof logits) => t!.reshape([1, t!.size]);
    const project = (from: typeof logits, w: WeightName, b: WeightName, head?: number) => {
      const part = head === undefined ? {} : { head };
      const product = matmul(row(from), model.weight(w, part));
      return has(model, b) ? add(product, model.weight(b, part)) : product;
    };
    const columns = (t: typeof logits, head: number) => t!.slice(0, head * headDim, (head + 1) * headDim);
    const found = {
      q: project(x["attn_in.1"], "W_Q.1", "b_Q.1"),
      q1: project(x["attn_in.1"], "W_Q.1", "b_Q.1", heads - 1),
      k: project(x["attn_in.1"], "W_K.1", "b_K.1", kvHeads - 1),
      v: project(x["attn_in.1"], "W_V.1", "b_V.1", 0),
      pre: project(
        x["mlp_in.1"],
        has(model, "W_gate.1") ? "W_gate.1" : "W_in.1",
        has(model, "W_gate.1") ? "b_gate.1" : "b_in.1",
      ),
    };
    const expected = {
      q: x["q.1"],
      q1: columns(x["q.1"], heads - 1),
      k: columns(x["k.1"], kvHeads - 1),
      v: columns(x["v.1"], 0),
      pre: x["mlp_pre.1"],
    };
    const values = await readAll({ ...found });
    for (const [key, tensor] of Object.entries(expected)) {
      expectClose(values[key as keyof typeof found]!, await tensor!.read(), { ...CLOSE, label: key });
    }
    expect(model.weight("W_O.0", { head: 1 }).shape).toEqual([headDim, width]);
    expect(model.weight("W_out.0").shape).toEqual([mlpWidth, width]);
    // W_O by head, by what heads add.
    const z = row(x["z.1"]).slice(1, headDim, 2 * headDim);
    if (!has(model, "attn_post_norm.1")) {
      const read = await readAll({
        byWeight: matmul(z, model.weight("W_O.1", { head: 1 })),
        byHead: headOutputs(model, x["z.1"]!, 1).at(1),
      });
      expectClose(read.byWeight, read.byHead, CLOSE);
    }
    // Logits from the final norm by W_U, capped where they are.
    const raw = await matmul(row(x.final_norm), model.weight("W_U")).read();
    const { logitSoftcap: cap } = model.config as { logitSoftcap?: number };
    expectClose(
      cap === undefined ? raw : raw.map((r) => cap * Math.tanh(r / cap)),
      await logits!.read(),
      CLOSE,
    );
  });

  test("frozen norms are linear and pull directions back", async () => {
    const { model } = await setUp(name);
    const { width } = model.config;
    const { device } = model;
    const { parts } = model.network.stack as unknown as {
      parts: { finalNorm: Parameters<typeof frozenNorm>[0] };
    };
    const [a, b, d] = [1, 2, 3].map((seed) =>
      device.tensor(randomArray(width * 2, seed), { shape: [2, width] }),
    );
    const total = add(a!, b!);
    const frozen = frozenNorm(parts.finalNorm, total);
    const parted = add(frozen.apply(a!), frozen.apply(b!));
    const read = await readAll({
      parted: frozen.bias ? add(parted, frozen.bias) : parted,
      whole: parts.finalNorm(total),
      pushed: sum(mul(frozen.apply(a!), d!), -1),
      pulled: sum(mul(a!, frozen.pull(d!)), -1),
    });
    expectClose(read.parted, read.whole, CLOSE);
    expectClose(read.pushed, read.pulled, { atol: 2e-4, rtol: 2e-5 });
  });
});

/** Whether a model has a weight that others may lack. */
function has(model: Awaited<ReturnType<typeof fixtureModel>>, name: WeightName): boolean {
  try {
    model.weight(name);
    return true;
  } catch (error) {
    if (/this model has none/.test(`${error}`)) return false;
    throw error;
  }
}

describe("weights", () => {
  test("have names that are checked", async () => {
    const { model } = await setUp("llama-gqa-tied");
    // @ts-expect-error: no such weight
    expect(() => model.weight("W_X.1")).toThrow(/there is no weight "W_X\.1"; the nearest is "W_[A-Z]\.1"/);
    expect(() => model.weight("W_O.9")).toThrow(/there are \d layers/);
    expect(() => model.weight("W_pos")).toThrow(/this model has none/);
    expect(() => model.weight("W_out.1", { head: 0 })).toThrow(/it has no heads/);
    expect(() => model.weight("W_K.1", { head: model.config.kvHeads })).toThrow(/expected a head from 0/);
    expect(() => model.weight("W_U", { heads: 1 } as never)).toThrow(/nearest is "head"/);
    expectTypeOf(model.weight).parameter(0).toEqualTypeOf<WeightName>();
  });

  test("of Gemma's norms have the 1 that is stored away", async () => {
    const { model, prompt } = await setUp("gemma2");
    const { before, after } = model.run(prompt, {
      taps: { before: tap("resid_pre.0", -1), after: tap("attn_in.0", -1) },
    });
    const { x, y, gain } = await readAll({
      x: before,
      y: after,
      gain: cast(model.weight("attn_norm.0"), "f32"),
    });
    const ratio = y![0]! / (x![0]! * gain![0]!);
    expectClose(
      y!.map((value, i) => value / (x![i]! * gain![i]!)),
      new Float32Array(y!.length).fill(ratio),
      { atol: 0, rtol: 1e-3 },
    );
  });

  test("have adapters in them, merged or beside the weights", async () => {
    const device = await testDevice();
    using merged = await loadModel("weights/nano/llm", { device });
    using beside = await loadModel("weights/nano/llm", { device, merge: false });
    const names = ["W_Q.0", "W_V.1", "W_O.1", "W_out.0", "W_U"] as const;
    for (const name of names) {
      const read = await readAll({
        merged: cast(merged.weight(name), "f32"),
        beside: cast(beside.weight(name), "f32"),
      });
      expectClose(read.beside, read.merged, { atol: 1e-3, rtol: 1e-3, label: name });
    }
    const prompt = beside.promptFromIds(randomIds(LENGTH, 5));
    const logits = await beside.run(prompt).logits!.read();
    const { total } = await logitAttribution(beside, prompt, { answer: 33 });
    expectClose([total], [logits[33]!], { atol: 1e-3, rtol: 1e-4 });
  });

  test("belong to the model: what is done with a view does it no harm", async () => {
    const { model, prompt } = await setUp("llama");
    const before = await model.run(prompt).logits!.read();
    model.weight("W_U").dispose();
    model.weight("W_O.1", { head: 1 }).dispose();
    model.device.scope(() => linear(model.weight("W_E").rows(0, 1), model.weight("W_U").transpose()));
    expect(await model.run(prompt).logits!.read()).toEqual(before);
  });
});

describe("an attribution", () => {
  test("prints, and refuses what it cannot take apart", async () => {
    const { model, prompt } = await setUp("llama");
    const attribution = await logitAttribution(model, prompt, { answer: 33, against: 57 });
    expect(inspect(attribution)).toMatch(
      /^logit of ".*" − ".*" at position 8: -?[\d.]+, of which\n\S+.* +-?[\d.]+\n/,
    );
    await expect(logitAttribution(model, prompt, {} as never)).rejects.toThrow(/answer/);
    await expect(logitAttribution(model, prompt, { answer: "Hello there" })).rejects.toThrow(/one token/);
    const direction = randomArray(model.config.width, 4).map((x) => 3 * x);
    const edits = [addVector("resid_mid.1", -1, direction)];
    await expect(logitAttribution(model, prompt, { answer: 33, edits })).rejects.toThrow(
      /expected heads, MLPs and embedding to sum to the logit/,
    );
  });

  test("works on models with pictures", async () => {
    const model = await fixtureModel("llava");
    const picture = { data: new Uint8Array(8 * 8 * 3).map((_, i) => (i * 37) % 256), width: 8, height: 8 };
    const prompt = model.prompt(["Q:", picture, "\nA:"]);
    const logits = await model.run(prompt).logits!.read();
    const { total } = await logitAttribution(model, prompt, { answer: 33 });
    expectClose([total], [logits[33]!], CLOSE);
  });
});
