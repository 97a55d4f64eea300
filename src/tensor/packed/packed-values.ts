import { f16Value } from "../dtype.ts";
import {
  NESTED_BLOCK,
  NESTED_START,
  type PackedFormat,
  type PartName,
  SUPER_BLOCK,
} from "./packed-format.ts";

/** The parts of a packed matrix as bytes on the host, each whole words long. */
export type PackedBytes = ReadonlyMap<PartName, Uint8Array<ArrayBuffer>>;

/** Elements `start` to `end - 1` of the flattened matrix, as the numbers that they stand for, each rounded to f32 once. */
export function packedValues(
  format: PackedFormat,
  parts: PackedBytes,
  start: number,
  end: number,
): Float32Array<ArrayBuffer> {
  const code = codeReader(format, parts);
  const scale = scaleReader(format, parts);
  const { group, bias = 0, table, scales } = format;
  const out = new Float32Array(end - start);
  for (let i = start; i < end; ) {
    const index = Math.floor(i / group);
    const [factor, offset] = scale(index);
    const last = Math.min(end, (index + 1) * group);
    for (; i < last; i++) {
      const number = table ? Math.fround(table[code(i)]!) : code(i) - bias;
      if (scales === "zero") out[i - start] = (number - offset) * factor;
      else out[i - start] = offset === 0 ? number * factor : number * factor + offset;
    }
  }
  return out;
}

const words = (bytes: Uint8Array<ArrayBuffer>) =>
  new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);

function codeReader({ codes }: PackedFormat, parts: PackedBytes): (i: number) => number {
  const bytes = parts.get("codes")!;
  const nibble = (i: number) => (bytes[i >> 1]! >> ((i & 1) * 4)) & 15;
  switch (codes) {
    case "i8": {
      const signed = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
      return (i) => signed[i]!;
    }
    case "u8":
      return (i) => bytes[i]!;
    case "u4":
      return nibble;
    case "u6": {
      const high = parts.get("high")!;
      return (i) => nibble(i) | (((high[i >> 2]! >> ((i & 3) * 2)) & 3) << 4);
    }
  }
}

/** Factor and offset of a group; with `zero` the offset is the zero point. */
function scaleReader({ scales, group }: PackedFormat, parts: PackedBytes): (g: number) => [number, number] {
  const bytes = parts.get("scales")!;
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length >> 1);
  const perSuper = SUPER_BLOCK / group;
  switch (scales) {
    case "f16":
      return (g) => [f16Value(halves[g]!), 0];
    case "f32": {
      const floats = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
      return (g) => [floats[g]!, 0];
    }
    case "affine":
    case "zero":
      return (g) => [f16Value(halves[2 * g]!), f16Value(halves[2 * g + 1]!)];
    case "nested": {
      const nested = new Float32Array(words(parts.get("nested")!).slice().buffer);
      return (g) => {
        const factor = nested[NESTED_START + Math.floor(g / NESTED_BLOCK)]!;
        return [Math.fround(Math.fround(nested[1 + bytes[g]!]! * factor) + nested[0]!), 0];
      };
    }
    case "super": {
      const factors = parts.get("super")!;
      const half = new Uint16Array(factors.buffer, factors.byteOffset, factors.length >> 1);
      return (g) => [((bytes[g]! << 24) >> 24) * f16Value(half[Math.floor(g / perSuper)]!), 0];
    }
    case "superAffine": {
      const factors = parts.get("super")!;
      const half = new Uint16Array(factors.buffer, factors.byteOffset, factors.length >> 1);
      return (g) => {
        const at = 2 * Math.floor(g / perSuper);
        return [bytes[2 * g]! * f16Value(half[at]!), -bytes[2 * g + 1]! * f16Value(half[at + 1]!)];
      };
    }
  }
}
