import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { sweepLayers } from "#src/analysis/vectors/sweep-layers";
import { extractTaskVectors } from "#src/analysis/vectors/task-vectors";
import { set } from "#src/patching/edit";
import { logitDifference } from "#src/patching/metric";
import type { PatchableModel } from "#src/patching/model";
import { type Tap, tap } from "#src/patching/tap";
import type { Device, DeviceCounters } from "#src/tensor/device";
import type { Tensor } from "#src/tensor/tensor";
import { bestAndMedian, rounded } from "./harness.ts";
import { hooks } from "./hooks.ts";
import { layerChoice } from "./layer-choice.ts";
import type { LoadFigures } from "./load.ts";
import { loraStep } from "./lora-step.ts";
import { maps } from "./maps.ts";
import { nextToken, promptOf, readOnce } from "./model-work.ts";

/** What a main job came to; the fields differ from job to job, and their names carry the unit. */
export type JobResult = { readonly name: string } & Readonly<Record<string, unknown>>;

/** A main job, measured `rounds` times. */
export type Job = (model: PatchableModel, rounds: number) => Promise<JobResult>;

/** By the names that select them. */
export const JOBS: Readonly<Record<string, Job>> = {
  load,
  prefill,
  decode,
  tapping,
  sweep: (model, rounds) => sweep(model, rounds, 10),
  "short-sweep": (model, rounds) => sweep(model, rounds, 6),
  "layer-choice": layerChoice,
  gradients,
  "lora-step": loraStep,
  maps,
  hooks,
};

const PREFILL_TOKENS = 128;
const DECODE_TOKENS = 32;

/** From opening the folder to weights that are ready on the device, in processes of their own. */
async function load({ name: folder, device }: PatchableModel, rounds: number): Promise<JobResult> {
  const script = fileURLToPath(new URL("./load.js", import.meta.url));
  const figures: LoadFigures[] = [];
  for (let i = 0; i < rounds; i++) {
    const { stdout } = await promisify(execFile)(process.execPath, [script, folder]);
    figures.push(JSON.parse(stdout));
  }
  const mib = (bytes: number) => rounded(bytes / 2 ** 20);
  const most = (bytes: (f: LoadFigures) => number) => mib(Math.max(...figures.map(bytes)));
  const onHost = device.info.fallback;
  return {
    name: "load",
    ...summary(figures.map((f) => ({ ms: f.loadMs, cpuMs: f.cpuMs }))),
    weightMiB: most((f) => f.weightBytes),
    bufferMiB: most((f) => f.bufferBytes),
    baseMiB: most((f) => f.baseBytes),
    peakMiB: most((f) => f.peakBytes),
    afterMiB: most((f) => f.afterBytes),
    // A software driver's buffers are host memory too.
    hostMiBBeyondBuffers: most((f) => f.peakBytes - f.baseBytes - (onHost ? f.bufferBytes : 0)),
  };
}

/** One pass over a prompt, until the next token's id is on the host. */
async function prefill(model: PatchableModel, rounds: number): Promise<JobResult> {
  const prompt = promptOf(model, PREFILL_TOKENS);
  const run = () => readOnce(model.device, () => [nextToken(model, prompt)]);
  await run();
  const samples: Sample[] = [];
  for (let i = 0; i < rounds; i++) samples.push(await timed(run));
  const times = summary(samples);
  return {
    name: "prefill",
    tokens: prompt.length,
    ...times,
    tokensPerSecond: rounded((prompt.length / times.bestMs) * 1000),
    ...(await counted(model.device, run)),
  };
}

/** Tokens after the first, each fed back: what generation settles at after a short prompt. */
async function decode(model: PatchableModel, rounds: number): Promise<JobResult> {
  const { device } = model;
  const prompt = promptOf(model, 16);
  const generate = async () => {
    const marks: (Sample & { counters: DeviceCounters })[] = [];
    const onToken = () => marks.push({ ...now(), counters: device.counters });
    await model.generate(prompt, { maxNewTokens: DECODE_TOKENS + 1, stopIds: [], onToken });
    return [marks[0]!, marks.at(-1)!] as const;
  };
  await generate();
  const samples: Sample[] = [];
  for (let i = 0; i < rounds; i++) {
    const [first, last] = await generate();
    samples.push({
      ms: (last.ms - first.ms) / DECODE_TOKENS,
      cpuMs: (last.cpuMs - first.cpuMs) / DECODE_TOKENS,
    });
  }
  const [first, last] = await generate();
  const times = summary(samples);
  return {
    name: "decode",
    promptTokens: prompt.length,
    newTokens: DECODE_TOKENS,
    perToken: { ...times, ...difference(first.counters, last.counters, DECODE_TOKENS) },
    tokensPerSecond: rounded(1000 / times.bestMs),
  };
}

/** What it costs to copy the last row of every layer's resid_post, next to the same passes without taps. */
async function tapping(model: PatchableModel, rounds: number): Promise<JobResult> {
  const prompt = promptOf(model, PREFILL_TOKENS);
  const taps: Record<string, Tap<number>> = {};
  for (let layer = 0; layer < model.config.layers; layer++) taps[`${layer}`] = tap(`resid_post.${layer}`, -1);
  const plain = () => readOnce(model.device, () => [nextToken(model, prompt)]);
  const tapped = () => readOnce(model.device, () => [nextToken(model, prompt, { taps })]);
  await plain();
  await tapped();
  const plainSamples: Sample[] = [];
  const tappedSamples: Sample[] = [];
  // Many, for the difference is small; in turn, and in either order, so that a slow spell of the machine hits both.
  for (let i = 0; i < 3 * rounds; i++) {
    if (i % 2 === 0) plainSamples.push(await timed(plain));
    tappedSamples.push(await timed(tapped));
    if (i % 2 === 1) plainSamples.push(await timed(plain));
  }
  const [without, withTaps] = [summary(plainSamples), summary(tappedSamples)];
  const ratios = tappedSamples.map(({ ms }, i) => ms / plainSamples[i]!.ms);
  const { dispatches } = await counted(model.device, plain);
  const { dispatches: tappedDispatches } = await counted(model.device, tapped);
  return {
    name: "tapping",
    tokens: prompt.length,
    taps: model.config.layers,
    plain: without,
    tapped: withTaps,
    costPercentOfBest: rounded((withTaps.bestMs / without.bestMs - 1) * 100),
    costPercentMedianOfPairs: rounded((bestAndMedian(ratios).medianMs - 1) * 100),
    extraDispatches: tappedDispatches - dispatches,
  };
}

/**
 * Patches a task vector at each layer into the last token of one query, resumed from a recording, and the plain way: a
 * full pass for each layer, all of them recorded before the answers are read together.
 */
async function sweep(model: PatchableModel, rounds: number, tokens: number): Promise<JobResult> {
  const { device } = model;
  const query = promptOf(model, tokens);
  using vectors = extractTaskVectors(model, [promptOf(model, 24)]);
  const { layers } = vectors.origin;
  const resumed = () => sweepLayers(model, [query], vectors);
  const plain = () =>
    readOnce(device, () =>
      layers.map((layer) =>
        nextToken(model, query, { edits: [set(`resid_post.${layer}`, -1, vectors.at(layer))] }),
      ),
    );

  const { patched, rowLayers } = await resumed();
  const expected = await plain();
  patched.forEach(([id], i) => {
    if (id !== expected[i]![0]) {
      throw new Error(`sweep: layer ${layers[i]} gave token ${id}, and ${expected[i]![0]} when run in full`);
    }
  });

  const resumedSamples: Sample[] = [];
  const plainSamples: Sample[] = [];
  for (let i = 0; i < rounds; i++) {
    resumedSamples.push(await timed(resumed));
    plainSamples.push(await timed(plain));
  }
  const [fast, slow] = [summary(resumedSamples), summary(plainSamples)];
  const plainRowLayers = layers.length * query.length * model.config.layers;
  const counts = { resumed: await counted(device, resumed), plain: await counted(device, plain) };
  return {
    name: "sweep",
    tokens: query.length,
    layers: layers.length,
    resumed: { ...fast, rowLayers, ...counts.resumed },
    plain: { ...slow, rowLayers: plainRowLayers, ...counts.plain },
    ratio: {
      bestMs: rounded(fast.bestMs / slow.bestMs),
      rowLayers: rounded(rowLayers / plainRowLayers),
      dispatches: rounded(counts.resumed.dispatches / counts.plain.dispatches),
    },
  };
}

const GRADIENT_TOKENS = 64;

/** One pass forward and back, to the residual stream behind every layer, next to the pass forward alone. */
async function gradients(model: PatchableModel, rounds: number): Promise<JobResult> {
  const { device } = model;
  const prompt = promptOf(model, GRADIENT_TOKENS);
  const forward = () => readOnce(device, () => [model.run(prompt).logits!]);
  const back = (keepBytes?: number) => () =>
    readOnce(device, () => {
      const options = { of: "resid_post.*", ...(keepBytes !== undefined && { keepBytes }) } as const;
      const found = model.gradients(prompt, logitDifference(1, 2), options);
      return [...Object.values<Tensor>(found.gradients), found.metric];
    });
  const ways = { forward, kept: back(), computedAnew: back(0) };
  const samples: Record<string, Sample[]> = {};
  const peaks: Record<string, number> = {};
  for (const [name, run] of Object.entries(ways)) {
    await run();
    const before = device.memory.liveBytes;
    device.resetPeak();
    await run();
    peaks[name] = rounded((device.peakBytes - before) / 2 ** 20);
    samples[name] = [];
  }
  for (let i = 0; i < rounds; i++) {
    for (const [name, run] of Object.entries(ways)) samples[name]!.push(await timed(run));
  }
  const times = Object.fromEntries(Object.keys(ways).map((name) => [name, summary(samples[name]!)]));
  const ratio = (name: string) =>
    bestAndMedian(samples[name]!.map(({ ms }, i) => ms / samples["forward"]![i]!.ms));
  const counts: Record<string, unknown> = {};
  for (const [name, run] of Object.entries(ways)) counts[name] = await counted(device, run);
  return {
    name: "gradients",
    tokens: prompt.length,
    sites: model.config.layers,
    ...times,
    peakMiBBeyondWeights: peaks,
    timesForward: {
      kept: rounded(ratio("kept").medianMs),
      computedAnew: rounded(ratio("computedAnew").medianMs),
    },
    counts,
  };
}

interface Sample {
  ms: number;
  /** Of the process, all its threads together: with a software driver nearly all the work, otherwise the host's part. */
  cpuMs: number;
}

function now(): Sample {
  const { user, system } = process.cpuUsage();
  return { ms: performance.now(), cpuMs: (user + system) / 1000 };
}

async function timed(run: () => Promise<unknown>): Promise<Sample> {
  const start = now();
  await run();
  const end = now();
  return { ms: end.ms - start.ms, cpuMs: end.cpuMs - start.cpuMs };
}

function summary(samples: readonly Sample[]): { bestMs: number; medianMs: number; bestCpuMs: number } {
  const { bestMs, medianMs } = bestAndMedian(samples.map(({ ms }) => ms));
  const bestCpuMs = Math.min(...samples.map(({ cpuMs }) => cpuMs));
  return { bestMs: rounded(bestMs), medianMs: rounded(medianMs), bestCpuMs: rounded(bestCpuMs) };
}

/** What a warm run asks of WebGPU. */
async function counted(device: Device, run: () => Promise<unknown>): Promise<DeviceCounters> {
  const before = device.counters;
  await run();
  return difference(before, device.counters);
}

function difference(before: DeviceCounters, after: DeviceCounters, steps = 1): DeviceCounters {
  const entries = Object.entries(after) as [keyof DeviceCounters, number][];
  return Object.fromEntries(
    entries.map(([name, value]) => [name, rounded((value - before[name]) / steps)]),
  ) as unknown as DeviceCounters;
}
