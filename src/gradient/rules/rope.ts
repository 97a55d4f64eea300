import { rope, ropeOperation } from "../../kernels/attention/rope.ts";
import { add, mul, neg, sub } from "../../kernels/elementwise/elementwise.ts";
import { concat } from "../../kernels/movement/concat.ts";
import { contiguous } from "../../kernels/movement/copy.ts";
import { scatterAdd } from "../../kernels/movement/scatter-add.ts";
import { sum } from "../../kernels/reduction/reduce.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type BackwardCall, type Rule, rule } from "../rule.ts";

type Attributes = Parameters<typeof ropeOperation.run>[1];

/** A rotation's adjoint is the rotation back. Inputs are x, positions and the table of cosines and sines. */
const ropeRule = rule<Attributes>({
  operation: ropeOperation,
  needs: (_, wanted) => ({
    inputs: [...(wanted(2) ? [0] : []), 1, ...(wanted(0) ? [2] : [])],
  }),
  backward(call) {
    const { headDim, inverse = false } = call.attributes;
    return [
      call.wanted(0)
        ? rope(call.cotangent, call.value(1), call.value(2), { headDim, inverse: !inverse })
        : undefined,
      undefined,
      call.wanted(2) ? gradientOfTable(call) : undefined,
    ];
  },
});

/** Of a x cosine - b x sine and b x cosine + a x sine, added up over heads and over the rows of one position. */
function gradientOfTable(call: BackwardCall<Attributes>): Tensor {
  const { headDim, inverse } = call.attributes;
  const [positions, rotaryDim] = call.inputs[2]!.shape as [number, number];
  const half = rotaryDim / 2;
  const pair = (of: Tensor): [Tensor, Tensor] => {
    const heads = contiguous(of).reshape([of.dim(0), of.dim(1) / headDim, headDim]);
    return [heads.slice(2, 0, half), heads.slice(2, half, rotaryDim)];
  };
  const [a, b] = pair(call.value(0));
  const [da, db] = pair(call.cotangent);
  const ofCosines = sum(add(mul(a, da), mul(b, db)), 1); // [rows, half]
  const ofSines = sum(sub(mul(a, db), mul(b, da)), 1);
  const rows = concat([ofCosines, inverse ? neg(ofSines) : ofSines], 1); // [rows, rotaryDim]
  const ids = contiguous(call.value(1));
  return scatterAdd(rows.reshape([1, ...rows.shape]), ids.reshape([1, ids.size]), positions).at(0);
}

export const ROPE_RULES: readonly Rule[] = [ropeRule];
