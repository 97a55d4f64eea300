import { DTYPE_BYTES } from "../../../tensor/dtype.ts";
import { type PackedFormat, type PartName, partsOf } from "../../../tensor/packed/packed-format.ts";
import type { PackedBytes } from "../../../tensor/packed/packed-values.ts";

/** Some bytes of a part of a packed matrix. */
export interface PackedPiece {
  readonly part: PartName;
  /** A multiple of four bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** A matrix that is packed, or becomes so as it is read. */
export interface PackedSource {
  readonly format: PackedFormat;
  readonly rows: number;
  /** How far rows are apart, in elements. */
  readonly rowStride: number;
  /** The parts, piece by piece, each part's in order. Throws CheckpointError. */
  pieces(): AsyncGenerator<PackedPiece, void, undefined>;
}

/** All parts on the host. */
export async function collected({ format, rows, rowStride, pieces }: PackedSource): Promise<PackedBytes> {
  const parts = emptyParts(format, rows * rowStride);
  const ends = new Map<PartName, number>();
  for await (const { part, bytes } of pieces()) {
    const at = ends.get(part) ?? 0;
    parts.get(part)!.set(bytes, at);
    ends.set(part, at + bytes.length);
  }
  return parts;
}

/** Zeros for the parts of so many elements, in whole words. */
export function emptyParts(format: PackedFormat, elements: number): Map<PartName, Uint8Array<ArrayBuffer>> {
  return new Map(
    partsOf(format, elements).map(({ name, dtype, length }) => [
      name,
      new Uint8Array(Math.ceil((length * DTYPE_BYTES[dtype]) / 4) * 4),
    ]),
  );
}

/** Parts that are on the host already. */
export function sourceOf(
  shape: Pick<PackedSource, "format" | "rows" | "rowStride">,
  parts: () => PackedBytes | Promise<PackedBytes>,
): PackedSource {
  return {
    ...shape,
    async *pieces() {
      for (const [part, bytes] of await parts()) yield { part, bytes };
    },
  };
}
