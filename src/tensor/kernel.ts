import { DeviceError, ShapeError } from "../errors.ts";
import type { Device } from "./device.ts";
import { DTYPE_BYTES, type DType } from "./dtype.ts";
import { type Operand, Packed } from "./packed/packed.ts";
import { bytesPerElement, codesInWide, formatKey, type PackedFormat } from "./packed/packed-format.ts";
import type { BoundBuffer } from "./pipelines.ts";
import { SLOT_BYTES } from "./recorder.ts";
import type { Tensor } from "./tensor.ts";
import {
  type Access,
  type BindingShape,
  declarations,
  elementType,
  isVector,
  isWide,
  isWritable,
  type PackedBinding,
  type ParameterType,
  type ValuesAccess,
  type WideAccess,
} from "./wgsl.ts";

/** Values that are baked into the WGSL; each combination is compiled once. */
export type Constants = Readonly<Record<string, string | number | boolean>>;

/** What a kernel's code generator may ask about the variant it is writing. */
export interface Variant<B extends string, C extends Constants> {
  readonly constants: C;
  readonly device: Device;
  /** Whether an optional tensor is present. */
  has(name: B): boolean;
  /** Of a tensor. */
  dtype(name: B): DType;
  /** Of a packed matrix. */
  format(name: B): PackedFormat;
  /** WGSL type of an element after loading: f32, i32 or u32. */
  element(name: B): string;
}

export interface KernelSpec<
  P extends Record<string, ParameterType>,
  B extends Record<string, Access>,
  C extends Constants,
> {
  name: string;
  /** Tensors, in binding order. Writable ones must not share a buffer with any other. */
  bindings: B;
  /** Fields of the `params` uniform. */
  params: P;
  /**
   * Bindings that a run touches in part only, with another binding that has at least as many elements as are touched (of a table
   * of which rows are picked: the output). Profiles count their bytes by it.
   */
  partly?: { readonly [K in keyof B]?: keyof B };
  /** WGSL with an entry point `main`; may use `params` and the accessors described at {@link declarations}. */
  code(variant: Variant<keyof B & string, C>): string;
}

type Bindable<A extends Access> = A extends ValuesAccess ? Operand : A extends WideAccess ? Packed : Tensor;

type TensorsOf<B extends Record<string, Access>> = {
  [K in keyof B as B[K] extends `${string}?` ? never : K]: Bindable<B[K]>;
} & { [K in keyof B as B[K] extends `${string}?` ? K : never]: Bindable<B[K]> | undefined };

export interface Launch<
  P extends Record<string, ParameterType>,
  B extends Record<string, Access>,
  C extends Constants,
> {
  tensors: TensorsOf<B>;
  params: { [K in keyof P]: number };
  constants: C;
  /** A count, folded over two dimensions where it exceeds one (see `flat_group`), or the three dimensions. */
  workgroups: number | readonly [number, number, number];
}

export interface Kernel<
  P extends Record<string, ParameterType>,
  B extends Record<string, Access>,
  C extends Constants,
> {
  readonly name: string;
  /** Records one dispatch on the tensors' device. */
  launch(launch: Launch<P, B, C>): void;
}

/** Declares a kernel; nothing is compiled before its first launch. */
export function defineKernel<
  const P extends Record<string, ParameterType>,
  const B extends Record<string, Access>,
  C extends Constants = Record<never, never>,
>(spec: KernelSpec<P, B, C>): Kernel<P, B, C> {
  const names = Object.keys(spec.bindings);
  const paramTypes = Object.entries(spec.params);
  if ((names.length + paramTypes.length) * 4 > SLOT_BYTES) {
    throw new DeviceError(`kernel ${spec.name}: more than ${SLOT_BYTES} bytes of parameters`);
  }
  return {
    name: spec.name,
    launch({ tensors, params, constants, workgroups }) {
      const bound: Bound[] = [];
      const packed: BoundPacked[] = [];
      for (const name of names) {
        const tensor = (tensors as Record<string, Operand | undefined>)[name];
        const access = spec.bindings[name]!;
        if (tensor instanceof Packed) {
          for (const [part, buffer] of tensor.parts) {
            const own = isWide(access) && part === "codes" ? "read4" : "read";
            bound.push({ ...bind(spec.name, `${name}_${part}`, own, buffer), isPart: true });
          }
          packed.push(bindPacked(spec.name, name, access as PackedBinding["access"], tensor));
        } else if (tensor) bound.push(bind(spec.name, name, access, tensor));
      }
      const device = bound[0]!.tensor.device;
      const groups = foldWorkgroups(device, spec.name, workgroups);
      if (groups[0] * groups[1] * groups[2] === 0) return;

      let key = spec.name;
      let modes = "";
      for (const { shape } of bound) {
        key += ` ${shape.name}:${shape.dtype}${shape.windows > 1 ? `*${shape.windows}/${shape.windowBytes}` : ""}`;
        modes += (isWritable(shape.access) ? "w" : "r").repeat(shape.windows);
      }
      for (const { name, format, access } of packed) {
        key += ` ${name}:${formatKey(format)}${isWide(access) ? " wide" : ""}`;
      }
      for (const name in constants) key += ` ${name}=${constants[name]}`;
      const limit = device.gpu.limits.maxStorageBuffersPerShaderStage;
      if (modes.length > limit) {
        throw new DeviceError(
          `${spec.name}: needs ${modes.length} storage bindings (${key}), but this adapter has ${limit}; ` +
            "split the operation by rows",
        );
      }
      const { pipeline, fate } = device.pipelines.pipeline(key, modes, () =>
        source(spec, bound, packed, constants, device),
      );

      const { words, byteOffset } = device.recorder.parameters();
      let at = 0;
      for (const { offset } of bound) words[at++] = offset;
      for (const { offset } of packed) words[at++] = offset;
      for (const [name, type] of paramTypes) {
        const value = params[name]!;
        words[at++] = type === "f32" ? floatBits(value) : wholeNumber(spec.name, name, type, value);
      }
      device.recorder.fate.dependOn(fate);
      for (const { tensor, shape } of bound)
        device.touch(tensor.storage, { writes: isWritable(shape.access) });
      const buffers = bound.flatMap((b) => b.buffers);
      device.recorder.dispatch(pipeline, modes, buffers, byteOffset, groups);
      device.profiler?.note({ kernel: spec.name, variant: key, ...traffic(bound, packed, spec.partly) });
    },
  };
}

interface Bound {
  tensor: Tensor;
  shape: BindingShape;
  buffers: BoundBuffer[];
  /** Of the view's first element from the start of the first window, in units of the accessor's index. */
  offset: number;
  /** A buffer of a packed matrix. */
  isPart?: true;
}

/** Bytes of the elements that a dispatch reads and writes, each counted once: what it has to move at least. */
function traffic(
  bound: readonly Bound[],
  packed: readonly BoundPacked[],
  partly: { readonly [name: string]: PropertyKey | undefined } = {},
): { readBytes: number; writtenBytes: number } {
  const elements = new Map(bound.map(({ tensor, shape }) => [shape.name, distinctElements(tensor)]));
  let readBytes = 0;
  let writtenBytes = 0;
  for (const { name, format, elements: all } of packed) {
    const read = Math.min(all, elements.get(String(partly[name])) ?? Number.POSITIVE_INFINITY);
    readBytes += read * bytesPerElement(format);
  }
  for (const { tensor, shape, isPart } of bound) {
    if (isPart) continue;
    const { name, access } = shape;
    const most = elements.get(String(partly[name])) ?? Number.POSITIVE_INFINITY;
    const bytes = Math.min(elements.get(name)!, most) * DTYPE_BYTES[tensor.dtype];
    if (!access.startsWith("write")) readBytes += bytes;
    if (isWritable(access)) writtenBytes += bytes;
  }
  return { readBytes, writtenBytes };
}

/** Elements in memory that a view shows; those it repeats count once. */
function distinctElements({ shape, strides }: Tensor): number {
  return shape.reduce((count, n, axis) => count * (strides[axis] === 0 && n > 0 ? 1 : n), 1);
}

interface BoundPacked extends PackedBinding {
  /** Of the view's first element, in units of the accessor's index. */
  offset: number;
  /** That it has. */
  elements: number;
}

function bindPacked(
  kernel: string,
  name: string,
  access: PackedBinding["access"],
  { format, offset, size }: Packed,
): BoundPacked {
  const unit = isWide(access) ? codesInWide(format) : isVector(access) ? 4 : 1;
  if (offset % unit !== 0) {
    throw new ShapeError(`${kernel}: ${name} starts at element ${offset}, not at a multiple of ${unit}`);
  }
  return { name, access, format, offset: offset / unit, elements: size };
}

function bind(kernel: string, name: string, access: Access, tensor: Tensor): Bound {
  const { dtype, storage, device } = tensor;
  const unit = isVector(access) ? 4 : 1;
  const aligned = isWritable(access) && DTYPE_BYTES[dtype] === 2 ? Math.max(unit, 2) : unit;
  if (tensor.offset % aligned !== 0) {
    throw new ShapeError(
      `${kernel}: ${name} starts at element ${tensor.offset}, not at a multiple of ${aligned}`,
    );
  }
  const writable = isWritable(access);
  const windowBytes = device.maxBindingBytes;
  if (storage.bytes <= windowBytes) {
    const shape: BindingShape = { name, access, dtype, windows: 1, windowBytes };
    return { tensor, shape, buffers: [{ storage, writable }], offset: tensor.offset / unit };
  }
  const width = DTYPE_BYTES[dtype];
  const last = tensor.shape.reduce((at, n, i) => at + (n - 1) * tensor.strides[i]!, tensor.offset);
  const start = Math.floor((tensor.offset * width) / 256) * 256;
  const end = Math.min(Math.ceil(((last + 1) * width) / 16) * 16, storage.bytes);
  const buffers: BoundBuffer[] = [];
  for (let offset = start; offset < end; offset += windowBytes) {
    buffers.push({ storage, writable, window: { offset, size: Math.min(windowBytes, end - offset) } });
  }
  const shape: BindingShape = { name, access, dtype, windows: buffers.length, windowBytes };
  return { tensor, shape, buffers, offset: (tensor.offset - start / width) / unit };
}

function source<
  P extends Record<string, ParameterType>,
  B extends Record<string, Access>,
  C extends Constants,
>(
  spec: KernelSpec<P, B, C>,
  bound: readonly Bound[],
  packed: readonly BoundPacked[],
  constants: C,
  device: Device,
): string {
  const shapes = new Map(bound.map(({ shape }) => [shape.name, shape]));
  const names = new Set([...shapes.keys(), ...packed.map(({ name }) => name)]);
  const code = spec.code({
    constants,
    device,
    has: (name) => names.has(name),
    dtype: (name) => shapes.get(name)!.dtype,
    format: (name) => packed.find((each) => each.name === name)!.format,
    element: (name) => elementType(shapes.get(name)!.dtype),
  });
  // Directives such as `enable f16;` have to come before all declarations.
  const directives = code.match(/^\s*(enable|requires|diagnostic)\b[^;]*;/gm) ?? [];
  const body = code.replace(/^\s*(enable|requires|diagnostic)\b[^;]*;/gm, "");
  return [...directives, declarations([...shapes.values()], packed, spec.params), body].join("\n");
}

function foldWorkgroups(
  device: Device,
  kernel: string,
  workgroups: number | readonly [number, number, number],
): readonly [number, number, number] {
  const limit = device.gpu.limits.maxComputeWorkgroupsPerDimension;
  if (typeof workgroups === "number") {
    if (workgroups <= limit) return [workgroups, 1, 1];
    const rows = Math.ceil(workgroups / limit);
    return [Math.ceil(workgroups / rows), rows, 1];
  }
  if (workgroups.some((n) => n > limit)) {
    throw new ShapeError(
      `${kernel}: ${workgroups.join(" x ")} workgroups exceed this adapter's ${limit} per dimension`,
    );
  }
  return workgroups;
}

const floats = new Float32Array(1);
const bits = new Uint32Array(floats.buffer);

function floatBits(value: number): number {
  floats[0] = value;
  return bits[0]!;
}

/** A parameter as its 32 bits. Throws DeviceError for what would silently become another number. */
function wholeNumber(kernel: string, name: string, type: "u32" | "i32", value: number): number {
  const [low, high] = type === "u32" ? [0, 0xffff_ffff] : [-0x8000_0000, 0x7fff_ffff];
  if (!(Number.isInteger(value) && value >= low && value <= high)) {
    throw new DeviceError(
      `${kernel}: expected parameter ${name} to be ${type === "u32" ? "a u32" : "an i32"}, found ${value}`,
    );
  }
  return value;
}
