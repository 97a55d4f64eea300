import { DTypeError, ShapeError } from "../../errors.ts";
import { isFloat } from "../../tensor/dtype.ts";
import { defineKernel, type Variant } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import { sameShape, showShape } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { cast, contiguous, place } from "./copy.ts";
import { checkRange, type Range, type RowSelection, selectRows } from "./row-selection.ts";

export type { Range, RowSelection } from "./row-selection.ts";

/** Which part of each row is edited. */
export interface RowOptions {
  /** Edit only these features (columns): a head, or some neurons. Default: the whole width. */
  features?: Range;
}

export type EditKind = "set" | "add" | "scale" | "zero" | "interpolate" | "projectOut" | "keepDirection";

/** Inputs of an edit are x, the row indices where `rows` is absent, and the value where the kind has one. */
export interface EditRowsAttributes {
  kind: EditKind;
  rows?: Range;
  features: Range;
  /** The factor of add and scale, the t of interpolate. */
  amount: number;
}

const SIZE = 64;

/** Where selected rows and features, and the value's rows for them, are found. */
const SELECTION = {
  rows: "u32",
  x_row: "u32",
  x_step: "u32",
  first: "u32",
  selected: "u32",
  first_feature: "u32",
  features: "u32",
  value_row: "u32",
  value_step: "u32",
} as const;

const NEW_ELEMENT: Record<EditKind, string> = {
  set: "v",
  add: "old + params.amount * v",
  scale: "old * params.amount",
  zero: "0.0",
  // At the ends without arithmetic, since 0 times infinity is NaN.
  interpolate:
    "select(select(old * (1.0 - params.amount) + v * params.amount, v, params.amount == 1.0), old, params.amount == 0.0)",
  projectOut: "old - component(slot, v)",
  keepDirection: "component(slot, v)",
};

const COMPONENT = `
fn component(slot: u32, v: f32) -> f32 {
  return coefficients_at(2u * slot) * (v / coefficients_at(2u * slot + 1u));
}`;

/** Writes the selected rows, features outside the selection as they were; `out` holds the other rows already. */
const editKernel = defineKernel({
  name: "editRows",
  bindings: { x: "read", ids: "read?", value: "read?", coefficients: "read?", out: "write" },
  params: { count: "u32", width: "u32", amount: "f32", ...SELECTION },
  code: ({ constants, has }: Variant<"ids" | "value" | "coefficients", { kind: EditKind }>) => `
${has("coefficients") ? COMPONENT : ""}
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.count) { return; }
  let slot = i / params.width;
  let row = ${has("ids") ? "u32(ids_at(slot))" : "params.first + slot"};
  if (row >= params.rows) { return; }
  let column = i % params.width;
  let feature = column - params.first_feature;
  let old = x_at(row * params.x_row + column * params.x_step);
  if (feature >= params.features) { // wraps when before the first
    out_set(row * params.width + column, old);
    return;
  }
  ${has("value") ? "let v = value_at(slot * params.value_row + feature * params.value_step);" : ""}
  out_set(row * params.width + column, ${NEW_ELEMENT[constants.kind]});
}`,
});

/**
 * coefficients[slot] = <x row, u> / <u, u> and the largest magnitude of the value row, by which it is divided to give u:
 * squares of its own elements might overflow or vanish. For a direction of zeros 0 and 1.
 */
const projectKernel = defineKernel({
  name: "projectRows",
  bindings: { x: "read", ids: "read?", value: "read", coefficients: "write" },
  params: SELECTION,
  code: ({ has, device }: Variant<"ids", Record<never, never>>) => {
    const cooperative = device.info.kernels === "workgroup";
    return `
fn row_of(slot: u32) -> u32 { return ${has("ids") ? "u32(ids_at(slot))" : "params.first + slot"}; }
fn direction(slot: u32, f: u32) -> f32 { return value_at(slot * params.value_row + f * params.value_step); }
// As bits, which order magnitudes as numbers do and put NaN last.
fn largest(slot: u32, first: u32, step: u32) -> u32 {
  var most = 0u;
  for (var f = first; f < params.features; f += step) {
    most = max(most, bitcast<u32>(direction(slot, f)) & 0x7fffffffu);
  }
  return most;
}
fn dots(slot: u32, size: u32, first: u32, step: u32) -> vec2f {
  let row = row_of(slot);
  if (row >= params.rows) { return vec2f(0.0); }
  var sums = vec2f(0.0);
  for (var f = first; f < params.features; f += step) {
    let u = direction(slot, f) / bitcast<f32>(size);
    sums += u * vec2f(x_at(row * params.x_row + (params.first_feature + f) * params.x_step), u);
  }
  return sums;
}
fn finish(slot: u32, size: u32, sums: vec2f) {
  let some = size != 0u;
  coefficients_set(2u * slot, select(0.0, sums.x / sums.y, some));
  coefficients_set(2u * slot + 1u, select(1.0, bitcast<f32>(size), some));
}
${cooperative ? "var<workgroup> sizes: array<u32, 64>;\nvar<workgroup> partial: array<vec2f, 64>;" : ""}
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
${
  cooperative
    ? `
  let slot = flat_group(group, groups);
  if (slot >= params.selected) { return; }
  sizes[local] = largest(slot, local, ${SIZE}u);
  for (var half = ${SIZE / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (local < half) { sizes[local] = max(sizes[local], sizes[local + half]); }
  }
  workgroupBarrier();
  let size = sizes[0];
  partial[local] = dots(slot, size, local, ${SIZE}u);
  for (var half = ${SIZE / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (local < half) { partial[local] += partial[local + half]; }
  }
  if (local == 0u) { finish(slot, size, partial[0]); }`
    : `
  let slot = flat_group(group, groups) * ${SIZE}u + local;
  if (slot >= params.selected) { return; }
  let size = largest(slot, 0u, 1u);
  finish(slot, size, dots(slot, size, 0u, 1u));`
}
}`;
  },
});

export const editOperation: Operation<EditRowsAttributes> = {
  name: "editRows",
  run(inputs, { kind, rows: range, features, amount }, device) {
    const x = inputs[0]!;
    const ids = range ? undefined : inputs[1]!;
    const value = inputs[range ? 1 : 2];
    const [rows, width] = x.shape as [number, number];
    const selected = ids ? ids.size : range!.end - range!.start;
    const shared = {
      rows,
      x_row: x.strides[0]!,
      x_step: x.strides[1]!,
      first: range?.start ?? 0,
      selected,
      first_feature: features.start,
      features: features.end - features.start,
      value_row: value?.rank === 2 ? value.strides[0]! : 0,
      value_step: value?.strides.at(-1) ?? 0,
    };
    const all = range && selected === rows;
    const out = all ? device.empty(x.shape, "f32", kind) : cast(x, "f32");
    const coefficients = kind === "projectOut" || kind === "keepDirection" ? project() : undefined;
    const count = selected * width;
    editKernel.launch({
      tensors: { x, ids, value, coefficients, out },
      params: { ...shared, count, width, amount },
      constants: { kind },
      workgroups: Math.ceil(count / SIZE),
    });
    return out;

    function project(): Tensor {
      const result = device.empty([selected, 2], "f32", kind);
      projectKernel.launch({
        tensors: { x, ids, value: value!, coefficients: result },
        params: shared,
        constants: {},
        workgroups: device.info.kernels === "workgroup" ? selected : Math.ceil(selected / SIZE),
      });
      return result;
    }
  },
};

interface Edit {
  kind: EditKind;
  value?: Tensor;
  amount?: number;
}

/** Checks what the host can check and applies the edit; `name` is the caller's. */
function edit(
  name: string,
  x: Tensor,
  at: RowSelection,
  options: RowOptions,
  { kind, value, amount = 1 }: Edit,
): Tensor {
  if (x.rank !== 2) throw new ShapeError(`${name}: expected x [rows, width], found ${showShape(x.shape)}`);
  for (const { dtype } of value ? [x, value] : [x]) {
    if (!isFloat(dtype)) throw new DTypeError(`${name}: expected floats, found ${dtype}`);
  }
  const [rows, width] = x.shape as [number, number];
  const features = checkRange(name, "features", options.features ?? { start: 0, end: width }, width);
  const { range, indices, count } = selectRows(name, at, rows);
  const wide = features.end - features.start;
  if (
    value &&
    !(value.dim(-1) === wide && (value.rank === 1 || (value.rank === 2 && value.dim(0) === count)))
  ) {
    throw new ShapeError(
      `${name}: expected a value [${wide}] or [${count}, ${wide}] for x ${showShape(x.shape)}, found ${showShape(value.shape)}`,
    );
  }
  return x.device.scope(() => {
    const ids = indices && (indices instanceof Tensor ? contiguous(indices) : x.device.tensor(indices));
    const inputs = [x, ids, value].filter((t) => t !== undefined);
    return apply(
      editOperation,
      inputs,
      range ? { kind, rows: range, features, amount } : { kind, features, amount },
    );
  });
}

/*
 * Row edits take x [rows, width] of any float dtype and give a new f32 tensor of the same shape, equal to x but for the
 * selected rows (and features). A value is [width] for all selected rows or [n, width] with one row for each, in
 * the order of the selection; where features are given, it has just those. All throw ShapeError for rows, features or
 * values that do not fit, and DTypeError for integers.
 */

/** Rows replaced by `value`. */
export function setRows(x: Tensor, at: RowSelection, value: Tensor, options: RowOptions = {}): Tensor {
  return edit("setRows", x, at, options, { kind: "set", value });
}

/** `factor * value` added to rows. */
export function addRows(
  x: Tensor,
  at: RowSelection,
  value: Tensor,
  { factor = 1, ...options }: RowOptions & { factor?: number } = {},
): Tensor {
  return edit("addRows", x, at, options, { kind: "add", value, amount: factor });
}

/** Rows multiplied by a number. */
export function scaleRows(x: Tensor, at: RowSelection, factor: number, options: RowOptions = {}): Tensor {
  return edit("scaleRows", x, at, options, { kind: "scale", amount: factor });
}

/** Rows set to zero, whatever they hold. */
export function zeroRows(x: Tensor, at: RowSelection, options: RowOptions = {}): Tensor {
  return edit("zeroRows", x, at, options, { kind: "zero" });
}

/** Rows moved towards `value`: `(1 - t) * row + t * value`. */
export function interpolateRows(
  x: Tensor,
  at: RowSelection,
  value: Tensor,
  t: number,
  options: RowOptions = {},
): Tensor {
  return edit("interpolateRows", x, at, options, { kind: "interpolate", value, amount: t });
}

/** Rows without their component along `direction` (of any length; along zero there is no component). */
export function projectOutRows(
  x: Tensor,
  at: RowSelection,
  direction: Tensor,
  options: RowOptions = {},
): Tensor {
  return edit("projectOutRows", x, at, options, { kind: "projectOut", value: direction });
}

/** Rows reduced to their component along `direction`; along zero that is zero. */
export function keepDirectionRows(
  x: Tensor,
  at: RowSelection,
  direction: Tensor,
  options: RowOptions = {},
): Tensor {
  return edit("keepDirectionRows", x, at, options, { kind: "keepDirection", value: direction });
}

/**
 * Writes the rows of `source` over rows `atRow…` of `target`, in place, for buffers that grow by rows; everything
 * recorded earlier has read the old contents. Only this and `scatterRowsInto` change a tensor, and `device.write`.
 *
 * @param target [capacity, width], f32.
 * @param source [n, width], any float dtype; of another buffer.
 * @throws ShapeError, DTypeError
 */
export function copyRowsInto(target: Tensor, atRow: number, source: Tensor): void {
  const width = target.shape.slice(1);
  if (source.rank !== target.rank || target.rank === 0 || !sameShape(source.shape.slice(1), width)) {
    throw new ShapeError(
      `copyRowsInto: expected rows of ${showShape(width)}, found source ${showShape(source.shape)}`,
    );
  }
  if (target.dtype !== "f32" || !isFloat(source.dtype)) {
    throw new DTypeError(
      `copyRowsInto: expected an f32 target and a float source, found ${target.dtype} and ${source.dtype}`,
    );
  }
  if (source.storage === target.storage) {
    throw new ShapeError("copyRowsInto: source and target share a buffer; copy(source) first");
  }
  const end = atRow + source.dim(0);
  if (!Number.isInteger(atRow) || atRow < 0 || end > target.dim(0)) {
    throw new ShapeError(`copyRowsInto: rows ${atRow}..${end} do not lie in ${showShape(target.shape)}`);
  }
  apply(copyOperation, [target, source], { atRow });
}

const copyOperation: Operation<{ atRow: number }> = {
  name: "copyRowsInto",
  run([target, source], { atRow }) {
    if (source!.size > 0) place(target!.rows(atRow, atRow + source!.dim(0)), source!);
    return target!;
  },
};
