import { ImageError } from "../../errors.ts";
import { inflateInto } from "./inflate.ts";
import { type PngChunks, type PngPass, passesOf, samplesOf } from "./png-chunks.ts";

/**
 * The rows of a PNG, decompressed and their filters undone: for each pass its rows, one after the other, each behind a
 * byte of no further meaning. Surplus rows and bytes are left out.
 *
 * Nothing is decompressed beyond the size that the header gives, and that is refused where the file cannot hold it.
 * Throws ImageError for damaged data and missing rows.
 */
export function readRows({ header, compressed, cutOff }: PngChunks): { pass: PngPass; rows: Uint8Array }[] {
  const passes = passesOf(header);
  const expected = passes.reduce((sum, { rows, rowSize }) => sum + rows * (1 + rowSize), 0);
  const available = compressed.reduce((sum, part) => sum + part.length, 0);
  // deflate spends at least one bit on 129 bytes.
  if (expected > available * 1032) {
    throw new ImageError(
      cutOff
        ? `PNG: truncated: ${cutOff}`
        : `PNG: ${header.width} x ${header.height} pixels need ${expected} bytes; ` +
            `${available} compressed bytes cannot hold them`,
    );
  }
  const all = new Uint8Array(expected);
  const { size, whole, damaged } = inflateInto(all, compressed);
  if (size < expected && cutOff) throw new ImageError(`PNG: truncated: ${cutOff}`);
  if (damaged || (size < expected && !whole)) {
    throw new ImageError(`PNG: the compressed data is damaged or cut off after ${size} of ${expected} bytes`);
  }
  if (size < expected)
    throw new ImageError(`PNG: expected ${expected} bytes of compressed rows, found ${size}`);

  const pixelSize = Math.max(1, (samplesOf(header.colorType) * header.depth) >> 3);
  let end = 0;
  return passes.map((pass) => {
    const begin = end;
    end += pass.rows * (1 + pass.rowSize);
    const rows = all.subarray(begin, end);
    for (let row = 0; row < pass.rows; row++) unfilter(rows, row, pass.rowSize, pixelSize);
    return { pass, rows };
  });
}

/** Undoes the filter of a row (PNG, section 9): samples are differences to the left, above, or to a mix of both. */
function unfilter(rows: Uint8Array, row: number, rowSize: number, pixelSize: number): void {
  const begin = row * (1 + rowSize);
  const filter = rows[begin]!;
  const now = rows.subarray(begin + 1, begin + 1 + rowSize);
  const above = row > 0 ? rows.subarray(begin - rowSize, begin) : new Uint8Array(rowSize);
  const first = Math.min(pixelSize, rowSize);
  switch (filter) {
    case 0:
      return;
    case 1:
      for (let i = first; i < rowSize; i++) now[i]! += now[i - pixelSize]!;
      return;
    case 2:
      for (let i = 0; i < rowSize; i++) now[i]! += above[i]!;
      return;
    case 3:
      for (let i = 0; i < first; i++) now[i]! += above[i]! >> 1;
      for (let i = first; i < rowSize; i++) now[i]! += (now[i - pixelSize]! + above[i]!) >> 1;
      return;
    case 4:
      for (let i = 0; i < first; i++) now[i]! += above[i]!;
      for (let i = first; i < rowSize; i++) {
        now[i]! += paeth(now[i - pixelSize]!, above[i]!, above[i - pixelSize]!);
      }
      return;
    default:
      throw new ImageError(`PNG: damaged: expected filter 0 to 4 for each row, found ${filter}`);
  }
}

/** Of the samples to the left, above and diagonally above, the nearest to left + above - diagonal. */
function paeth(left: number, above: number, diagonal: number): number {
  const toLeft = Math.abs(above - diagonal);
  const toAbove = Math.abs(left - diagonal);
  const toDiagonal = Math.abs(left + above - 2 * diagonal);
  if (toLeft <= toAbove && toLeft <= toDiagonal) return left;
  return toAbove <= toDiagonal ? above : diagonal;
}
