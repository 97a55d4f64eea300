import { concatOperation } from "../../kernels/movement/concat.ts";
import { castOperation, contiguous } from "../../kernels/movement/copy.ts";
import { gatherRowsOperation, moveToEnd, takeOperation } from "../../kernels/movement/gather.ts";
import { scatterAdd } from "../../kernels/movement/scatter-add.ts";
import { normalizeAxis } from "../../tensor/shape.ts";
import { type Rule, rule } from "../rule.ts";
import { editRowsRule } from "./row-edits.ts";

/** Also of copies. The gradient stays f32 whatever the dtypes: rounding counts as the identity. */
const castRule = rule({
  operation: castOperation,
  needs: () => ({}),
  backward: ({ cotangent }) => [cotangent],
});

const concatRule = rule({
  operation: concatOperation,
  needs: () => ({}),
  backward({ cotangent, attributes: { axis }, inputs, wanted }) {
    let end = 0;
    return inputs.map(({ shape }, i) => {
      const start = end;
      end += shape[axis]!;
      return wanted(i) ? cotangent.slice(axis, start, end) : undefined;
    });
  },
});

/** Rows that were taken several times add up; ids outside of the table took none. */
const gatherRowsRule = rule({
  operation: gatherRowsOperation,
  needs: () => ({ inputs: [1] }),
  backward({ cotangent, inputs: [table], value }) {
    const [rows] = table!.shape as [number, number];
    const transposed = table!.strides[0] === 1 && table!.shape[1] !== 1; // as the table has it in memory
    const [n, width] = cotangent.shape as [number, number];
    const source = contiguous(cotangent).reshape([1, n, width]);
    const ids = contiguous(value(1)).reshape([1, n]);
    return [scatterAdd(source, ids, rows, { transposed }).at(0)];
  },
});

const takeAlongAxisRule = rule({
  operation: takeOperation,
  needs: () => ({ inputs: [1] }),
  backward({ cotangent, attributes, inputs: [x], value }) {
    const rank = cotangent.rank;
    const last = moveToEnd(rank, normalizeAxis("takeAlongAxis", attributes.axis, rank));
    const dy = contiguous(cotangent.permute(last)); // [..., picks]
    const ids = contiguous(value(1).permute(last));
    const picks = dy.dim(-1);
    const n = x!.shape[last.at(-1)!]!;
    const outer = dy.shape.slice(0, -1);
    const rows = outer.reduce((product, size) => product * size, 1);
    const added = scatterAdd(dy.reshape([rows, picks, 1]), ids.reshape([rows, picks]), n); // [rows, n, 1]
    return [added.reshape([...outer, n]).permute(last.map((_, i) => last.indexOf(i)))];
  },
});

export const MOVEMENT_RULES: readonly Rule[] = [
  castRule,
  concatRule,
  gatherRowsRule,
  takeAlongAxisRule,
  editRowsRule,
];
