import { gatedActivation } from "../../kernels/elementwise/activation.ts";
import { activationBackward } from "../../kernels/elementwise/activation-backward.ts";
import { linear } from "../../kernels/matmul/linear.ts";
import { gateOperation, linearParts, operandsOf, partsOperation } from "../../kernels/matmul/linear-parts.ts";
import { matmul } from "../../kernels/matmul/matmul.ts";
import { concat } from "../../kernels/movement/concat.ts";
import { sum } from "../../kernels/reduction/reduce.ts";
import { type Operand, Packed } from "../../tensor/packed/packed.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type BackwardCall, type Rule, rule } from "../rule.ts";

type Attributes = Parameters<typeof operandsOf>[1];

/** Numbers of the inputs that are the weight: one, or the parts of a packed one. */
function weightInputs({ packed }: Attributes): number[] {
  return packed ? packed.parts.map((_, i) => 1 + i) : [1];
}

/** What flows back to x, the weight and the bias from what flows to each part of the result, [rows, size]. */
function flowBack<A extends Attributes>(
  call: BackwardCall<A>,
  cotangents: readonly Tensor[],
  weight: Operand | undefined,
): (Tensor | undefined)[] {
  const { attributes, inputs } = call;
  const gradients: (Tensor | undefined)[] = inputs.map(() => undefined);
  if (call.wanted(0)) {
    let row = 0;
    let soFar = call.takeSum(0);
    for (const dy of cotangents) {
      const own = weight!.rows(row, row + dy.dim(1));
      const turned = own.transpose();
      row += dy.dim(1);
      soFar = linear(dy, turned, soFar ? { add: soFar } : {}); // dy @ W
      for (const view of [own, turned]) if (view instanceof Packed) view.dispose();
    }
    gradients[0] = soFar;
  }
  if (!attributes.packed && call.wanted(1)) {
    gradients[1] = concat(cotangents.map((dy) => matmul(dy.transpose(), call.value(0))));
  }
  const last = inputs.length - 1;
  if (attributes.bias && call.wanted(last)) gradients[last] = concat(cotangents.map((dy) => sum(dy, 0)));
  return gradients;
}

function weightOf<A extends Attributes>(call: BackwardCall<A>): Operand {
  const values = call.inputs.map((_, i) =>
    weightInputs(call.attributes).includes(i) ? call.value(i) : undefined,
  );
  return operandsOf(values as Tensor[], call.attributes).weight;
}

/** Each part is x @ W^T + bias, with rows of W of its own. */
const partsRule = rule({
  operation: partsOperation,
  needs: (attributes, wanted) => ({
    inputs: [...(wanted(0) ? weightInputs(attributes) : []), ...(wanted(1) ? [0] : [])],
  }),
  backward(call) {
    const rows = call.inputs[0]!.shape[0]!;
    let end = 0;
    const cotangents = call.attributes.sizes.map((size) => {
      const start = end;
      end += rows * size;
      const own = call.cotangent.slice(0, start, end); // perhaps of any stride
      return own.view([rows, size], [size * own.strides[0]!, own.strides[0]!], own.offset);
    });
    return flowBack(call, cotangents, call.wanted(0) ? weightOf(call) : undefined);
  },
});

/** out = act(gate) * up, where gate and up, which nobody kept, are the parts of a product. */
const gateRule = rule({
  operation: gateOperation,
  needs: ({ bias, ...attributes }, _wanted, inputs) => ({
    inputs: [0, ...weightInputs({ bias, ...attributes }), ...(bias ? [inputs.length - 1] : [])],
  }),
  backward(call) {
    const { cotangent: dy, attributes, inputs } = call;
    const weight = weightOf(call);
    const bias = attributes.bias ? call.value(inputs.length - 1) : undefined;
    const columns = dy.dim(1);
    const [gate, up] = linearParts(call.value(0), weight, [columns, columns], { bias }) as [Tensor, Tensor];
    const cotangents = [
      activationBackward(gate, dy, attributes.kind, up),
      gatedActivation(gate, dy, attributes.kind),
    ];
    return flowBack(call, cotangents, weight);
  },
});

export const LINEAR_PARTS_RULES: readonly Rule[] = [partsRule, gateRule];
