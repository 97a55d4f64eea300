import { CheckpointError } from "../../../errors.ts";
import type { PackedFormat } from "../../../tensor/packed/packed-format.ts";
import type { PackedPiece, PackedSource } from "../entries/packed-source.ts";
import { FourBitCoder } from "./pack-four-bit.ts";
import { type Group, type GroupCoder, groupCoder } from "./pack-rows.ts";
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
  const own: Group = { values: new Float32Array(), start: 0, end: 0 };
  const filled = new Float32Array(group); // a row's last group, with zeros behind it
  for await (const values of runs(width)) {
    refuse(name, format, values);
    const rows = values.length / width;
    const codes = new Uint8Array(rows * perRow * group);
    const scales = new Uint16Array(rows * perRow * halves);
    for (let at = 0; at < rows * perRow; at++) {
      const g = at % perRow;
      own.values = values;
      own.start = ((at - g) / perRow) * width + g * group;
      own.end = own.start + group;
      if ((g + 1) * group > width) {
        filled.fill(0);
        filled.set(values.subarray(own.start, own.start + width - g * group));
        own.values = filled;
        own.start = 0;
        own.end = group;
      }
      coder(own, codes, at * group, scales.subarray(at * halves, (at + 1) * halves));
    }
    if (scales.some((bits) => (bits & 0x7c00) === 0x7c00)) {
      throw new CheckpointError(
        `${name} has numbers too large for the scales of ${format.kind}, which are f16`,
      );
    }
    yield* writer.add("codes", format.codes === "u4" ? nibbles(codes) : codes);
    yield* writer.add("scales", bytesOf(scales));
  }
  yield* writer.finish();
}

/** Throws CheckpointError for numbers that are not finite. */
function refuse(name: string, { kind }: PackedFormat, values: Float32Array): void {
  let finite = 0; // 0 times what is not finite is NaN
  for (let i = 0; i < values.length; i++) finite += 0 * values[i]!;
  if (finite === 0) return;
  const bad = values.find((value) => !Number.isFinite(value));
  throw new CheckpointError(`${name} has ${bad}, which ${kind} cannot hold`);
}
