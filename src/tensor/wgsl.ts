import type { DType } from "./dtype.ts";
import type { PackedFormat } from "./packed/packed-format.ts";
import { packedAccessors, wideAccessors } from "./packed/packed-wgsl.ts";

/**
 * How a kernel sees a tensor: `read`, `write` or `update` (both), by single elements or, with a 4, by groups of four
 * elements (offset and rows then have to be multiples of four). `values` reads numbers, from a tensor of floats or from a
 * packed matrix, `wide` codes of a packed matrix 16 bytes at a time (see `wideAccessors`). With a question mark the tensor may be
 * absent.
 */
export type Access =
  | "read"
  | "read4"
  | "write"
  | "write4"
  | "update"
  | "update4"
  | "read?"
  | "read4?"
  | "write?"
  | "write4?"
  | ValuesAccess
  | WideAccess;

/** Of what is packed. */
export type WideAccess = "wide" | "wide?";

/** Of what may be packed. */
export type ValuesAccess = "values" | "values4" | "values?" | "values4?";

/** A tensor as one kernel variant sees it. */
export interface BindingShape {
  name: string;
  access: Access;
  dtype: DType;
  /** 1, or the number of bindings that a tensor over the binding limit is spread over. */
  windows: number;
  /** Bytes of each window but the last. */
  windowBytes: number;
}

/** A packed matrix as one kernel variant sees it; its parts are bindings of their own, called `<name>_<part>`. */
export interface PackedBinding {
  name: string;
  access: ValuesAccess | WideAccess;
  format: PackedFormat;
}

export type ParameterType = "u32" | "i32" | "f32";

const SCALAR: Record<DType, string> = { f32: "f32", f16: "f32", bf16: "f32", i32: "i32", u32: "u32" };

/** The WGSL type of one element after loading: f16 and bf16 widen to f32. */
export function elementType(dtype: DType): string {
  return SCALAR[dtype];
}

/**
 * Declarations for a kernel: the bindings, the `params` uniform, and for each tensor `x` the accessors
 *
 * - `x_at(i) -> element`, `x_bits(i) -> u32` (its raw bits) for `read` and `update`
 * - `x_at4(i) -> vec4` for `read4` and `update4`; `i` counts groups of four
 * - `x_set(i, value)` (32-bit dtypes) and `x_set_word(i, bits)` (any dtype; `i` counts 32-bit words) for `write`, `update`
 * - `x_set4(i, vec4)` for `write4` and `update4`
 * - `x_at(i) -> f32` for `values`, `x_at4(i) -> vec4f` for `values4`
 *
 * which hide dtype, view offset and windows. Indices count from the view's first element.
 */
export function declarations(
  bindings: readonly BindingShape[],
  packed: readonly PackedBinding[],
  params: Readonly<Record<string, ParameterType>>,
): string {
  let slot = 0;
  const lines: string[] = [];
  for (const binding of bindings) {
    lines.push(declareBuffers(binding, slot), accessors(binding));
    slot += binding.windows;
  }
  for (const { name, access, format } of packed) {
    lines.push(
      isWide(access) ? wideAccessors(name, format) : packedAccessors(name, format, isVector(access)),
    );
  }
  const fields = [
    ...[...bindings, ...packed].map((b) => `  ${b.name}_offset: u32,`),
    ...Object.entries(params).map(([name, type]) => `  ${name}: ${type},`),
  ];
  return [
    `struct Params {\n${fields.join("\n")}\n}`,
    "@group(1) @binding(0) var<uniform> params: Params;",
    ...lines,
    FLAT_GROUP,
  ].join("\n");
}

/** Workgroups beyond one dimension's limit are folded into the second; this undoes it. Surplus groups must be skipped. */
const FLAT_GROUP = `
fn flat_group(group: vec3u, groups: vec3u) -> u32 {
  return group.x + group.y * groups.x;
}`;

export function isWritable(access: Access): boolean {
  return access.startsWith("write") || access.startsWith("update");
}

export function isWide(access: Access): boolean {
  return access.startsWith("wide");
}

export function isVector(access: Access): boolean {
  return access.includes("4");
}

function is16Bit(dtype: DType): boolean {
  return dtype === "f16" || dtype === "bf16";
}

/** Type of the array element in the buffer. */
function storedType({ dtype, access }: BindingShape): string {
  if (is16Bit(dtype)) return isVector(access) ? "vec2<u32>" : "u32";
  return isVector(access) ? `vec4<${SCALAR[dtype]}>` : SCALAR[dtype];
}

function bufferNames({ name, windows }: BindingShape): string[] {
  return windows === 1 ? [`${name}_buffer`] : Array.from({ length: windows }, (_, i) => `${name}_buffer${i}`);
}

function declareBuffers(binding: BindingShape, firstSlot: number): string {
  const mode = isWritable(binding.access) ? "read_write" : "read";
  const type = storedType(binding);
  return bufferNames(binding)
    .map((name, i) => `@group(0) @binding(${firstSlot + i}) var<storage, ${mode}> ${name}: array<${type}>;`)
    .join("\n");
}

function accessors(binding: BindingShape): string {
  const reads = !binding.access.startsWith("write");
  const parts = [];
  if (reads)
    parts.push(loadStored(binding), isVector(binding.access) ? vectorRead(binding) : scalarRead(binding));
  if (isWritable(binding.access)) {
    parts.push(storeStored(binding), isVector(binding.access) ? vectorWrite(binding) : scalarWrite(binding));
  }
  return parts.join("\n");
}

/** `body(buffer, index)` for the window that stored element `j` lies in. */
function perWindow(binding: BindingShape, body: (buffer: string, index: string) => string): string {
  const names = bufferNames(binding);
  if (names.length === 1) return `  ${body(names[0]!, "j")}`;
  const bytes = { u32: 4, i32: 4, f32: 4, "vec2<u32>": 8 }[storedType(binding)] ?? 16;
  const per = binding.windowBytes / bytes;
  const cases = names.map((name, i) => {
    const label = i === names.length - 1 ? "default" : `case ${i}u`;
    return `    ${label}: { ${body(name, `j - ${i * per}u`)} }`;
  });
  return `  switch (j / ${per}u) {\n${cases.join("\n")}\n  }`;
}

function loadStored(binding: BindingShape): string {
  const body = perWindow(binding, (buffer, index) => `return ${buffer}[${index}];`);
  return `fn ${binding.name}_load(j: u32) -> ${storedType(binding)} {\n${body}\n}`;
}

function storeStored(binding: BindingShape): string {
  const body = perWindow(binding, (buffer, index) => `${buffer}[${index}] = value;`);
  return `fn ${binding.name}_store(j: u32, value: ${storedType(binding)}) {\n${body}\n}`;
}

function scalarRead({ name, dtype }: BindingShape): string {
  const type = SCALAR[dtype];
  if (!is16Bit(dtype)) {
    return `
fn ${name}_at(i: u32) -> ${type} { return ${name}_load(i + params.${name}_offset); }
fn ${name}_bits(i: u32) -> u32 { return bitcast<u32>(${name}_at(i)); }`;
  }
  const widen = dtype === "f16" ? "unpack2x16float(bits).x" : "bitcast<f32>(bits << 16u)";
  return `
fn ${name}_bits(i: u32) -> u32 {
  let j = i + params.${name}_offset;
  return (${name}_load(j >> 1u) >> ((j & 1u) * 16u)) & 0xffffu;
}
fn ${name}_at(i: u32) -> f32 { let bits = ${name}_bits(i); return ${widen}; }`;
}

function vectorRead({ name, dtype }: BindingShape): string {
  const load = `${name}_load(i + params.${name}_offset)`;
  if (!is16Bit(dtype)) return `fn ${name}_at4(i: u32) -> vec4<${SCALAR[dtype]}> { return ${load}; }`;
  const widened =
    dtype === "f16"
      ? "vec4f(unpack2x16float(w.x), unpack2x16float(w.y))"
      : "bitcast<vec4f>(vec4u(w.x << 16u, w.x & 0xffff0000u, w.y << 16u, w.y & 0xffff0000u))";
  return `fn ${name}_at4(i: u32) -> vec4f { let w = ${load}; return ${widened}; }`;
}

function scalarWrite({ name, dtype }: BindingShape): string {
  if (is16Bit(dtype)) {
    return `fn ${name}_set_word(i: u32, bits: u32) { ${name}_store(i + params.${name}_offset / 2u, bits); }`;
  }
  const type = SCALAR[dtype];
  return `
fn ${name}_set(i: u32, value: ${type}) { ${name}_store(i + params.${name}_offset, value); }
fn ${name}_set_word(i: u32, bits: u32) { ${name}_set(i, bitcast<${type}>(bits)); }`;
}

function vectorWrite({ name, dtype }: BindingShape): string {
  const store = (value: string) => `${name}_store(i + params.${name}_offset, ${value});`;
  if (!is16Bit(dtype)) {
    return `fn ${name}_set4(i: u32, value: vec4<${SCALAR[dtype]}>) { ${store("value")} }`;
  }
  if (dtype === "f16") {
    return `fn ${name}_set4(i: u32, v: vec4f) { ${store("vec2u(pack2x16float(v.xy), pack2x16float(v.zw))")} }`;
  }
  return `
fn ${name}_round(v: vec4f) -> vec4u {
  let bits = bitcast<vec4u>(v);
  let rounded = (bits + 0x7fffu + ((bits >> vec4u(16u)) & vec4u(1u))) >> vec4u(16u);
  return select(rounded, (bits >> vec4u(16u)) | vec4u(0x40u), (bits & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
}
fn ${name}_set4(i: u32, v: vec4f) {
  let h = ${name}_round(v);
  ${store("vec2u(h.x | (h.y << 16u), h.z | (h.w << 16u))")}
}`;
}
