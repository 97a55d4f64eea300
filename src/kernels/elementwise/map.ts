import { DTypeError } from "../../errors.ts";
import type { Device } from "../../tensor/device.ts";
import { type DType, isFloat } from "../../tensor/dtype.ts";
import { defineKernel, type Kernel } from "../../tensor/kernel.ts";
import { broadcastShapes, contiguousStrides, sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type Access, elementType, type ParameterType } from "../../tensor/wgsl.ts";
import { collapse, type Layout, layoutFields, layoutValues, locate } from "./strided.ts";

/** What an elementwise operation takes in place of a tensor: a number is a scalar of the tensors' dtype. */
export type Operand = Tensor | number;

/** Element types after loading; the dtypes that elementwise kernels write. */
export type WideDType = "f32" | "i32" | "u32";

const NAMES = ["a", "b", "c"] as const;
const SIZE = 64;

/** How a kernel reads one operand: four neighbours, one element for all four, single elements, or from `params`. */
type Mode = "vector" | "splat" | "scalar" | "number";

type Constants = { kind: string; rank: number; numbers: WideDType };
type MapKernel = Kernel<Record<string, ParameterType>, Record<string, "read">, Constants>;

/** WGSL of a family of elementwise functions; it is compiled for single elements and for vectors of four. */
export interface MapCode<K extends string> {
  /** An expression of `a`, `b`, `c`; `dtype` is what the last operand loads as. */
  expression(kind: K, dtype: WideDType): string;
  /** Functions that expressions call. F, I, U and Bool stand for f32, i32, u32 and bool or vectors of four of them. */
  helpers?: string;
}

export interface MapCall<K extends string> {
  kind: K;
  operands: readonly Operand[];
  /** What numbers among the operands are taken as. */
  numbers: WideDType;
  result: WideDType;
  device: Device;
}

/** A family of elementwise functions over operands that broadcast against each other as in NumPy. */
export function defineMap<K extends string>(family: string, code: MapCode<K>): (call: MapCall<K>) => Tensor {
  const kernels = new Map<string, MapKernel>();
  return ({ kind, operands, numbers, result, device }) => {
    const shape = broadcastShapes(kind, ...operands.map((x) => (typeof x === "number" ? [] : x.shape)));
    const out = device.empty(shape, result, kind);
    const strides = operands.map((x) =>
      typeof x === "number" ? shape.map(() => 0) : broadcastStrides(x, shape.length),
    );
    const { layout, modes } = vectorise(collapse(shape, [...strides, contiguousStrides(shape)]), operands);

    const key = modes.join(" ");
    let kernel = kernels.get(key);
    if (!kernel) {
      kernel = mapKernel(family, modes, code as MapCode<string>);
      kernels.set(key, kernel);
    }
    const names = NAMES.slice(0, operands.length);
    const count = sizeOf(layout.shape);
    const params: Record<string, number> = { count, ...layoutValues(names, layout) };
    const tensors: Record<string, Tensor> = { out };
    operands.forEach((x, o) => {
      params[`${names[o]}_number`] = typeof x === "number" ? numberBits(kind, x, numbers) : 0;
      if (typeof x !== "number") tensors[names[o]!] = x;
    });
    kernel.launch({
      tensors,
      params,
      constants: { kind, rank: layout.shape.length, numbers },
      workgroups: Math.ceil(count / SIZE),
    });
    return out;
  };
}

/**
 * The dtype of a result: f32 for floats of any width, else the integers' own. Throws DTypeError when floats and
 * integers, or signed and unsigned ones, are mixed.
 */
export function arithmeticDType(operation: string, dtypes: readonly DType[]): WideDType {
  const wide = dtypes.map((d) => (isFloat(d) ? "f32" : (d as "i32" | "u32")));
  if (new Set(wide).size > 1) {
    throw new DTypeError(`${operation}: dtypes ${dtypes.join(" and ")} do not go together; cast one of them`);
  }
  return wide[0]!;
}

function broadcastStrides({ shape, strides }: Tensor, rank: number): number[] {
  const missing = rank - shape.length;
  return Array.from({ length: rank }, (_, axis) =>
    axis < missing || shape[axis - missing] === 1 ? 0 : strides[axis - missing]!,
  );
}

/** Takes four neighbours per invocation where every tensor has them side by side or repeats one element. */
function vectorise(
  { shape, strides }: Layout,
  operands: readonly Operand[],
): { layout: Layout; modes: Mode[] } {
  const last = shape.length - 1;
  // Buffers are padded, so only a row that is followed by another has to be a multiple of four long.
  const wholeGroups = last === 0 || shape[last]! % 4 === 0;
  const modes = operands.map((x, o): Mode => {
    const steps = strides[o]!;
    if (typeof x === "number") return "number";
    if (steps[last] === 0) return "splat";
    const aligned = x.offset % 4 === 0 && steps.every((s, d) => d === last || s % 4 === 0);
    return steps[last] === 1 && aligned ? "vector" : "scalar";
  });
  const own = strides.slice(0, operands.length);
  if (!wholeGroups || modes.includes("scalar")) {
    return {
      layout: { shape, strides: own },
      modes: modes.map((m) => (m === "number" ? m : "scalar")),
    };
  }
  const inGroups = own.map((steps, o) =>
    modes[o] === "vector" ? steps.map((s, d) => (d === last ? 1 : s / 4)) : steps,
  );
  return { layout: { shape: shape.with(last, Math.ceil(shape[last]! / 4)), strides: inGroups }, modes };
}

function mapKernel(family: string, modes: readonly Mode[], code: MapCode<string>): MapKernel {
  const names = NAMES.slice(0, modes.length);
  const vector = !modes.includes("scalar");
  const bindings: Record<string, Access> = {};
  modes.forEach((mode, o) => {
    if (mode !== "number") bindings[names[o]!] = mode === "vector" ? "read4" : "read";
  });
  bindings["out"] = vector ? "write4" : "write";
  const params: Record<string, ParameterType> = { count: "u32", ...layoutFields(names) };
  for (const name of names) params[`${name}_number`] = "u32";
  const wide = (type: string) => (vector ? `vec4<${type}>` : type);

  return defineKernel<typeof params, Record<string, "read">, Constants>({
    name: `${family} ${modes.join(" ")}`,
    bindings: bindings as Record<string, "read">,
    params,
    code: ({ constants: { kind, rank, numbers }, element }) => {
      const types = modes.map((mode, o) => (mode === "number" ? elementType(numbers) : element(names[o]!)));
      const values = modes.map((mode, o) => {
        const [name, type] = [names[o]!, types[o]!];
        if (mode === "vector") return `${name}_at4(${name}_i)`;
        return `${wide(type)}(${mode === "number" ? `bitcast<${type}>(params.${name}_number)` : `${name}_at(${name}_i)`})`;
      });
      return `
alias F = ${wide("f32")};
alias I = ${wide("i32")};
alias U = ${wide("u32")};
alias Bool = ${wide("bool")};
${code.helpers ?? ""}
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i >= params.count) { return; }
  ${locate(rank, names)}
  ${names.map((name, o) => `let ${name} = ${values[o]};`).join("\n  ")}
  ${vector ? "out_set4" : "out_set"}(i, ${code.expression(kind, types.at(-1) as WideDType)});
}`;
    },
  });
}

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

function numberBits(operation: string, value: number, dtype: WideDType): number {
  if (dtype === "f32") {
    scratch[0] = value;
    return scratchBits[0]!;
  }
  const [low, high] = dtype === "i32" ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1];
  if (!Number.isInteger(value) || value < low || value > high) {
    throw new DTypeError(
      `${operation}: expected a whole number that ${dtype} holds, found ${value}; cast the tensor first`,
    );
  }
  return value >>> 0;
}
