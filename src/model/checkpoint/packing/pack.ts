import { CheckpointError } from "../../../errors.ts";
import type { PackedFormat } from "../../../tensor/packed/packed-format.ts";
import type { PackedPiece, PackedSource } from "../entries/packed-source.ts";
import { FourBitCoder } from "./pack-four-bit.ts";
import { type GroupCoder, groupCoder } from "./pack-rows.ts";
import { bytesOf, nibbles, PieceWriter } from "./piece-writer.ts";

/** Numbers of a matrix in row-major order; see `floatRuns`. */
export type FloatRuns = (run: number) => AsyncIterable<Float32Array<ArrayBuffer>>;

/**
 * A matrix [rows, width] of floats as one that is packed as it is read, some rows at a time: it is never whole in memory.
 * Throws CheckpointError, also while it is read: for formats that are only read, and for numbers that are not finite or beyond
 * what scales can be.
 */
export function packing(
  name: string,
  format: PackedFormat,
  [rows, width]: readonly [number, number],
  runs: FloatRuns,
): PackedSource {
  if (format.kind === "nf4" || format.kind === "fp4") {
    return { format, rows, rowStride: width, pieces: () => fourBits(name, format, rows * width, runs) };
  }
  const coder = groupCoder(format);
  if (!coder) throw new CheckpointError(`${name}: nothing is quantised to ${format.kind}; it is only read`);
  const rowStride = Math.ceil(width / format.group) * format.group;
  return { format, rows, rowStride, pieces: () => byRows(name, format, width, coder, runs) };
}

async function* fourBits(
  name: string,
  format: PackedFormat,
  elements: number,
  runs: FloatRuns,
): AsyncGenerator<PackedPiece, void, undefined> {
  const coder = new FourBitCoder(name, format, elements);
  for await (const values of runs(format.group)) yield { part: "codes", bytes: coder.code(values) };
  yield* coder.scales();
}

async function* byRows(
  name: string,
  format: PackedFormat,
  width: number,
  coder: GroupCoder,
  runs: FloatRuns,
): AsyncGenerator<PackedPiece, void, undefined> {
  const { group } = format;
  const writer = new PieceWriter();
  const perRow = Math.ceil(width / group);
  const halves = format.scales === "f16" ? 1 : 2;
  const part = new Float32Array(group);
  for await (const values of runs(width)) {
    const rows = values.length / width;
    const codes = new Uint8Array(rows * perRow * group);
    const scales = new Uint16Array(rows * perRow * halves);
    for (let row = 0; row < rows; row++) {
      for (let g = 0; g < perRow; g++) {
        const start = row * width + g * group;
        part.fill(0);
        part.set(values.subarray(start, Math.min(start + group, (row + 1) * width)));
        refuse(name, format, part);
        const at = row * perRow + g;
        const own = scales.subarray(at * halves, (at + 1) * halves);
        coder(part, codes.subarray(at * group, (at + 1) * group), own);
        if (own.some((bits) => (bits & 0x7c00) === 0x7c00)) {
          throw new CheckpointError(
            `${name} has numbers too large for the scales of ${format.kind}, which are f16`,
          );
        }
      }
    }
    yield* writer.add("codes", format.codes === "u4" ? nibbles(codes) : codes);
    yield* writer.add("scales", bytesOf(scales));
  }
  yield* writer.finish();
}

/** Throws CheckpointError for numbers that are not finite. */
function refuse(name: string, { kind }: PackedFormat, values: Float32Array): void {
  const bad = values.find((value) => !Number.isFinite(value));
  if (bad !== undefined) throw new CheckpointError(`${name} has ${bad}, which ${kind} cannot hold`);
}
