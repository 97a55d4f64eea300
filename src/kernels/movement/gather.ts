import { DTypeError, ShapeError } from "../../errors.ts";
import type { Device } from "../../tensor/device.ts";
import { isFloat } from "../../tensor/dtype.ts";
import { defineKernel } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { type Operand, Packed } from "../../tensor/packed/packed.ts";
import { type Flat, flat, packedFrom } from "../../tensor/packed/packed-inputs.ts";
import { normalizeAxis, sameShape, showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { contiguous } from "./copy.ts";

const SIZE = 64;

const MAIN = `
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.count) { return; }`;

const gatherRowsKernel = defineKernel({
  name: "gatherRows",
  partly: { table: "out" },
  bindings: { table: "values", ids: "read", out: "write" },
  params: { count: "u32", rows: "u32", width: "u32", row_step: "u32", step: "u32", id_step: "u32" },
  code: () => `${MAIN}
  let id = u32(ids_at(i / params.width * params.id_step));
  if (id >= params.rows) {
    out_set_word(i, 0x7fc00000u);
    return;
  }
  out_set(i, table_at(id * params.row_step + i % params.width * params.step));
}`,
});

/** Four elements per invocation, for tables whose rows are whole groups of four. */
const gatherRows4Kernel = defineKernel({
  name: "gatherRows4",
  partly: { table: "out" },
  bindings: { table: "values4", ids: "read", out: "write4" },
  params: { count: "u32", rows: "u32", width: "u32", row_step: "u32", id_step: "u32" },
  code: () => `${MAIN}
  let id = u32(ids_at(i / params.width * params.id_step));
  if (id >= params.rows) {
    var nan_bits = vec4u(0x7fc00000u);
    out_set4(i, bitcast<vec4f>(nan_bits));
    return;
  }
  out_set4(i, table_at4(id * params.row_step + i % params.width));
}`,
});

export const gatherRowsOperation: Operation<Record<never, never>> = {
  name: "gatherRows",
  run([table, ids], _, device) {
    if (!isFloat(table!.dtype)) {
      throw new DTypeError(`gatherRows: expected a float table, found ${table!.dtype}`);
    }
    return gathered(device, table!, ids!);
  },
};

/** Inputs: the parts of the table, ids. */
export const packedGatherOperation: Operation<{ packed: Flat }> = {
  name: "gatherRows (packed)",
  run: (inputs, { packed }, device) => gathered(device, packedFrom(packed, inputs), inputs.at(-1)!),
};

function gathered(device: Device, table: Operand, ids: Tensor): Tensor {
  if (table.rank !== 2 || ids.rank !== 1) {
    throw new ShapeError(
      `gatherRows: expected a table [rows, width] and ids [n], found ${showShape(table.shape)} and ${showShape(ids.shape)}`,
    );
  }
  if (isFloat(ids.dtype)) throw new DTypeError(`gatherRows: expected integer ids, found ${ids.dtype}`);
  const [rows, width] = table.shape as [number, number];
  const [rowStep, step] = table.strides as [number, number];
  const idStep = ids.strides[0]!;
  const out = device.empty([ids.size, width], "f32", "gatherRows");
  const tensors = { table, ids, out };
  if (step === 1 && width % 4 === 0 && rowStep % 4 === 0 && table.offset % 4 === 0) {
    const count = out.size / 4;
    gatherRows4Kernel.launch({
      tensors,
      params: { count, rows, width: width / 4, row_step: rowStep / 4, id_step: idStep },
      constants: {},
      workgroups: Math.ceil(count / SIZE),
    });
  } else {
    gatherRowsKernel.launch({
      tensors,
      params: { count: out.size, rows, width, row_step: rowStep, step, id_step: idStep },
      constants: {},
      workgroups: Math.ceil(out.size / SIZE),
    });
  }
  return out;
}

/**
 * Rows of a table by their ids; the embedding lookup.
 *
 * @param table [rows, width], any float dtype or packed, row-major or a transposed view.
 * @param ids [n], i32 or u32. An id outside 0..rows-1 gives a row of NaN: the host cannot check without waiting.
 * @returns [n, width], f32.
 * @throws ShapeError, DTypeError
 */
export function gatherRows(table: Operand, ids: Tensor): Tensor {
  if (!(table instanceof Packed)) return apply(gatherRowsOperation, [table, ids], {});
  const { inputs, attributes } = flat(table);
  return apply(packedGatherOperation, [...inputs, ids], { packed: attributes });
}

const takeKernel = defineKernel({
  name: "takeAlongAxis",
  partly: { x: "out" },
  bindings: { x: "read", ids: "read", out: "write" },
  params: { count: "u32", n: "u32", picks: "u32" },
  code: () => `${MAIN}
  let id = u32(ids_at(i));
  if (id >= params.n) {
    out_set_word(i, 0x7fc00000u);
    return;
  }
  out_set(i, x_at(i / params.picks * params.n + id));
}`,
});

export const takeOperation: Operation<{ axis: number }> = {
  name: "takeAlongAxis",
  run([x, ids], { axis }, device) {
    const a = normalizeAxis("takeAlongAxis", axis, x!.rank);
    if (ids!.rank !== x!.rank || !sameShape(x!.shape.with(a, 0), ids!.shape.with(a, 0))) {
      throw new ShapeError(
        `takeAlongAxis: expected ids like ${showShape(x!.shape)} but for axis ${axis}, found ${showShape(ids!.shape)}`,
      );
    }
    if (isFloat(ids!.dtype)) throw new DTypeError(`takeAlongAxis: expected integer ids, found ${ids!.dtype}`);
    const last = moveToEnd(x!.rank, a);
    const rows = contiguous(x!.permute(last)); // [..., n]
    const picks = contiguous(ids!.permute(last)); // [..., picks]
    const out = device.empty(picks.shape, isFloat(x!.dtype) ? "f32" : x!.dtype, "takeAlongAxis");
    takeKernel.launch({
      tensors: { x: rows, ids: picks, out },
      params: { count: out.size, n: rows.dim(-1), picks: picks.dim(-1) },
      constants: {},
      workgroups: Math.ceil(out.size / SIZE),
    });
    const back = last.map((_, i) => last.indexOf(i));
    return out.permute(back);
  },
};

/** The order of dimensions that has `axis` last. */
export function moveToEnd(rank: number, axis: number): number[] {
  return [...Array(rank).keys()].filter((i) => i !== axis).concat(axis);
}

/**
 * Elements of x picked along one axis, as NumPy's `take_along_axis`: `out[…, j, …] = x[…, ids[…, j, …], …]`.
 *
 * @param x any dtype; f16 and bf16 are widened.
 * @param ids i32 or u32, shaped like x but for the axis. An id out of range gives NaN (0x7fc00000 for integers).
 * @throws ShapeError, DTypeError
 */
export function takeAlongAxis(x: Tensor, ids: Tensor, axis = -1): Tensor {
  return apply(takeOperation, [x, ids], { axis });
}
