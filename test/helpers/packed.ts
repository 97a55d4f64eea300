import type { Device } from "../../src/tensor/device.ts";
import { DTYPE_BYTES, f16Bits } from "../../src/tensor/dtype.ts";
import { Packed } from "../../src/tensor/packed/packed.ts";
import {
  NESTED_START,
  type PackedFormat,
  type PartName,
  partsOf,
} from "../../src/tensor/packed/packed-format.ts";
import { fourBit, GGML_FORMATS, int4, int8, int8Rows } from "../../src/tensor/packed/packed-formats.ts";
import { type PackedBytes, packedValues } from "../../src/tensor/packed/packed-values.ts";
import { seededNumbers } from "./compare.ts";

/** Every format there is, for rows of so many elements. */
export function allFormats(width: number): PackedFormat[] {
  return [
    int8(),
    int8({ group: 32, zeros: true }),
    int8Rows(Math.ceil(width / 4) * 4),
    int4({ group: 32 }),
    int4({ zeros: true }),
    fourBit("nf4"),
    fourBit("nf4", { nested: false, group: 128 }),
    fourBit("fp4", { nested: false }),
    fourBit("fp4"),
    ...Object.values(GGML_FORMATS),
  ];
}

/** How far rows are apart: formats of bitsandbytes go on from row to row, others begin a group with each. */
export function rowStride({ kind, group, scales }: PackedFormat, width: number): number {
  if (kind === "nf4" || kind === "fp4") return width;
  const unit = scales === "super" || scales === "superAffine" ? 256 : group;
  return Math.ceil(width / unit) * unit;
}

/** Parts of random codes and sensible scales. */
export function randomParts(format: PackedFormat, elements: number, seed: number): PackedBytes {
  const next = seededNumbers(seed);
  const parts = new Map<PartName, Uint8Array<ArrayBuffer>>();
  for (const { name, dtype, length } of partsOf(format, elements)) {
    const bytes = new Uint8Array(Math.ceil((length * DTYPE_BYTES[dtype]) / 4) * 4);
    const halves = new Uint16Array(bytes.buffer);
    const half = (i: number, value: number) => {
      halves[i] = f16Bits(value);
    };
    if (name === "nested") {
      const floats = new Float32Array(bytes.buffer);
      for (let i = 0; i < length; i++) floats[i] = next();
      floats[0] = 1.5;
      for (let i = NESTED_START; i < length; i++) floats[i] = 0.5 + Math.abs(next());
    } else if (dtype === "f32") {
      new Float32Array(bytes.buffer).forEach((_, i, all) => {
        all[i] = next();
      });
    } else if (dtype === "f16" || name === "super") {
      for (let i = 0; i < halves.length; i++) half(i, next() / 16);
    } else if (name === "scales" && format.scales === "affine") {
      for (let i = 0; i < halves.length; i++) half(i, next());
    } else if (name === "scales" && format.scales === "zero") {
      for (let i = 0; i < length; i++) {
        half(2 * i, next());
        half(2 * i + 1, Math.floor(Math.abs(next()) * (format.codes === "u8" ? 256 : 16)));
      }
    } else {
      for (let i = 0; i < bytes.length; i++) bytes[i] = Math.floor((next() + 1) * 128);
    }
    parts.set(name, bytes);
  }
  return parts;
}

export interface RandomPacked {
  readonly packed: Packed;
  /** [rows, width] as numbers. */
  readonly values: Float32Array;
}

/** A packed matrix of random contents. */
export function randomPacked(
  device: Device,
  format: PackedFormat,
  [rows, width]: readonly [number, number],
  seed: number,
): RandomPacked {
  const stride = rowStride(format, width);
  const bytes = randomParts(format, rows * stride, seed);
  const parts = new Map(
    partsOf(format, rows * stride).map(({ name, dtype, length }) => {
      const tensor = device.empty([length], dtype, name);
      device.write(tensor, bytes.get(name)!);
      return [name, tensor];
    }),
  );
  const packed = new Packed({ format, shape: [rows, width], strides: [stride, 1], offset: 0 }, parts);
  const all = packedValues(format, bytes, 0, rows * stride);
  const values = new Float32Array(rows * width);
  for (let row = 0; row < rows; row++) {
    values.set(all.subarray(row * stride, row * stride + width), row * width);
  }
  return { packed, values };
}
