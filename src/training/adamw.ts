import { aFunction, aListOf, aNumber, checkOptions, type Options } from "../arguments.ts";
import { ShapeError } from "../errors.ts";
import { add, div, minimum, mul, sqrt, square } from "../kernels/elementwise/elementwise.ts";
import { contiguous, place, roundInto } from "../kernels/movement/copy.ts";
import { sum } from "../kernels/reduction/reduce.ts";
import type { Device } from "../tensor/device.ts";
import { isFloat } from "../tensor/dtype.ts";
import { defineKernel } from "../tensor/kernel.ts";
import { apply, type Operation } from "../tensor/operation.ts";
import { type Shape, sameShape, showShape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** The hyperparameters of {@link AdamW}, with PyTorch's defaults. */
export interface AdamWOptions {
  /** Default 1e-3. */
  readonly learningRate?: number;
  readonly betas?: readonly [number, number];
  readonly eps?: number;
  /** Times the learning rate, of every parameter. Default 0.01. */
  readonly weightDecay?: number;
  /** What is otherwise for a parameter, by its name: PyTorch's parameter groups. */
  readonly each?: (name: string) => Pick<AdamWOptions, "learningRate" | "weightDecay">;
  /** Gradients whose norm, all together, is above this are scaled down to it. Default: they stay as they are. */
  readonly maxGradNorm?: number;
}

export const ADAMW_OPTIONS: Options<AdamWOptions> = {
  learningRate: aNumber,
  betas: aListOf(aNumber),
  eps: aNumber,
  weightDecay: aNumber,
  each: aFunction,
  maxGradNorm: aNumber,
};

/** What an optimizer keeps of one parameter. Each f32 [elements]. */
interface Slot {
  readonly learningRate: number;
  readonly weightDecay: number;
  /** Its shape, and its axes as they lie in memory. */
  readonly shape: Shape;
  readonly order: number[];
  /** The parameter's memory, in its own dtype. */
  readonly target: Tensor;
  /** The parameter, unrounded: the target itself where that is f32. */
  readonly master: Tensor;
  readonly mean: Tensor;
  readonly square: Tensor;
  /** One of these in the parameter's own shape: a view. */
  shaped(flat: Tensor): Tensor;
}

/** What there is to save of an optimizer. */
export interface OptimizerState {
  readonly step: number;
  /** `<parameter>.value` (unrounded), `<parameter>.mean` and `<parameter>.square`: f32 of the parameter's shape. */
  readonly tensors: Readonly<Record<string, Tensor>>;
}

/**
 * Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101), step by step as `torch.optim.AdamW`; changes
 * the parameters in place. Parameters that are stored in 16 bits are kept unrounded beside that.
 *
 * Gradients' norm and clipping stay on the device: a step waits for nothing.
 */
export class AdamW {
  readonly #device: Device;
  readonly #options: Required<Pick<AdamWOptions, "betas" | "eps">> & Pick<AdamWOptions, "maxGradNorm">;
  readonly #slots: ReadonlyMap<string, Slot>;
  #step = 0;

  /** Throws ShapeError for a parameter whose elements do not lie side by side in memory, and ArgumentError. */
  constructor(device: Device, parameters: Readonly<Record<string, Tensor>>, options: AdamWOptions = {}) {
    checkOptions("AdamW", options, ADAMW_OPTIONS);
    this.#device = device;
    const { learningRate = 1e-3, weightDecay = 0.01, each = () => ({}) } = options;
    const { betas = [0.9, 0.999], eps = 1e-8, maxGradNorm } = options;
    this.#options = { betas, eps, ...(maxGradNorm !== undefined && { maxGradNorm }) };
    this.#slots = new Map(
      Object.entries(parameters).map(([name, parameter]) => {
        const order = memoryOrder(name, parameter);
        const target = parameter.permute(order).reshape([parameter.size]);
        const { size } = target;
        const { shape, strides } = parameter;
        const shaped = (flat: Tensor) => flat.view(shape, strides, flat.offset);
        const master = target.dtype === "f32" ? target : device.scope(() => mul(target, 1));
        const [mean, square] = [device.zeros([size]), device.zeros([size])];
        return [
          name,
          { learningRate, weightDecay, ...each(name), shape, order, target, master, mean, square, shaped },
        ];
      }),
    );
  }

  /** Steps done so far. */
  get steps(): number {
    return this.#step;
  }

  /**
   * One step along gradients, by name and each of its parameter's shape. Parameters without one stay as they are, decay included. Learning rates are multiplied by `factor`, which schedules give. Gives the norm of all gradients
   * together, before clipping: f32 [].
   */
  step(gradients: Readonly<Record<string, Tensor>>, factor = 1): Tensor {
    const { betas, eps, maxGradNorm } = this.#options;
    this.#step++;
    return this.#device.scope(() => {
      const given = Object.entries(gradients).map(([name, gradient]) => {
        const slot = this.#slots.get(name);
        if (!slot || !sameShape(slot.shape, gradient.shape)) {
          const expected = slot ? showShape(slot.shape) : "a parameter of the optimizer";
          throw new ShapeError(`AdamW: ${name}: expected ${expected}, found ${showShape(gradient.shape)}`);
        }
        // In the order of the parameter's memory, whichever its own is.
        const ordered = contiguous(gradient.permute(slot.order));
        return { slot, gradient: ordered.reshape([gradient.size]) };
      });
      const norm = sqrt(given.map(({ gradient }) => sum(square(gradient))).reduce((a, b) => add(a, b)));
      const clip = maxGradNorm === undefined ? undefined : minimum(div(maxGradNorm, add(norm, 1e-6)), 1);
      for (const { slot, gradient } of given) {
        const { master, mean, square, target, weightDecay } = slot;
        const learningRate = slot.learningRate * factor;
        const inputs = [master, gradient, mean, square, ...(clip ? [clip] : [])];
        apply(adamwOperation, inputs, {
          decay: 1 - learningRate * weightDecay,
          beta1: betas[0],
          beta2: betas[1],
          size: learningRate / (1 - betas[0] ** this.#step),
          correction: 1 / Math.sqrt(1 - betas[1] ** this.#step),
          eps,
        });
        if (master !== target) roundInto(target, master);
      }
      return norm;
    });
  }

  /** What a later optimizer of such parameters needs to go on from here, them included: views, made in the current scope. */
  get state(): OptimizerState {
    const tensors: Record<string, Tensor> = {};
    for (const [name, { master, mean, square, shaped }] of this.#slots) {
      tensors[`${name}.value`] = shaped(master);
      tensors[`${name}.mean`] = shaped(mean);
      tensors[`${name}.square`] = shaped(square);
    }
    return { step: this.#step, tensors };
  }

  /** Goes on from a {@link state}, given as numbers in row-major order. Throws ShapeError for one of other parameters. */
  restore(step: number, values: ReadonlyMap<string, Float32Array<ArrayBuffer>>): void {
    this.#device.scope(() => {
      const { tensors } = this.state;
      for (const [name, { size }] of Object.entries(tensors)) {
        const found = values.get(name)?.length;
        if (found !== size) {
          throw new ShapeError(`AdamW: ${name}: expected ${size} numbers, found ${found ?? "none"}`);
        }
      }
      for (const [name, tensor] of Object.entries(tensors)) {
        place(tensor, this.#device.tensor(values.get(name)!, { shape: tensor.shape }));
      }
      for (const { master, target } of this.#slots.values()) if (master !== target) roundInto(target, master);
    });
    this.#step = step;
  }

  /** Frees the moments and master copies. The parameters stay. */
  dispose(): void {
    for (const { target, master, mean, square } of this.#slots.values()) {
      for (const tensor of new Set([target, master, mean, square])) tensor.dispose();
    }
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The axes of a tensor from the outermost in memory to the innermost. Throws ShapeError unless its floats lie side by side. */
function memoryOrder(name: string, tensor: Tensor): number[] {
  const axes = tensor.shape.map((_, i) => i);
  const order = axes.sort((a, b) => tensor.strides[b]! - tensor.strides[a]! || a - b);
  if (tensor.permute(order).contiguous && isFloat(tensor.dtype)) return order;
  throw new ShapeError(
    `${name}: expected floats that lie side by side, found ${tensor} with strides ${showShape(tensor.strides)}`,
  );
}

interface StepAttributes {
  /** What weight decay leaves of a parameter. */
  readonly decay: number;
  readonly beta1: number;
  readonly beta2: number;
  /** Learning rate, corrected for the mean's start at zero. */
  readonly size: number;
  /** Of the root of the squares, for theirs. */
  readonly correction: number;
  readonly eps: number;
}

const SIZE = 64;

const kernel = defineKernel({
  name: "adamw",
  bindings: { x: "update", gradient: "read", mean: "update", squares: "update", clip: "read?" },
  params: {
    count: "u32",
    decay: "f32",
    beta1: "f32",
    beta2: "f32",
    // 1 - beta, which f32 would not get from beta.
    rest1: "f32",
    rest2: "f32",
    size: "f32",
    correction: "f32",
    eps: "f32",
  },
  code: ({ has }) => `
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.count) { return; }
  let g = gradient_at(i)${has("clip") ? " * clip_at(0u)" : ""};
  let mean = params.beta1 * mean_at(i) + params.rest1 * g;
  let squares = params.beta2 * squares_at(i) + params.rest2 * g * g;
  mean_set(i, mean);
  squares_set(i, squares);
  x_set(i, x_at(i) * params.decay - params.size * mean / (sqrt(squares) * params.correction + params.eps));
}`,
});

const adamwOperation: Operation<StepAttributes> = {
  name: "adamw",
  run([x, gradient, mean, squares, clip], { decay, beta1, beta2, size, correction, eps }) {
    kernel.launch({
      tensors: { x: x!, gradient: gradient!, mean: mean!, squares: squares!, clip },
      params: {
        count: x!.size,
        decay,
        beta1,
        beta2,
        rest1: 1 - beta1,
        rest2: 1 - beta2,
        size,
        correction,
        eps,
      },
      constants: {},
      workgroups: Math.ceil(x!.size / SIZE),
    });
    return x!;
  },
};
