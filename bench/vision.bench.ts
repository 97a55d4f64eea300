import { resolve } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { loadImage } from "../src/images/load.ts";
import { activation } from "../src/kernels/activation.ts";
import { copy } from "../src/kernels/copy.ts";
import { linear, toPreferredLayout } from "../src/kernels/linear.ts";
import { rowsPerImage } from "../src/model/vision-tower.ts";
import { loadModel, type PatchableModel } from "../src/patching/model.ts";
import { type Device, openDevice } from "../src/tensor/device.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import type { BenchCase, BenchResult } from "./harness.ts";

/**
 * Loading a LLaVA checkpoint, its tower, its projector, and the prefill of a prompt with an image. The first argument is
 * the checkpoint's folder (scripts/make-llava.mjs writes one of full width); without it, the tiny one of the tests.
 */
const folder = process.argv[2] ?? fileURLToPath(new URL("../test/fixtures/llava/model", import.meta.url));
const picture = fileURLToPath(new URL("../test/fixtures/images/photo.png", import.meta.url));
const PROMPT = "USER: <image>\nWhat is shown in the image? ASSISTANT:";

/** A run may take a minute on a software driver, so there are few. */
const ROUNDS = 3;

/** Loads the model and says what that took, most of all in memory. */
async function load(device: Device): Promise<PatchableModel> {
  const before = process.memoryUsage().rss;
  let peak = before;
  let peakBuffers = 0;
  let loading = true;
  const watching = (async () => {
    while (loading) {
      peak = Math.max(peak, process.memoryUsage().rss);
      peakBuffers = Math.max(peakBuffers, device.memory.liveBytes + device.memory.freeBytes);
      await wait(5);
    }
  })();
  const start = performance.now();
  const model = await loadModel(folder, { device });
  await device.sync();
  const seconds = (performance.now() - start) / 1000;
  loading = false;
  await watching;
  console.log(
    JSON.stringify({
      name: "load",
      adapter: device.info.description || device.info.vendor,
      dtype: model.storedDtypes.join(" and "),
      layers: model.config.layers,
      seconds: round(seconds),
      weightBytes: device.memory.liveBytes,
      peakBufferBytes: peakBuffers,
      // Of the process, over what it had before. A software driver keeps the buffers there too.
      peakHostBytes: peak - before,
      peakHostBytesBeyondBuffers: peak - before - (device.info.fallback ? peakBuffers : 0),
    }),
  );
  return model;
}

function* cases(
  model: PatchableModel,
  prompt: ReturnType<PatchableModel["prompt"]>,
  dtype: string,
): Generator<BenchCase> {
  const { device, config } = model;
  const setup = config.vision!;
  const { tower, featureLayer, tokensPerImage } = setup;
  const rows = rowsPerImage(tower);
  const last = `vision.resid_post.${featureLayer - 1}` as const;
  const perLayer = 4 * tower.width ** 2 + 2 * tower.width * tower.mlpWidth;
  yield {
    name: `vision tower, ${featureLayer} of ${tower.layers} layers`,
    dtype,
    shapes: { rows: [rows, tower.width] },
    flops: featureLayer * (2 * rows * perLayer + 4 * rows ** 2 * tower.width),
    run() {
      for (const { value } of model.walk(prompt, (site) => site === last)) return copy(value);
      throw new Error(`${last} never came by`);
    },
  };
  const weights = [
    device.zeros([config.width, tower.width], "f16"),
    device.zeros([config.width, config.width], "f16"),
  ];
  const [w1, w2] = weights.map((w) => toPreferredLayout(w)) as [Tensor, Tensor];
  const features = device.zeros([tokensPerImage, tower.width]);
  yield {
    name: "projector",
    dtype: "f16",
    shapes: { features: features.shape, weight1: w1.shape, weight2: w2.shape },
    flops: 2 * tokensPerImage * config.width * (tower.width + config.width),
    run: () => linear(activation(linear(features, w1), "gelu"), w2),
  };
  yield {
    name: `tower, projector and prefill of ${config.layers} layers`,
    dtype,
    shapes: { prompt: [prompt.length, config.width] },
    run: () => model.run(prompt).logits!,
    async check(logits) {
      if ((await logits.read()).some(Number.isNaN)) throw new Error("the logits have NaN among them");
    },
  };
}

async function measure(device: Device, bench: BenchCase): Promise<BenchResult> {
  const output = device.scope(() => bench.run());
  await bench.check?.(output);
  output.dispose();
  await device.sync();
  const times: number[] = [];
  const before = device.counters.dispatches;
  for (let i = 0; i < ROUNDS; i++) {
    const start = performance.now();
    device.scope(() => {
      bench.run();
    });
    await device.sync();
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  const { name, dtype, shapes, flops } = bench;
  const { description, vendor, kernels } = device.info;
  return {
    name,
    adapter: description || vendor,
    kernels,
    dtype,
    shapes,
    bestMs: round(times[0]!),
    medianMs: round(times[ROUNDS >> 1]!),
    ...(flops && { gflops: round(flops / times[0]! / 1e6) }),
    dispatches: (device.counters.dispatches - before) / ROUNDS,
  };
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}

const device = await openDevice();
const model = await load(device);
const prompt = model.prompt(PROMPT, { images: [await loadImage(resolve(picture))] });
for (const bench of cases(model, prompt, model.storedDtypes[0]!)) {
  console.log(JSON.stringify(await measure(device, bench)));
}
await device.destroy();
