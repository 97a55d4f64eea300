import { CheckpointError } from "../../../errors.ts";
import type { DType } from "../../../tensor/dtype.ts";
import {
  NESTED_BLOCK,
  NESTED_START,
  type PackedFormat,
  type PartName,
} from "../../../tensor/packed/packed-format.ts";
import { fourBit, int8Rows } from "../../../tensor/packed/packed-formats.ts";
import { showShape, sizeOf } from "../../../tensor/shape.ts";
import { type PackedSource, sourceOf } from "../entries/packed-source.ts";
import { renamed, type TensorEntry } from "../entries/tensor-entry.ts";
import { isObject } from "../json/config-reader.ts";
import { packedEntry, rawBytes } from "./packed-entry.ts";
import { bytesOf } from "./piece-writer.ts";

const STATE = /^(.+)\.quant_state\.bitsandbytes__(nf4|fp4)$/;
const DTYPES: Readonly<Record<string, DType>> = { float32: "f32", float16: "f16", bfloat16: "bf16" };

/**
 * The tensors with those that bitsandbytes stores beside a weight of 4 bits (`absmax`, `quant_map`, `nested_absmax`,
 * `nested_quant_map`, `quant_state`) or of 8 (`SCB`) taken together with it, as one matrix that is packed. What does not fit
 * together can be listed, but not read.
 */
export async function withBitsandbytes(
  entries: ReadonlyMap<string, TensorEntry>,
): Promise<Map<string, TensorEntry>> {
  const out = new Map(entries);
  for (const [name, state] of entries) {
    const [, weight, kind] = STATE.exec(name) ?? [];
    if (weight !== undefined) await fourBits(entries, out, weight, kind as "nf4" | "fp4", state);
    else if (name.endsWith(".SCB")) eightBits(entries, out, name.slice(0, -".SCB".length));
  }
  return out;
}

interface State {
  readonly format: PackedFormat;
  readonly shape: readonly [number, number];
  readonly dtype: DType;
  readonly offset: number;
}

async function fourBits(
  entries: ReadonlyMap<string, TensorEntry>,
  out: Map<string, TensorEntry>,
  name: string,
  kind: "nf4" | "fp4",
  stateEntry: TensorEntry,
): Promise<void> {
  const weight = entries.get(name);
  if (!weight) return; // a stray, and refused as such
  const file = (part: string) => entries.get(`${name}.${part}`);
  const [absmax, map, nested, nestedMap] = [
    file("absmax"),
    file("quant_map"),
    file("nested_absmax"),
    file("nested_quant_map"),
  ];
  const used = [absmax, map, nested, nestedMap, stateEntry].filter((entry) => entry !== undefined);
  const state = readState(
    new TextDecoder().decode((await rawBytes(stateEntry)).subarray(0, stateEntry.storedBytes)),
    kind,
    nested !== undefined,
  );
  for (const { name } of used) out.delete(name);
  if (typeof state === "string") {
    out.set(name, { ...renamed(weight, name), problem: `${stateEntry.name}: ${state}` });
    return;
  }
  const { format, shape, dtype, offset } = state;
  const elements = sizeOf(shape);
  const groups = Math.ceil(elements / format.group);
  const wrong = [
    [weight, Math.ceil(elements / 2)],
    [absmax, format.scales === "nested" ? groups : 4 * groups],
    [map, 64],
    ...(format.scales === "nested"
      ? ([
          [nested, 4 * Math.ceil(groups / NESTED_BLOCK)],
          [nestedMap, 1024],
        ] as const)
      : []),
  ] as const;
  const bad = wrong.findIndex(([entry, bytes]) => entry?.storedBytes !== bytes);
  if (bad >= 0) {
    const part = ["weight", "absmax", "quant_map", "nested_absmax", "nested_quant_map"][bad];
    const [entry, bytes] = wrong[bad]!;
    const problem = `${name}: ${part} of ${showShape(shape)} in ${kind} should have ${bytes} bytes, found ${entry?.storedBytes ?? "none"}`;
    out.set(name, { ...renamed(weight, name), problem });
    return;
  }
  const source = sourceOf({ format, rows: shape[0], rowStride: shape[1] }, async () => {
    checkMap(name, format, await floatsOf(map!));
    const parts = new Map<PartName, Uint8Array<ArrayBuffer>>([
      ["codes", swapped(await rawBytes(weight), Math.ceil(elements / 8) * 4)],
      ["scales", await rawBytes(absmax!)],
    ]);
    if (format.scales === "nested") {
      const factors = await floatsOf(nested!);
      const all = new Float32Array(NESTED_START + factors.length);
      all[0] = offset;
      all.set(await floatsOf(nestedMap!), 1);
      all.set(factors, NESTED_START);
      parts.set("nested", bytesOf(all));
    }
    return parts;
  });
  out.set(name, packedEntry(name, shape, source, { dtype, files: [weight, ...used] }));
}

/** What `quant_state` says; in words what is wrong with it. */
function readState(text: string, kind: "nf4" | "fp4", nested: boolean): State | string {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return "expected JSON";
  }
  if (!isObject(json)) return "expected an object";
  const { quant_type, blocksize, shape, dtype, nested_blocksize, nested_offset } = json;
  if (quant_type !== kind) return `expected quant_type ${kind}, found ${JSON.stringify(quant_type)}`;
  const isSize = (value: unknown) => Number.isSafeInteger(value) && (value as number) > 0;
  if (!Array.isArray(shape) || shape.length !== 2 || !shape.every(isSize)) {
    return `expected the shape of a matrix, found ${JSON.stringify(shape)}`;
  }
  if (!isSize(blocksize) || (blocksize as number) % 4 !== 0) {
    return `expected a blocksize, found ${JSON.stringify(blocksize)}`;
  }
  const known = DTYPES[dtype as string];
  if (known === undefined)
    return `expected dtype ${Object.keys(DTYPES).join(", ")}, found ${JSON.stringify(dtype)}`;
  if (nested && (nested_blocksize !== NESTED_BLOCK || typeof nested_offset !== "number")) {
    return `expected nested_blocksize ${NESTED_BLOCK} and a nested_offset, found ${JSON.stringify(nested_blocksize)} and ${JSON.stringify(nested_offset)}`;
  }
  const format = fourBit(kind, { group: blocksize as number, nested });
  return {
    format,
    shape: shape as [number, number],
    dtype: known,
    offset: nested ? (nested_offset as number) : 0,
  };
}

/** Throws CheckpointError where codes stand for other numbers than they do here. */
function checkMap(name: string, { kind, table }: PackedFormat, map: Float32Array): void {
  if (table!.every((value, i) => Math.abs(map[i]! - value) < 1e-6)) return;
  throw new CheckpointError(`${name}.quant_map is not that of ${kind}, found ${[...map].join(", ")}`);
}

async function floatsOf(entry: TensorEntry): Promise<Float32Array<ArrayBuffer>> {
  if (entry.stored !== "F32") throw new CheckpointError(`${entry.name}: expected F32, found ${entry.stored}`);
  return new Float32Array((await rawBytes(entry)).buffer);
}

/** Pairs of codes with the first in the low half: bitsandbytes has it in the high one. */
function swapped(bytes: Uint8Array, length: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(length);
  for (let i = 0; i < Math.min(bytes.length, length); i++) out[i] = (bytes[i]! >> 4) | (bytes[i]! << 4);
  return out;
}

/** LLM.int8: a row's largest magnitude stands for 127. */
function eightBits(
  entries: ReadonlyMap<string, TensorEntry>,
  out: Map<string, TensorEntry>,
  module: string,
): void {
  const name = `${module}.weight`;
  const [weight, scale, layout] = [
    entries.get(name),
    entries.get(`${module}.SCB`)!,
    entries.get(`${module}.weight_format`),
  ];
  if (weight?.stored !== "I8" || weight.shape.length !== 2) return;
  const [rows, width] = weight.shape as [number, number];
  out.delete(scale.name);
  if (layout) out.delete(layout.name);
  if (scale.stored !== "F32" || sizeOf(scale.shape) !== rows || width % 4 !== 0) {
    const problem = `${name}: expected rows of a multiple of 4 and SCB F32 [${rows}], found ${showShape(weight.shape)} and ${scale.stored} ${showShape(scale.shape)}`;
    out.set(name, { ...renamed(weight, name), problem });
    return;
  }
  const source: PackedSource = sourceOf({ format: int8Rows(width), rows, rowStride: width }, async () => {
    if (layout && (await rawBytes(layout))[0] !== 0) {
      throw new CheckpointError(
        `${layout.name}: expected weights in rows (0), found another layout; save it with a newer bitsandbytes`,
      );
    }
    const scales = (await floatsOf(scale)).map((largest) => largest / 127);
    return new Map<PartName, Uint8Array<ArrayBuffer>>([
      ["codes", await rawBytes(weight)],
      ["scales", bytesOf(scales)],
    ]);
  });
  out.set(
    name,
    packedEntry(name, [rows, width], source, {
      dtype: "f32",
      files: [weight, scale, ...(layout ? [layout] : [])],
    }),
  );
}
