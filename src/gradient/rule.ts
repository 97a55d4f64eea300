import type { DType } from "../tensor/dtype.ts";
import type { Operation } from "../tensor/operation.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** What a rule may ask about an input without its value. */
export interface InputShape {
  readonly shape: Shape;
  readonly strides: readonly number[];
  readonly dtype: DType;
}

/** Which values of an applied operation its rule reads; all others may be forgotten. */
export interface Needs {
  /** Numbers of inputs. */
  readonly inputs?: readonly number[];
  readonly output?: boolean;
}

/** One applied operation on the way back. */
export interface BackwardCall<A> {
  readonly attributes: A;
  readonly inputs: readonly InputShape[];
  /** d(result) / d(output): f32, of the output's shape, possibly a view of any strides. */
  readonly cotangent: Tensor;
  /** Whether anybody asks for the gradient of an input. */
  wanted(input: number): boolean;
  /** The value of an input that {@link Rule.needs} names. */
  value(input: number): Tensor;
  /** The output, where {@link Rule.needs} says so. */
  output(): Tensor;
  /**
   * What later uses of an input have added up to so far, of the input's shape: a rule that takes it adds its own part to it
   * (in the same kernel, say) and gives back the sum. Undefined where there is nothing yet, or not in one piece.
   */
  takeSum(input: number): Tensor | undefined;
}

/** How the gradient of an operation's output becomes that of its inputs. */
export interface Rule<A = unknown> {
  readonly operation: Operation<A>;
  /** Nothing flows back: the output does not change with the inputs, or in steps. It may depend on the attributes. */
  readonly constant?: true | ((attributes: A) => boolean);
  needs(attributes: A, wanted: (input: number) => boolean, inputs: readonly InputShape[]): Needs;
  /**
   * The gradients of the inputs, in their order and f32: each of its input's shape, undefined for those that are not wanted
   * or on which the output does not depend. Temporaries may be left undisposed.
   */
  backward(call: BackwardCall<A>): readonly (Tensor | undefined)[];
}

/** Checks the types of a rule that goes into a list with others. */
export function rule<A>(made: Rule<A>): Rule {
  return made as Rule;
}

/** Whether nothing flows back through an operation applied with these attributes. */
export function isConstant<A>({ constant }: Rule<A>, attributes: A): boolean {
  return typeof constant === "function" ? constant(attributes) : constant === true;
}

/** The rule of an operation through which nothing flows back. */
export function constantRule<A>(operation: Operation<A>): Rule {
  return rule<A>({ operation, constant: true, needs: () => ({}), backward: () => [] });
}
