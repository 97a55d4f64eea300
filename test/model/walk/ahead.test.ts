import { describe, expect, test } from "vitest";
import { LifetimeError } from "../../../src/errors.ts";
import type { Prompt } from "../../../src/model/prompt/prompt.ts";
import { generateTokens } from "../../../src/model/walk/generate-tokens.ts";
import { greedy, type Sampler } from "../../../src/model/walk/sampling.ts";
import { loadModel, type PatchableModel } from "../../../src/patching/model.ts";
import { testDevice } from "../../helpers/device.ts";
import { randomIds } from "../../helpers/model.ts";

// A long greedy generation computes a step while the tokens of the one before travel. Nobody may notice.

interface Options {
  readonly stopIds?: ReadonlySet<number>;
  readonly sampler?: Sampler;
  readonly tokens?: number;
}

async function answers(
  model: PatchableModel,
  prompts: readonly Prompt[],
  { stopIds = new Set(), sampler, tokens = 14 }: Options = {},
): Promise<number[][]> {
  const found: number[][] = prompts.map(() => []);
  const options = { maxNewTokens: tokens, stopIds, ...(sampler && { sampler }) };
  for await (const { sequences, ids } of generateTokens(model.network, prompts, options)) {
    sequences.forEach((sequence, i) => void found[sequence]!.push(ids[i]!));
  }
  return found;
}

/** Chooses as `greedy` does, but is another sampler, for which nothing is computed ahead. */
const stepByStep: Sampler = (logits, rows) => greedy(logits, rows);

describe.each([
  ["llama", { kernels: "register" }],
  ["llama", { kernels: "workgroup" }],
  ["gpt2", {}],
  ["llava", {}],
] as const)("%s, %o", (name, options) => {
  test("the tokens of a generation step by step, whatever ends first", async () => {
    const device = await testDevice(options);
    const model = await loadModel(`test/fixtures/${name}/model`, { device });
    for (const lengths of [[5], [3, 9, 1]]) {
      const prompts = lengths.map((n, i) => model.promptFromIds(randomIds(n, 7 * n + i)));
      const expected = await answers(model, prompts, { sampler: stepByStep });
      const live = device.memory.liveBuffers; // with tables that are made at first
      expect(await answers(model, prompts)).toEqual(expected);
      // Each of the tokens as the one that ends a sequence, those that several have among them.
      for (const stop of new Set(expected.flatMap((ids) => ids.slice(3)))) {
        const stopIds = new Set([stop]);
        const stopped = await answers(model, prompts, { stopIds, sampler: stepByStep });
        expect(await answers(model, prompts, { stopIds })).toEqual(stopped);
      }
      for (const tokens of [1, 4, 5, 6, 7]) {
        expect(await answers(model, prompts, { tokens })).toEqual(
          expected.map((ids) => ids.slice(0, tokens)),
        );
      }
      expect(device.memory.liveBuffers).toBe(live);
    }
    model.dispose();
  });
});

test("a step more is computed where a generation ends, and none where the number of tokens ends it", async () => {
  const device = await testDevice();
  const model = await loadModel("test/fixtures/llama/model", { device });
  const prompts = [model.promptFromIds(randomIds(5, 3))];
  const dispatches = async (options: Options) => {
    const before = device.counters.dispatches;
    const [ids] = await answers(model, prompts, options);
    return { ids: ids!, dispatches: device.counters.dispatches - before };
  };
  const whole = await dispatches({ sampler: stepByStep });
  expect((await dispatches({})).dispatches).toBe(whole.dispatches);
  const step = (await dispatches({ tokens: 3 })).dispatches - (await dispatches({ tokens: 2 })).dispatches;
  const last = whole.ids.findIndex((id, i) => i > 5 && i < 12 && whole.ids.indexOf(id) === i);
  expect(last).toBeGreaterThan(5);
  const stopIds = new Set([whole.ids[last]!]);
  const ahead = await dispatches({ stopIds });
  expect(ahead.ids).toHaveLength(last + 1);
  expect(ahead.dispatches).toBe((await dispatches({ stopIds, sampler: stepByStep })).dispatches + step);
  model.dispose();
});

test("who breaks off leaves nothing behind, and a model that goes away ends it with an error", async () => {
  const device = await testDevice();
  const before = device.memory.liveBuffers; // of other files that share the process
  const model = await loadModel("test/fixtures/llama/model", { device });
  const prompts = [model.promptFromIds(randomIds(5, 3))];
  await answers(model, prompts, { sampler: stepByStep });
  const live = device.memory.liveBuffers;
  for (const after of [2, 5, 9]) {
    let steps = 0;
    for await (const _ of generateTokens(model.network, prompts, { maxNewTokens: 14 })) {
      if (++steps === after) break;
    }
    await device.sync();
    expect(device.memory.liveBuffers).toBe(live);
  }
  let steps = 0;
  const generation = async () => {
    for await (const _ of generateTokens(model.network, prompts, { maxNewTokens: 14 })) {
      if (++steps === 8) model.dispose();
    }
  };
  await expect(generation()).rejects.toThrow(LifetimeError);
  expect(device.memory.liveBuffers).toBe(before);
});
