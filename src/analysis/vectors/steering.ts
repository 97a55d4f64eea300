import {
  aCount,
  aFunction,
  aKindOf,
  aListOf,
  aNumber,
  aString,
  aWholeFromOne,
  checkOptions,
  either,
  type Options,
} from "../../arguments.ts";
import { GradientError, PromptError, ShapeError } from "../../errors.ts";
import { mul } from "../../kernels/elementwise/elementwise.ts";
import { copy } from "../../kernels/movement/copy.ts";
import { hashPrompts, type Prompt } from "../../model/prompt/prompt.ts";
import type { SiteName } from "../../model/walk/sites.ts";
import { checkModelAndPrompts, somePositions } from "../../patching/arguments.ts";
import { addVector } from "../../patching/edit.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { type Positions, showPositions } from "../../patching/positions.ts";
import { showShape } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { shuffledBatch } from "../../training/data-order.ts";
import { Trainer, type TrainingStep } from "../../training/trainer.ts";
import { vectorSite } from "../layers.ts";
import { TaskVectors } from "./task-vectors.ts";

/** Where {@link trainSteering} adds its vector, and how it trains it. */
export interface SteeringOptions {
  /** Where the vector is added: a site of a layer whose rows are vectors, `resid_post.12` say. */
  site: SiteName;
  /** At which positions of each prompt: one vector for all of them. */
  at: Positions;
  /** What it starts from: [features], which stays as it is. Default: zeros. */
  start?: Tensor | Float32Array | readonly number[];
  /** How often the vector changes. */
  steps: number;
  /** Of AdamW, without weight decay. Default 0.05. */
  learningRate?: number;
  /** The tokens whose cross entropy is brought down: `{ span: "answer" }`, say. Default: all that a prompt predicts. */
  loss?: Positions;
  /** Prompts in a step, in an order that the seed draws. Default: all. */
  batch?: number;
  seed?: number;
  /** Called after each step with its loss. */
  onStep?: (step: number, loss: number) => void;
}

const OPTIONS: Options<SteeringOptions> = {
  site: aString,
  at: somePositions,
  start: either(aKindOf(Tensor, "of [features]"), aListOf(aNumber)),
  steps: aWholeFromOne,
  learningRate: aNumber,
  loss: somePositions,
  batch: aWholeFromOne,
  seed: aCount,
  onStep: aFunction,
};

/** A steering vector that {@link trainSteering} has trained, with its losses. */
export interface Steering {
  /** The vector, in the form that task vectors are saved, loaded and patched in: `vectors.at(layer)` is [features]. */
  readonly vectors: TaskVectors;
  /** Of each step, the mean loss of its prompts before it, in nats. */
  readonly losses: readonly number[];
  /** The mean loss of all prompts with the vector that training started from, and with the one that it gave. */
  readonly before: number;
  readonly after: number;
}

/**
 * Trains one vector that, added to an activation, makes a model predict these prompts' tokens (Subramani et al. 2022, arXiv
 * 2205.05124); the model stays as it is. The same call gives the same vector on the same adapter.
 *
 * Throws SiteError for a site that is no vector of a layer, ShapeError for a start of another width, PromptError for no prompts,
 * GradientError where the loss does not depend on the vector or is not finite, and what `Trainer` throws.
 *
 * @example const { vectors } = await trainSteering(model, prompts, { site: "resid_post.12", at: lastAsked, steps: 50 });
 * const { text } = await model.generate(prompt, { edits: [addVector("resid_post.12", -1, vectors.at(12))] });
 */
export async function trainSteering(
  model: PatchableModel,
  prompts: readonly Prompt[],
  options: SteeringOptions,
): Promise<Steering> {
  checkModelAndPrompts("trainSteering", model, "prompts", prompts);
  checkOptions("trainSteering", options, OPTIONS, { required: ["site", "at", "steps"] });
  const {
    site,
    at,
    start,
    steps,
    learningRate = 0.05,
    loss = "all",
    batch = prompts.length,
    seed = 0,
    onStep,
  } = options;
  if (prompts.length === 0) throw new PromptError("trainSteering: expected at least one prompt, found none");
  const { layer, features, ...address } = vectorSite("trainSteering", model, site);
  const { device } = model;
  const scope = device.openScope();
  try {
    const vector = scope.enter(() => startOf(model, features, start));
    const trainer = scope.enter(
      () =>
        new Trainer(model, {
          parameters: { vector },
          edits: [addVector(site, at, vector)],
          loss,
          learningRate,
          weightDecay: 0,
        }),
    );
    const item = (make: () => Tensor) => {
      using value = scope.enter(make);
      return value.item();
    };
    try {
      const before = await item(() => trainer.evaluate(prompts));
      const losses: number[] = [];
      for (let step = 0; step < steps; step++) {
        const drawn =
          batch >= prompts.length ? prompts.keys() : shuffledBatch(prompts.length, batch, { step, seed });
        const [value, norm] = await readStep(
          scope.enter(() => trainer.step([...drawn].map((i) => prompts[i]!))),
        );
        checkStep(norm, `${site} at ${showPositions(at)}`, loss);
        losses.push(value);
        onStep?.(step, value);
      }
      const after = await item(() => trainer.evaluate(prompts));
      const trained = device.scope(() => copy(vector.reshape([1, vector.size])));
      const vectors = new TaskVectors(trained, {
        model: model.name,
        ...address,
        layers: [layer],
        position: showPositions(at),
        prompts: prompts.length,
        promptHash: hashPrompts(prompts),
        weights: model.storedDtypes[0] ?? "unknown",
      });
      return { vectors, losses, before, after };
    } finally {
      trainer.dispose();
    }
  } finally {
    scope.dispose();
  }
}

/** Loss and norm of the gradient. */
async function readStep({ loss, gradNorm }: TrainingStep): Promise<[number, number]> {
  const [[value], [norm]] = (await loss.device.read([loss, gradNorm])) as [Float32Array, Float32Array];
  loss.dispose();
  gradNorm.dispose();
  return [value!, norm!];
}

/** A gradient of 0 is most often of tokens before those that the vector is added to. */
function checkStep(norm: number, where: string, loss: Positions): void {
  if (norm > 0 && norm < Number.POSITIVE_INFINITY) return;
  const found =
    norm === 0
      ? `does not depend on ${where}; expected tokens behind it`
      : `has a gradient of ${norm} by ${where}`;
  throw new GradientError(`trainSteering: the loss (${showPositions(loss)}) ${found}`);
}

/** A copy of what training starts from: f32 [features]. */
function startOf({ device }: PatchableModel, features: number, start: SteeringOptions["start"]): Tensor {
  if (start === undefined) return device.zeros([features]);
  const given = start instanceof Tensor ? start : device.tensor(Float32Array.from(start));
  if (given.rank !== 1 || given.size !== features) {
    throw new ShapeError(`trainSteering: expected a start [${features}], found ${showShape(given.shape)}`);
  }
  return mul(given, 1);
}
