import { loadImage } from "#src/images/files/load";
import { activation } from "#src/kernels/elementwise/activation";
import { linear, toPreferredLayout } from "#src/kernels/matmul/linear";
import { copy } from "#src/kernels/movement/copy";
import type { Prompt } from "#src/model/prompt/prompt";
import type { PatchableModel } from "#src/patching/model";
import type { Tensor } from "#src/tensor/tensor";
import type { BenchCase } from "./harness.ts";

const TEXT = "USER: <image>\nWhat is shown in the image? ASSISTANT:";

/** A LLaVA's tower, its projector, and the prefill of a prompt with a picture. */
export async function visionCases(model: PatchableModel, picture: string): Promise<Iterable<BenchCase>> {
  const prompt = model.prompt(TEXT, { images: [await loadImage(picture)] });
  return cases(model, prompt, model.storedDtypes[0]!);
}

function* cases(model: PatchableModel, prompt: Prompt, dtype: string): Generator<BenchCase> {
  const { device, config } = model;
  const setup = config.vision!;
  const { tower, featureLayer } = setup;
  const { tokens: tokensPerImage, towerRows: rows } = setup.fixed!;
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
