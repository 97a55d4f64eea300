import { rope, ropeOperation, ropePairOperation } from "../../kernels/attention/rope.ts";
import { add, mul, neg, sub } from "../../kernels/elementwise/elementwise.ts";
import { concat } from "../../kernels/movement/concat.ts";
import { contiguous } from "../../kernels/movement/copy.ts";
import { scatterAdd } from "../../kernels/movement/scatter-add.ts";
import { sum } from "../../kernels/reduction/reduce.ts";
import type { Shape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type Rule, rule } from "../rule.ts";

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
      call.wanted(2)
        ? gradientOfTable({
            ...call.attributes,
            table: call.inputs[2]!.shape,
            x: call.value(0),
            positions: call.value(1),
            dy: call.cotangent,
          })
        : undefined,
    ];
  },
});

/** Each of the two by itself. Inputs are x, positions, the table, y. */
const ropePairRule = rule({
  operation: ropePairOperation,
  needs: (_, wanted) => ({
    inputs: [...(wanted(2) ? [0, 3] : []), 1, ...(wanted(0) || wanted(3) ? [2] : [])],
  }),
  backward(call) {
    const { inputs, attributes, cotangent } = call;
    const [x, , , y] = inputs;
    const flat = contiguous(cotangent);
    const sizeOfX = x!.shape[0]! * x!.shape[1]!;
    const dx = flat.slice(0, 0, sizeOfX).reshape(x!.shape);
    const dy = flat.slice(0, sizeOfX, flat.size).reshape(y!.shape);
    const back = (of: Tensor) => rope(of, call.value(1), call.value(2), { ...attributes, inverse: true });
    const ofTable = (input: number, of: Tensor) =>
      gradientOfTable({
        ...attributes,
        table: inputs[2]!.shape,
        x: call.value(input),
        positions: call.value(1),
        dy: of,
      });
    return [
      call.wanted(0) ? back(dx) : undefined,
      undefined,
      call.wanted(2) ? add(ofTable(0, dx), ofTable(3, dy)) : undefined,
      call.wanted(3) ? back(dy) : undefined,
    ];
  },
});

/** Of a x cosine - b x sine and b x cosine + a x sine, added up over heads and over the rows of one position. */
function gradientOfTable({
  headDim,
  inverse = false,
  table,
  x,
  positions,
  dy,
}: Attributes & { table: Shape; x: Tensor; positions: Tensor; dy: Tensor }): Tensor {
  const [count, rotaryDim] = table as [number, number];
  const half = rotaryDim / 2;
  const pair = (of: Tensor): [Tensor, Tensor] => {
    const heads = contiguous(of).reshape([of.dim(0), of.dim(1) / headDim, headDim]);
    return [heads.slice(2, 0, half), heads.slice(2, half, rotaryDim)];
  };
  const [a, b] = pair(x);
  const [da, db] = pair(dy);
  const ofCosines = sum(add(mul(a, da), mul(b, db)), 1); // [rows, half]
  const ofSines = sum(sub(mul(a, db), mul(b, da)), 1);
  const rows = concat([ofCosines, inverse ? neg(ofSines) : ofSines], 1); // [rows, rotaryDim]
  const ids = contiguous(positions);
  return scatterAdd(rows.reshape([1, ...rows.shape]), ids.reshape([1, ids.size]), count).at(0);
}

export const ROPE_RULES: readonly Rule[] = [ropeRule, ropePairRule];
