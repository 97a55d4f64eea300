import { GradientError } from "../errors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { Tape, type TapeOptions } from "./tape.ts";

/** What a function gave, and by how much it changes with each of some tensors. */
export interface ValueAndGradients {
  readonly value: Tensor;
  /** f32, each of the shape of its tensor. */
  readonly gradients: readonly Tensor[];
}

/**
 * Computes `fn()` and the gradient of its value (of the sum of its elements) with respect to `of`, by going back through the
 * operations that it was made of. Any tensor program; weights of a model may be among `of`.
 *
 * Throws GradientError where the value depends on none of them, or comes through an operation without gradient.
 *
 * @example const { gradients: [dw] } = valueAndGradients(() => sum(square(matmul(x, w))), [w]);
 */
export function valueAndGradients(
  fn: () => Tensor,
  of: readonly Tensor[],
  options: TapeOptions = {},
): ValueAndGradients {
  const [first] = of;
  if (!first) throw new GradientError("expected at least one tensor to take the gradient of");
  const { device } = first;
  return device.scope(() => {
    using tape = new Tape(device, options);
    const watched = of.map((tensor) => tape.watch(tensor));
    const made = tape.record(fn);
    tape.backward(made);
    const value = made.alias(); // it may be one of `of`, which is not ours to give
    const gradients = device.scope(() => watched.map((each) => tape.gradient(each).alias()));
    return { value, gradients };
  });
}

/**
 * The function that gives the gradients of `fn` with respect to its arguments, as in `jax.grad`.
 *
 * @example const dloss = grad((w, b) => mean(square(sub(linear(x, w, { bias: b }), y)));
 * const [dw, db] = dloss(w, b);
 */
export function grad<const T extends readonly Tensor[]>(
  fn: (...args: T) => Tensor,
): (...args: T) => { [K in keyof T]: Tensor } {
  return (...args) => {
    const { value, gradients } = valueAndGradients(() => fn(...args), args);
    value.dispose();
    return [...gradients] as { [K in keyof T]: Tensor };
  };
}
