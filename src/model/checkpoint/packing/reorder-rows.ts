import { CheckpointError } from "../../../errors.ts";
import {
  NESTED_BLOCK,
  NESTED_START,
  type PackedFormat,
  type PartName,
  partsOf,
} from "../../../tensor/packed/packed-format.ts";
import type { PackedBytes } from "../../../tensor/packed/packed-values.ts";
import { collected, emptyParts, type PackedSource, sourceOf } from "../entries/packed-source.ts";
import { bytesOf } from "./piece-writer.ts";

/**
 * A packed matrix with its rows in another order: row i of the result is row `order[i]`. Scales that are themselves
 * quantised become f32, since rows share them. Throws CheckpointError where rows are no whole number of groups.
 */
export function reordered(name: string, source: PackedSource, order: readonly number[]): PackedSource {
  const { rows, rowStride } = source;
  const format: PackedFormat =
    source.format.scales === "nested" ? { ...source.format, scales: "f32" } : source.format;
  const unit = format.scales.startsWith("super") ? 256 : format.group;
  if (rowStride % unit !== 0) {
    throw new CheckpointError(
      `${name}: rows of ${rowStride} are no whole number of groups of ${unit}, so that the layers that share this matrix ` +
        `cannot be told apart in ${format.kind}; keep it as stored (quantise: { modules: { … } })`,
    );
  }
  const bytesPerRow = rowBytes(format, rowStride);
  return sourceOf({ format, rows, rowStride }, async () => {
    const parts = unnested(source.format, await collected(source), rows * rowStride);
    const out = emptyParts(format, rows * rowStride);
    for (const [part, bytes] of parts) {
      const width = bytesPerRow.get(part)!;
      order.forEach((from, to) => {
        out.get(part)!.set(bytes.subarray(from * width, (from + 1) * width), to * width);
      });
    }
    return out;
  });
}

/** Bytes of each part that a row takes. */
function rowBytes(format: PackedFormat, rowStride: number): Map<PartName, number> {
  // As many rows as make whole words of all parts.
  const rows = 8;
  const bytes = { f32: 4, f16: 2, bf16: 2, i32: 4, u32: 4 };
  return new Map(
    partsOf(format, rows * rowStride).map(({ name, dtype, length }) => [
      name,
      (length * bytes[dtype]) / rows,
    ]),
  );
}

/** The parts with plain scales. */
function unnested(format: PackedFormat, parts: PackedBytes, elements: number): PackedBytes {
  if (format.scales !== "nested") return parts;
  const codes = parts.get("scales")!;
  const nested = new Float32Array(parts.get("nested")!.slice().buffer);
  const scales = new Float32Array(Math.ceil(elements / format.group));
  for (let g = 0; g < scales.length; g++) {
    const factor = nested[NESTED_START + Math.floor(g / NESTED_BLOCK)]!;
    scales[g] = Math.fround(nested[1 + codes[g]!]! * factor) + nested[0]!;
  }
  const rest = [...parts].filter(([part]) => part === "codes");
  return new Map<PartName, Uint8Array<ArrayBuffer>>([...rest, ["scales", bytesOf(scales)]]);
}
