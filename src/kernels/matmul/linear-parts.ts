import { ShapeError } from "../../errors.ts";
import { assertFloats } from "../../tensor/dtype.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { type Operand, Packed } from "../../tensor/packed/packed.ts";
import { type Flat, flat, packedFrom } from "../../tensor/packed/packed-inputs.ts";
import { showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type ActivationKind, gatedActivation } from "../elementwise/activation.ts";
import { MOST_PARTS } from "./epilogue.ts";
import { launchProduct, productKernel } from "./product-kernels.ts";

interface Attributes {
  readonly bias: boolean;
  /** Of a packed weight, whose parts are among the inputs. */
  readonly packed?: Flat;
}

export interface PartsAttributes extends Attributes {
  readonly sizes: readonly number[];
}

export interface GateAttributes extends Attributes {
  readonly kind: ActivationKind;
}

/**
 * Two or three linear layers that read the same rows, as one product: x [rows, K] @ weight^T (+ bias) -> f32 [rows, size] for
 * each of the sizes. `weight` [sum of the sizes, K] holds them one under the other (as `linear` takes it), `bias` likewise. The numbers are those of
 * `linear`, layer by layer.
 *
 * @throws ShapeError when shapes do not fit.
 * @throws DTypeError for integer operands.
 */
export function linearParts(
  x: Tensor,
  weight: Operand,
  sizes: readonly number[],
  { bias }: { bias?: Tensor | undefined } = {},
): Tensor[] {
  check("linearParts", x, weight, bias);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  if (sizes.length < 2 || sizes.length > MOST_PARTS || total !== weight.dim(0)) {
    throw new ShapeError(
      `linearParts: expected 2 to ${MOST_PARTS} sizes that add up to ${weight.dim(0)}, found ${showShape(sizes)}`,
    );
  }
  const { inputs, attributes } = operands(x, weight, bias);
  const whole = apply(partsOperation, inputs, { ...attributes, sizes });
  return partsOf(whole, x.dim(0), sizes);
}

/** Matrices [rows, size] that lie one after the other, as views in place of the whole. */
function partsOf(whole: Tensor, rows: number, sizes: readonly number[]): Tensor[] {
  let end = 0;
  const parts = sizes.map((size) => {
    const start = end;
    end += rows * size;
    return whole.view([rows, size], [size, 1], whole.offset + start);
  });
  whole.dispose();
  return parts;
}

/** Inputs: x, the weight (or its parts), bias. Output: f32 [rows * columns]. */
export const partsOperation: Operation<PartsAttributes> = {
  name: "linear (parts)",
  arithmetic: ([x], _, output) => 2 * x!.dim(1) * output.size,
  run(inputs, { sizes, ...attributes }, device) {
    const { x, weight, bias } = operandsOf(inputs, attributes);
    const out = device.empty([x.dim(0) * weight.dim(0)], "f32", "linear (parts)");
    return computed({ x, weight, bias, out }, (product) => launchProduct({ ...product, parts: sizes }));
  },
};

/**
 * The first half of a gated MLP (Shazeer 2020, arXiv 2002.05202): act(x @ gate^T) * (x @ up^T), for x [rows, K] and a weight [2 N, K]
 * that holds gate and up one under the other, as `bias` [2 N] does: f32 [rows, N]. One product where a kernel of the device
 * does that, with the numbers of `linear` and `gatedActivation`.
 *
 * @throws ShapeError when shapes do not fit.
 * @throws DTypeError for integer operands.
 */
export function gatedLinear(
  x: Tensor,
  weight: Operand,
  kind: ActivationKind,
  { bias }: { bias?: Tensor | undefined } = {},
): Tensor {
  check("gatedLinear", x, weight, bias);
  if (weight.dim(0) % 2 !== 0) {
    throw new ShapeError(`gatedLinear: expected a weight [2 N, K], found ${showShape(weight.shape)}`);
  }
  const { inputs, attributes } = operands(x, weight, bias);
  return apply(gateOperation, inputs, { ...attributes, kind });
}

/** Inputs: x, the weight (or its parts), bias. */
export const gateOperation: Operation<GateAttributes> = {
  name: "linear (gated)",
  arithmetic: ([x], _, output) => 4 * x!.dim(1) * output.size,
  run(inputs, { kind, ...attributes }, device) {
    const { x, weight, bias } = operandsOf(inputs, attributes);
    const columns = weight.dim(0) / 2;
    const out = device.empty([x.dim(0), columns], "f32", "linear (gated)");
    let fits = true;
    computed({ x, weight, bias, out }, (product) => {
      const gated = { ...product, gate: kind };
      const kernel = productKernel(gated);
      fits = kernel !== undefined;
      kernel?.launch(gated);
    });
    if (fits) return out;
    const [gate, up] = linearParts(x, weight, [columns, columns], { bias });
    return gatedActivation(gate!, up!, kind);
  },
};

function check(name: string, x: Tensor, weight: Operand, bias: Tensor | undefined): void {
  assertFloats(name, [x, ...(weight instanceof Packed ? [] : [weight]), ...(bias ? [bias] : [])]);
  if (x.rank !== 2 || weight.rank !== 2 || x.dim(1) !== weight.dim(1)) {
    throw new ShapeError(
      `${name}: expected x [rows, K] and weight [N, K], found ${showShape(x.shape)} and ${showShape(weight.shape)}`,
    );
  }
  if (bias && (bias.rank !== 1 || bias.dim(0) !== weight.dim(0))) {
    throw new ShapeError(`${name}: expected bias [${weight.dim(0)}], found ${showShape(bias.shape)}`);
  }
}

function operands(
  x: Tensor,
  weight: Operand,
  bias: Tensor | undefined,
): { inputs: Tensor[]; attributes: Attributes } {
  const after = bias ? [bias] : [];
  const attributes = { bias: bias !== undefined };
  if (!(weight instanceof Packed)) return { inputs: [x, weight, ...after], attributes };
  const { inputs, attributes: packed } = flat(weight);
  return { inputs: [x, ...inputs, ...after], attributes: { ...attributes, packed } };
}

/** The operands again, by inputs and attributes of a record. */
export function operandsOf(
  inputs: readonly Tensor[],
  { bias, packed }: Attributes,
): { x: Tensor; weight: Operand; bias: Tensor | undefined } {
  const [x, dense] = inputs as [Tensor, Tensor];
  return {
    x,
    weight: packed ? packedFrom(packed, inputs.slice(1)) : dense,
    bias: bias ? inputs.at(-1) : undefined,
  };
}

function computed(
  { x, weight, bias, out }: { x: Tensor; weight: Operand; bias: Tensor | undefined; out: Tensor },
  launch: (product: Parameters<typeof launchProduct>[0]) => void,
): Tensor {
  const b = weight.transpose();
  launch({ a: x, b, bias, residual: undefined, out });
  if (b instanceof Packed) b.dispose();
  return out;
}
