import {
  aFunction,
  aKindOf,
  aNumber,
  anArray,
  anObject,
  aWholeFromOne,
  checkArgument,
  checkOptions,
  type Options,
} from "../arguments.ts";
import { ArgumentError } from "../errors.ts";
import { Tape } from "../gradient/tape.ts";
import { add, mul } from "../kernels/elementwise/elementwise.ts";
import { sum } from "../kernels/reduction/reduce.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { somePositions } from "../patching/arguments.ts";
import type { Edit } from "../patching/edit.ts";
import { defaultKeepBytes } from "../patching/gradients.ts";
import { PatchableModel } from "../patching/model.ts";
import type { Positions } from "../patching/positions.ts";
import { compute } from "../patching/run.ts";
import { nextTokenLoss, predictedPositions } from "../patching/run-metric.ts";
import type { Taps } from "../patching/tap.ts";
import type { Device } from "../tensor/device.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { ADAMW_OPTIONS, AdamW, type AdamWOptions } from "./adamw.ts";

/** A term of the loss that is made of activations. */
export interface AuxiliaryLoss {
  readonly taps: Taps;
  /** The values of the taps, as a run of several prompts gives them → f32 [prompts]. */
  readonly of: (taps: Readonly<Record<string, Tensor>>) => Tensor;
}

/** What a {@link Trainer} trains, on which loss, with the options of its optimizer. */
export interface TrainerOptions extends AdamWOptions {
  /**
   * What is trained, by names of one's own: an adapter's (`lora.parameters`), weights (`weightTensors`), values of edits (steering
   * vectors, soft prompts). All else stays.
   */
  readonly parameters: Readonly<Record<string, Tensor>>;
  /** The tokens that count: those of a span, say. Default all that a prompt predicts. */
  readonly loss?: Positions;
  /** Made in every run; their values may be parameters. */
  readonly edits?: readonly Edit[];
  /** Added to each prompt's loss, in steps alone: `evaluate` leaves it out. */
  readonly auxiliary?: AuxiliaryLoss;
  /** Prompts that go through the model at a time; the gradients of a step's are added up. Default all. */
  readonly microBatch?: number;
  /** The part of the learning rate for a step (from 0). Default 1. */
  readonly schedule?: (step: number) => number;
  /** See `GradientOptions`. */
  readonly keepBytes?: number;
}

const OPTIONS: Options<TrainerOptions> = {
  ...ADAMW_OPTIONS,
  parameters: anObject,
  loss: somePositions,
  edits: anArray,
  auxiliary: anObject,
  microBatch: aWholeFromOne,
  schedule: aFunction,
  keepBytes: aNumber,
};

/** What a step was; on the device, so that the next need not wait for it. */
export interface TrainingStep {
  /** Mean cross entropy, in nats, of the tokens that count, before the step, and the auxiliary loss: f32 []. */
  readonly loss: Tensor;
  /** Of all gradients together, before clipping: f32 []. */
  readonly gradNorm: Tensor;
}

/** Trains parts of a model to predict prompts' own tokens, a step at a time. */
export class Trainer {
  readonly optimizer: AdamW;
  readonly #model: PatchableModel;
  readonly #options: TrainerOptions;

  /** Throws ArgumentError for nothing to train, and for options that there are none of. */
  constructor(model: PatchableModel, options: TrainerOptions) {
    checkArgument("Trainer", "model", model, aKindOf(PatchableModel, "await loadModel(…)"));
    checkOptions("Trainer", options, OPTIONS, { required: ["parameters"] });
    if (Object.keys(options.parameters).length === 0) {
      throw new ArgumentError("Trainer: expected parameters to train, found none");
    }
    this.#model = model;
    this.#options = options;
    const { parameters, loss, edits, auxiliary, microBatch, schedule, keepBytes, ...optimizer } = options;
    this.optimizer = new AdamW(model.device, parameters, optimizer);
  }

  /** One step on these prompts. Throws as `gradients` does. */
  step(prompts: readonly Prompt[]): TrainingStep {
    const { microBatch = prompts.length, schedule = () => 1 } = this.#options;
    const { device } = this.#model;
    const counts = this.#counts(prompts);
    const total = counts.reduce((a, b) => a + b, 0);
    return device.scope(() => {
      let loss: Tensor | undefined;
      let gradients: Record<string, Tensor> | undefined;
      for (let start = 0; start < prompts.length; start += microBatch) {
        const end = start + microBatch;
        const shares = counts.slice(start, end).map((count) => count / total);
        const part = this.#back(prompts.slice(start, end), shares);
        const [lossBefore, before] = [loss, gradients];
        loss = lossBefore ? add(lossBefore, part.loss) : part.loss;
        gradients = before
          ? Object.fromEntries(
              Object.entries(part.gradients).map(([name, g]) => [name, add(before[name]!, g)]),
            )
          : part.gradients;
      }
      return { loss: loss!, gradNorm: this.optimizer.step(gradients!, schedule(this.optimizer.steps)) };
    });
  }

  /** The device of the model. */
  get device(): Device {
    return this.#model.device;
  }

  /** The mean loss of prompts, without a step: f32 []. */
  evaluate(prompts: readonly Prompt[]): Tensor {
    const counts = this.#counts(prompts);
    const total = counts.reduce((a, b) => a + b, 0);
    const { loss = "all", edits = [] } = this.#options;
    return this.#model.device.scope(() => {
      const { metric } = compute(
        "evaluate",
        this.#model,
        prompts,
        { edits },
        { metric: nextTokenLoss(loss) },
      );
      return this.#mean(
        metric as Tensor,
        counts.map((count) => count / total),
      );
    });
  }

  /** Frees the optimizer's state. Parameters and model stay. */
  dispose(): void {
    this.optimizer.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #counts(prompts: readonly Prompt[]): number[] {
    const { loss = "all" } = this.#options;
    const model = this.#model;
    return prompts.map((prompt) => predictedPositions(model, model.sequenceOf(prompt), loss).length);
  }

  #back(
    prompts: readonly Prompt[],
    shares: readonly number[],
  ): { loss: Tensor; gradients: Record<string, Tensor> } {
    const { parameters, loss = "all", edits = [], auxiliary, keepBytes } = this.#options;
    const { device } = this.#model;
    return device.scope(() => {
      using tape = new Tape(device, { keepBytes: keepBytes ?? defaultKeepBytes(device) });
      const watched = Object.entries(parameters).map(([name, tensor]) => [name, tape.watch(tensor)] as const);
      const weights = device.tensor(shares);
      const { metric } = compute(
        "train",
        this.#model,
        prompts,
        { edits, ...(auxiliary && { taps: auxiliary.taps }) },
        {
          metric: nextTokenLoss(loss),
          extra: auxiliary?.of as ((taps: Readonly<Record<string, unknown>>) => Tensor) | undefined,
          back: { tape, cotangent: weights },
        },
      );
      const gradients = watched.map(([name, each]) => [name, tape.gradientOfUsed(name, each)]);
      return { loss: this.#mean(metric as Tensor, shares), gradients: Object.fromEntries(gradients) };
    });
  }

  #mean(losses: Tensor, shares: readonly number[]): Tensor {
    return sum(mul(losses, losses.device.tensor(shares)));
  }
}

/** Weights as parameters to train, by the names that the checkpoint has them under; those in parts have a number behind. */
export function weightTensors(model: PatchableModel, names: readonly string[]): Record<string, Tensor> {
  const found = names.flatMap((name) => {
    const parameter = model.loaded.parameters.get(name);
    if (!parameter)
      throw new ArgumentError(`weightTensors: ${model.name} has no weight ${JSON.stringify(name)}`);
    const { tensors, packed } = parameter;
    if (packed)
      throw new ArgumentError(
        `weightTensors: ${name} is kept in ${packed}: adapt it (Lora) instead of training it`,
      );
    return tensors.map((tensor, i) => [tensors.length === 1 ? name : `${name}#${i}`, tensor] as const);
  });
  return Object.fromEntries(found);
}
