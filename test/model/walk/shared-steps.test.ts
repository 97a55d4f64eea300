import { describe, expect, test } from "vitest";
import { LifetimeError, OutOfMemoryError } from "../../../src/errors.ts";
import type { Quantise } from "../../../src/model/checkpoint/weights/quantise.ts";
import type { Prompt } from "../../../src/model/prompt/prompt.ts";
import { generateTokens } from "../../../src/model/walk/generate-tokens.ts";
import { greedy, type Sampler } from "../../../src/model/walk/sampling.ts";
import { scale } from "../../../src/patching/edit.ts";
import { loadModel, type PatchableModel } from "../../../src/patching/model.ts";
import { resume } from "../../../src/patching/resume.ts";
import { testDevice } from "../../helpers/device.ts";
import { randomIds } from "../../helpers/model.ts";
import { shortDevice } from "../../helpers/short-device.ts";

// Generations that go on at the same time share their steps. Nobody may notice, other than by the time it takes.

const load = async (name: string, adapter: "lavapipe" | "swiftshader", quantise?: Quantise) =>
  loadModel(`test/fixtures/${name}/model`, {
    device: await testDevice({ adapter }),
    ...(quantise && { quantise }),
  });

interface Answer {
  readonly ids: number[];
  /** Of all steps, raw. */
  readonly bits: number[][];
}

async function answer(model: PatchableModel, prompts: readonly Prompt[], tokens: number): Promise<Answer> {
  const found: Answer = { ids: [], bits: [] };
  const sampler: Sampler = async (logits, at) => {
    const values = (await logits.read()) as Float32Array;
    found.bits.push([...new Uint32Array(values.buffer, values.byteOffset, values.length)]);
    return greedy(logits, at);
  };
  for await (const { ids } of generateTokens(model.network, prompts, { maxNewTokens: tokens, sampler })) {
    found.ids.push(...ids);
  }
  return found;
}

function promptsOf(model: PatchableModel): Prompt[][] {
  const lengths = [[5], [1], [33, 2], [9], [17], [8, 8, 8]];
  return lengths.map((batch, i) => batch.map((n, j) => model.promptFromIds(randomIds(n, 10 * i + j))));
}

describe.each([
  ["llama", "lavapipe"],
  ["llama-gqa-tied", "swiftshader"],
  ["mistral", "lavapipe"],
  ["llava-bf16-module-names", "lavapipe"],
  ["gpt2", "lavapipe"],
  ["gpt_neox", "swiftshader"],
  ["qwen3", "lavapipe"],
  ["gemma2", "swiftshader"],
  ["olmo2", "lavapipe"],
  ["llama", "lavapipe", "int8"], // a few rows go through a kernel of their own
] as const)("%s on %s %s", (name, adapter, quantise?) => {
  test("at once, answers have the bits that they have one after the other", async () => {
    const model = await load(name, adapter, quantise);
    const { device } = model;
    const requests = promptsOf(model).map((prompts, i) => ({ prompts, tokens: 3 + (i % 3) }));
    const alone: Answer[] = [];
    let before = device.counters.dispatches;
    for (const { prompts, tokens } of requests) alone.push(await answer(model, prompts, tokens));
    const separately = device.counters.dispatches - before;

    before = device.counters.dispatches;
    const live = device.memory.liveBuffers;
    const together = await Promise.all(requests.map(({ prompts, tokens }) => answer(model, prompts, tokens)));
    expect(together).toEqual(alone);
    expect(device.counters.dispatches - before).toBeLessThan(separately * (quantise ? 0.95 : 0.75));
    expect(device.memory.liveBuffers).toBe(live);
    model.dispose();
  });
});

test("a request whose sampler fails does not disturb the others", async () => {
  const model = await load("llama", "lavapipe");
  const prompts = Array.from({ length: 4 }, (_, i) => [model.promptFromIds(randomIds(4 + i, i))]);
  const expected: Answer[] = [];
  for (const prompt of prompts) expected.push(await answer(model, prompt, 3));
  const failing = async () => {
    const sampler: Sampler = () => Promise.reject(new Error("no choice"));
    for await (const _ of generateTokens(model.network, prompts[0]!, { maxNewTokens: 3, sampler }));
  };
  const settled = await Promise.allSettled([
    answer(model, prompts[1]!, 3),
    failing(),
    answer(model, prompts[2]!, 3),
    answer(model, prompts[3]!, 3),
  ]);
  expect(settled.map((s) => (s.status === "fulfilled" ? s.value : String(s.reason)))).toEqual([
    expected[1],
    "Error: no choice",
    expected[2],
    expected[3],
  ]);
  model.dispose();
});

test("a request whose picture does not fit the tower does not disturb the others", async () => {
  const model = await load("llava", "lavapipe");
  const image = { data: new Float32Array(3 * 7 * 7), shape: [3, 7, 7] } as const;
  const prompts = [4, 6].map((length) => model.promptFromIds(randomIds(length, length)));
  const bad = model.prompt(["a ", image, " b"]);
  const options = { maxNewTokens: 3, stopIds: [] };
  const alone = [await model.generate(prompts[0]!, options), await model.generate(prompts[1]!, options)];
  const { liveBuffers } = model.device.memory;
  const asked = [prompts[0]!, bad, prompts[1]!, bad].map((prompt) => model.generate(prompt, options));
  const [first, refused, second, again] = await Promise.allSettled(asked);
  expect([first, second]).toEqual(alone.map((value) => ({ status: "fulfilled", value })));
  for (const settled of [refused, again]) {
    expect(settled).toMatchObject({ reason: { name: "ImageError", message: /\[3, 56, 56\].*\[3, 7, 7\]/ } });
  }
  expect(model.device.memory.liveBuffers).toBe(liveBuffers);
  model.dispose();
});

test("a model that is disposed of under generations fails them, and says so to those who come later", async () => {
  const model = await load("llama", "lavapipe");
  const { device } = model;
  const prompt = model.promptFromIds(randomIds(4, 1));
  const recording = model.record(prompt);
  const options = { maxNewTokens: 20, stopIds: [] };
  const onToken = () => model.dispose();
  const under = await Promise.allSettled([
    model.generate(prompt, { ...options, onToken }),
    model.generate(prompt, options),
  ]);
  for (const settled of under) expect(settled).toMatchObject({ reason: { name: "LifetimeError" } });
  const gone = /^test\/fixtures\/llama\/model: this model has been disposed of$/;
  await expect(model.generate(prompt, options)).rejects.toThrow(gone);
  for (const call of [
    () => model.run(prompt),
    () => model.record(prompt),
    () => model.walk(prompt).next(),
    () => resume(recording, [{ edits: [scale("resid_post.0", -1, 3)] }]),
  ]) {
    expect(call).toThrow(LifetimeError);
    expect(call).toThrow(gone);
  }
  recording.dispose();
  expect(device.memory.liveBuffers).toBe(0);
});

test("sampled, edited and broken-off generations go on beside each other", async () => {
  const model = await load("llama", "lavapipe");
  const { device } = model;
  const prompts = Array.from({ length: 4 }, (_, i) => model.promptFromIds(randomIds(6 + i, 20 + i)));
  const options = { maxNewTokens: 4, stopIds: [] };
  const edits = [scale("resid_post.0", -1, 3)];
  const runs = [
    () => model.generate(prompts[0]!, options),
    () => model.generate(prompts[1]!, { ...options, temperature: 1.5, seed: 3 }),
    () => model.generate(prompts[2]!, { ...options, edits }),
  ];
  const alone = [];
  for (const run of runs) alone.push(await run());
  const live = device.memory.liveBuffers;
  const brokenOff = async () => {
    for await (const { ids } of generateTokens(model.network, [prompts[3]!], { maxNewTokens: 50 })) {
      if (ids.length > 0) break;
    }
  };
  const [together] = await Promise.all([Promise.all(runs.map((run) => run())), brokenOff()]);
  expect(together).toEqual(alone);
  expect(device.memory.liveBuffers).toBe(live);
  model.dispose();
});

test("memory that ran out once is no reason to fail", async () => {
  const { device, short, failures } = await shortDevice();
  const model = await loadModel("test/fixtures/llama/model", { device });
  const prompts = [3, 50, 70].map((length) => [model.promptFromIds(randomIds(length, length))]);
  const expected = await answer(model, prompts[0]!, 3);
  short.of = ({ label }) => label !== "read" && failures() < 2;
  expect(await answer(model, prompts[1]!, 3)).toMatchObject({ ids: { length: 3 } });
  expect(failures()).toBe(2);
  short.of = ({ label }) => label !== "read" && label !== "KV cache";
  await expect(answer(model, prompts[2]!, 3)).rejects.toThrow(OutOfMemoryError);
  short.of = () => false;
  expect(await answer(model, prompts[0]!, 3)).toEqual(expected);
  await device.destroy();
});

test("kernels for GPUs, where one row is computed otherwise than many, share nothing", async () => {
  const device = await testDevice({ kernels: "workgroup" });
  const model = await loadModel("test/fixtures/llama/model", { device });
  const prompts = Array.from({ length: 3 }, (_, i) => [model.promptFromIds(randomIds(4 + i, i))]);
  const alone: Answer[] = [];
  for (const prompt of prompts) alone.push(await answer(model, prompt, 3));
  expect(await Promise.all(prompts.map((prompt) => answer(model, prompt, 3)))).toEqual(alone);
  model.dispose();
});
