import { linear, linearOperation, packedLinearOperation } from "../../kernels/matmul/linear.ts";
import { matmul, matmulOperation } from "../../kernels/matmul/matmul.ts";
import { sum } from "../../kernels/reduction/reduce.ts";
import { packedFrom } from "../../tensor/packed/packed-inputs.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type Rule, rule } from "../rule.ts";
import { sumTo } from "./sum-to.ts";

/** out = x @ W^T + bias + add. */
const linearRule = rule({
  operation: linearOperation,
  needs: (_, wanted) => ({ inputs: [...(wanted(0) ? [1] : []), ...(wanted(1) ? [0] : [])] }),
  backward(call) {
    const { cotangent: dy, attributes, inputs } = call;
    const gradients: (Tensor | undefined)[] = inputs.map(() => undefined);
    if (call.wanted(0)) {
      const soFar = call.takeSum(0);
      gradients[0] = linear(dy, call.value(1).transpose(), soFar ? { add: soFar } : {}); // dy @ W
    }
    if (call.wanted(1)) {
      // In the layout that the weight has in memory.
      const transposed = inputs[1]!.strides[0] === 1 && inputs[1]!.shape[1] !== 1;
      gradients[1] = transposed
        ? matmul(call.value(0).transpose(), dy).transpose()
        : matmul(dy.transpose(), call.value(0));
    }
    const last = inputs.length - 1;
    if (attributes.bias && call.wanted(2)) gradients[2] = sum(dy, 0);
    if (attributes.add && call.wanted(last)) gradients[last] = dy;
    return gradients;
  },
});

/** The same with a packed W, which has no gradient. */
const packedLinearRule = rule({
  operation: packedLinearOperation,
  needs: ({ packed }, wanted) => ({ inputs: wanted(0) ? packed.parts.map((_, i) => 1 + i) : [] }),
  backward(call) {
    const { cotangent: dy, attributes, inputs } = call;
    const { packed, bias, add } = attributes;
    const gradients: (Tensor | undefined)[] = inputs.map(() => undefined);
    if (call.wanted(0)) {
      const parts = packed.parts.map((_, i) => call.value(1 + i));
      const soFar = call.takeSum(0);
      const transposed = packedFrom(packed, parts).transpose();
      gradients[0] = linear(dy, transposed, soFar ? { add: soFar } : {}); // dy @ W
      transposed.dispose();
    }
    const afterParts = 1 + packed.parts.length;
    const last = inputs.length - 1;
    if (bias && call.wanted(afterParts)) gradients[afterParts] = sum(dy, 0);
    if (add && call.wanted(last)) gradients[last] = dy;
    return gradients;
  },
});

/** out = a @ b over the last two dimensions, the others broadcast. */
const matmulRule = rule({
  operation: matmulOperation,
  needs: (_, wanted) => ({ inputs: [...(wanted(0) ? [1] : []), ...(wanted(1) ? [0] : [])] }),
  backward(call) {
    const { cotangent: dy, inputs } = call;
    return [
      call.wanted(0) ? sumTo(matmul(dy, call.value(1).transpose()), inputs[0]!.shape) : undefined,
      call.wanted(1) ? sumTo(matmul(call.value(0).transpose(), dy), inputs[1]!.shape) : undefined,
    ];
  },
});

export const MATRIX_RULES: readonly Rule[] = [linearRule, packedLinearRule, matmulRule];
