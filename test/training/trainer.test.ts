import { expect, test } from "vitest";
import { ArgumentError, GradientError, PromptError } from "../../src/errors.ts";
import { square, sub } from "../../src/kernels/elementwise/elementwise.ts";
import { sum } from "../../src/kernels/reduction/reduce.ts";
import { memoryFolder } from "../../src/model/checkpoint/source/folder.ts";
import { addVector, set } from "../../src/patching/edit.ts";
import { loadModel } from "../../src/patching/model.ts";
import { nextTokenLoss } from "../../src/patching/run-metric.ts";
import { tap } from "../../src/patching/tap.ts";
import { decode, encode } from "../../src/tensor/dtype.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { Lora } from "../../src/training/lora.ts";
import { Trainer, type TrainerOptions, weightTensors } from "../../src/training/trainer.ts";
import { fixtureFiles, tensorsOf, withTensors } from "../helpers/checkpoints.ts";
import { expectClose, expectSame, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel, randomIds } from "../helpers/model.ts";

const device = await testDevice();
const llama = await fixtureModel("llama");
const prompts = [9, 5, 7, 4].map((length, i) => llama.promptFromIds(randomIds(length, i)));

/** Losses before each step and after the last. */
async function losses(trainer: Trainer, steps: number, batch = prompts.slice(0, 1)): Promise<number[]> {
  const found: number[] = [];
  for (let step = 0; step < steps; step++) found.push(await trainer.step(batch).loss.item());
  return [...found, await trainer.evaluate(batch).item()];
}

function fill(tensor: Tensor, seed: number): Float32Array {
  const values = randomArray(tensor.size, seed, 0.2);
  device.write(tensor, new Uint8Array(values.buffer));
  return values;
}

test("an adapter learns a prompt by heart, and the model is what it was without it", async () => {
  const before = await llama.run(prompts[0]!).logits!.read();
  const lora = new Lora(llama, { rank: 4 });
  const trainer = new Trainer(llama, { parameters: lora.parameters, learningRate: 0.03 });
  const found = await losses(trainer, 15);
  expect(found.at(-1)).toBeLessThan(0.5 * found[0]!);
  expect(trainer.optimizer.steps).toBe(15);
  trainer.dispose();
  lora.dispose();
  expect(await llama.run(prompts[0]!).logits!.read()).toEqual(before);
});

test("only the tokens of the loss count", async () => {
  const [prompt] = prompts;
  using lora = new Lora(llama, { rank: 2 });
  using trainer = new Trainer(llama, { parameters: lora.parameters, loss: [3, 5], learningRate: 0.02 });
  const all = await llama.run(prompt!, { logits: "all" }).logits!.read();
  const vocab = llama.config.vocab;
  const nats = [3, 5].map((position) => {
    const row = all.subarray((position - 1) * vocab, position * vocab);
    return Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0)) - row[prompt!.ids[position]!]!;
  });
  expect(await trainer.evaluate([prompt!]).item()).toBeCloseTo((nats[0]! + nats[1]!) / 2, 4);
});

test("micro-batches change nothing of weights either, which lie transposed in memory", async () => {
  const name = "model.layers.1.mlp.down_proj.weight";
  const stepped = async (microBatch: number) => {
    using model = await loadModel("test/fixtures/llama/model", { device });
    const parameters = weightTensors(model, [name]);
    using trainer = new Trainer(model, { parameters, microBatch, eps: 1e-4 });
    trainer.step(prompts.map(({ ids }) => model.promptFromIds(ids)));
    return (await parameters[name]!.read()) as Float32Array;
  };
  const start = await llama.loaded.parameters.get(name)!.tensors[0]!.read();
  const [whole, part] = [await stepped(prompts.length), await stepped(1)];
  expectClose(part, whole, { atol: 2e-6, rtol: 0 });
  expect(whole.some((value, i) => Math.abs(value - start[i]!) > 1e-4)).toBe(true);
});

test("the mean is over the tokens of all prompts, and micro-batches change nothing", async () => {
  const results: { found: number[]; norms: number[]; b: Float32Array }[] = [];
  for (const microBatch of [undefined, 3]) {
    using lora = new Lora(llama, { rank: 2, seed: 1 });
    const options: TrainerOptions = { parameters: lora.parameters, eps: 1e-4, maxGradNorm: 0.5 };
    using trainer = new Trainer(llama, { ...options, ...(microBatch && { microBatch }) });
    const [found, norms]: [number[], number[]] = [[], []];
    for (let step = 0; step < 2; step++) {
      const { loss, gradNorm } = trainer.step(prompts);
      found.push(await loss.item());
      norms.push(await gradNorm.item());
    }
    const b = Object.entries(lora.parameters).find(([name]) => name.endsWith("lora_B.weight"))![1];
    results.push({ found, norms, b: (await b.read()) as Float32Array });
  }
  const [whole, ...parts] = results;
  for (const part of parts) {
    expectClose(part.found, whole!.found, { rtol: 1e-5 });
    expectClose(part.norms, whole!.norms, { rtol: 1e-4 });
    expectClose(part.b, whole!.b, { atol: 1e-6 });
  }
  // By tokens, not by prompts.
  using lora = new Lora(llama, { rank: 2, seed: 1 });
  using trainer = new Trainer(llama, { parameters: lora.parameters });
  const each = await Promise.all(prompts.map((prompt) => trainer.evaluate([prompt]).item()));
  const counts = prompts.map(({ length }) => length - 1);
  const mean = each.reduce((sum, loss, i) => sum + loss * counts[i]!, 0) / counts.reduce((a, b) => a + b);
  expect(whole!.found[0]).toBeCloseTo(mean, 4);
});

test("an auxiliary loss of activations is added to that of the tokens, and trained on", async () => {
  const at = tap("resid_post.1", -1);
  const target = device.tensor(randomArray(llama.config.width, 3));
  const distance = ({ x }: Readonly<Record<string, Tensor>>) => sum(square(sub(x!, target)), -1);
  const distances = async () => {
    const { x } = llama.run(prompts, { taps: { x: at } });
    const far = await distance({ x }).read();
    return [...far] as number[];
  };
  using lora = new Lora(llama, {
    rank: 4,
    modules: ["layers.0.self_attn.v_proj", "layers.1.self_attn.v_proj"],
  });
  using trainer = new Trainer(llama, {
    parameters: lora.parameters,
    auxiliary: { taps: { x: at }, of: distance },
    learningRate: 0.02,
  });
  const before = await distances();
  const own = await trainer.evaluate(prompts).item();
  const counts = prompts.map(({ length }) => length - 1);
  const total = counts.reduce((a, b) => a + b, 0);
  const expected = own + before.reduce((all, far, i) => all + (far * counts[i]!) / total, 0);
  expect(await trainer.step(prompts).loss.item()).toBeCloseTo(expected, 3);
  for (let step = 0; step < 10; step++) trainer.step(prompts);
  const after = await distances();
  for (const [i, far] of after.entries()) expect(far).toBeLessThan(before[i]!);
});

test("a schedule has the first step rest and the others move", async () => {
  using lora = new Lora(llama, { rank: 2 });
  const schedule = (step: number) => (step === 0 ? 0 : 1);
  using trainer = new Trainer(llama, { parameters: lora.parameters, learningRate: 0.02, schedule });
  const [first, second, third] = await losses(trainer, 2);
  expect(second).toBe(first);
  expect(third).toBeLessThan(second!);
});

test("vectors of edits are trained: steering, and a soft prompt", async () => {
  const { width } = llama.config;
  for (const [parameter, edit] of [
    [device.zeros([width]), (v: Tensor) => addVector("resid_post.0", 2, v)],
    [
      device.tensor(randomArray(2 * width, 3), { shape: [2, width] }),
      (v: Tensor) => set("embed", { start: 0, end: 2 }, v),
    ],
  ] as const) {
    const options = {
      parameters: { parameter },
      edits: [edit(parameter)],
      loss: [3, 4, 5, 6],
      learningRate: 0.1,
    };
    using trainer = new Trainer(llama, options);
    const found = await losses(trainer, 12);
    expect(found.at(-1)).toBeLessThan(found[0]! - 0.3);
  }
});

test.each(["llama", "gpt2", "gpt_neox"])(
  "weights of %s are trained in place, in their own dtype",
  async (name) => {
    using model = await loadModel(`test/fixtures/${name}/model`, { device });
    const names = model.parameterNames.filter((each) =>
      /(c_attn|query_key_value|q_proj)\.weight$/.test(each),
    );
    const parameters = weightTensors(model, names);
    const dtypes = Object.values(parameters).map(({ dtype }) => dtype);
    using trainer = new Trainer(model, { parameters, learningRate: 0.01 });
    const prompt = model.promptFromIds(randomIds(9, 0));
    const found = await losses(trainer, 12, [prompt]);
    expect(found.at(-1)).toBeLessThan(found[0]! - 0.3);
    expect(Object.values(parameters).map(({ dtype }) => dtype)).toEqual(dtypes);
  },
);

/** Matrices in f64, row-major. */
function product(a: ArrayLike<number>, b: ArrayLike<number>, inner: number): Float64Array {
  const [rows, columns] = [a.length / inner, b.length / inner];
  const out = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      let sum = 0;
      for (let k = 0; k < inner; k++) sum += a[i * inner + k]! * b[k * columns + j]!;
      out[i * columns + j] = sum;
    }
  }
  return out;
}

function transposed(values: ArrayLike<number>, columns: number): Float64Array {
  const rows = values.length / columns;
  return Float64Array.from(
    { length: values.length },
    (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!,
  );
}

// One matrix of the checkpoint is three layers here, and PEFT knows one B A of it.
test.each([
  ["gpt2", /\.c_attn$/],
  ["gpt_neox", /\.query_key_value$/],
  ["gpt_neox-sequential", /\.query_key_value$/],
])("%s: an adapter of a fused matrix is B A of the whole", async (name, ending) => {
  const model = await fixtureModel(name);
  const prompt = model.promptFromIds(randomIds(8, 4));
  const modules = [...model.loaded.linears.keys()].filter((module) => ending.test(module));
  const [rank, alpha] = [3, 5];
  using lora = new Lora(model, { rank, alpha, modules });
  expect(lora.modules).toEqual(modules);
  const stored = await tensorsOf(fixtureFiles(name));
  const halves = new Map<string, { a: Float32Array; b: Float32Array }>();
  for (const [i, module] of modules.entries()) {
    const a = fill(lora.parameters[`${module}.lora_A.weight`]!, 2 * i);
    const b = fill(lora.parameters[`${module}.lora_B.weight`]!, 2 * i + 1);
    halves.set(module, { a, b });
  }

  // Forward: the files with the products added, in f32.
  const { transposed: isTurned = false, shape } = model.loaded.linears.get(modules[0]!)!;
  const [out, width] = shape;
  const changed = [...stored.values()].map((tensor) => {
    const half = halves.get(tensor.name.replace(/\.weight$/, ""));
    if (!half) return tensor;
    const dtype = ({ F32: "f32", F16: "f16", BF16: "bf16" } as const)[tensor.stored as "F32"];
    const base = decode(tensor.data, dtype, out * width);
    const update = product(half.b, half.a, rank); // [out, width]
    const added = isTurned ? transposed(update, width) : update;
    const data = encode(
      Float32Array.from(base, (x, i) => x + (alpha / rank) * added[i]!),
      "f32",
    );
    return { ...tensor, stored: "F32", data };
  });
  using whole = await loadModel(memoryFolder(await withTensors(fixtureFiles(name), changed)), { device });
  const expected = await whole.run(prompt, { logits: "all" }).logits!.read();
  expectSame(await model.run(prompt, { logits: "all" }).logits!.read(), expected, "logits");

  // Back: d B = scale · d W A^T and d A = scale · B^T d W.
  const { weights, tensors } = model.gradients(prompt, nextTokenLoss(), {
    weights: modules.map((module) => `${module}.weight`),
    tensors: lora.parameters,
  });
  for (const module of modules) {
    const { a, b } = halves.get(module)!;
    const read = await weights[`${module}.weight`]!.read();
    const dw = isTurned ? transposed(read, out) : read; // [out, width]
    const scaled = (values: Float64Array) => values.map((x) => (x * alpha) / rank);
    const da = scaled(product(transposed(b, rank), dw, out));
    const db = scaled(product(dw, transposed(a, width), width));
    for (const [half, wanted] of [
      ["A", da],
      ["B", db],
    ] as const) {
      const found = await tensors[`${module}.lora_${half}.weight`]!.read();
      expectClose(found, wanted, { atol: 2e-6, rtol: 1e-4, label: `${module} ${half}` });
    }
  }
});

test("mistakes are named", async () => {
  expect(() => new Trainer(llama, { parameters: {} })).toThrow(ArgumentError);
  expect(() => new Trainer(llama, {} as never)).toThrow(/^Trainer: expected parameters to be an object/);
  expect(() => new Trainer({} as never, { parameters: {} })).toThrow(/^Trainer: expected model to be/);
  expect(() => new Trainer(llama, { parameters: {}, learningrate: 1 } as never)).toThrow(
    /no "learningrate"; the nearest is "learningRate"/,
  );
  // It would never come to an end.
  expect(() => new Trainer(llama, { parameters: {}, microBatch: 0 })).toThrow(
    /microBatch to be a whole number from 1/,
  );
  const idle = device.zeros([4]);
  using trainer = new Trainer(llama, { parameters: { idle } });
  expect(() => trainer.step(prompts)).toThrow(GradientError);
  expect(() => trainer.step(prompts)).toThrow(/does not depend|idle: nothing that was computed reads it/);
  using lora = new Lora(llama);
  using spanned = new Trainer(llama, { parameters: lora.parameters, loss: { span: "answer" } });
  expect(() => spanned.step(prompts)).toThrow(PromptError);
  const paligemma = await fixtureModel("paligemma");
  using prefixed = new Lora(paligemma, { rank: 1 });
  using both = new Trainer(paligemma, { parameters: prefixed.parameters });
  expect(() => both.step([paligemma.promptFromIds(randomIds(5, 1))])).toThrow(
    /attends both ways within a prompt: token 1 is seen where it is to be predicted/,
  );
  using first = new Trainer(llama, { parameters: lora.parameters, loss: [0] });
  expect(() => first.step(prompts)).toThrow(/nothing predicts the first token/);
  expect(() => weightTensors(llama, ["model.norm.wait"])).toThrow(/no weight "model\.norm\.wait"/);
  expect(() => new Lora(llama, { modules: ["q_prj"] })).toThrow(/called "q_prj"; the nearest is "q_proj"/);
  expect(() => new Lora(llama, { rank: 0 })).toThrow(/expected a rank of 1 or more, found 0/);
  expect(() => new Lora(llama, { ranks: 2 } as never)).toThrow(/no "ranks"; the nearest is "rank"/);
});
