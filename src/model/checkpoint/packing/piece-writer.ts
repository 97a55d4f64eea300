import type { PartName } from "../../../tensor/packed/packed-format.ts";
import type { PackedPiece } from "../entries/packed-source.ts";

/** Gathers bytes of parts into pieces of whole words. */
export class PieceWriter {
  readonly #rests = new Map<PartName, Uint8Array<ArrayBuffer>>();

  /** The whole words that there are of a part with these bytes; what is left comes before the next. */
  *add(part: PartName, bytes: Uint8Array<ArrayBuffer>): Generator<PackedPiece, void, undefined> {
    const rest = this.#rests.get(part);
    if (!rest?.length && bytes.length % 4 === 0 && bytes.byteOffset % 4 === 0) {
      if (bytes.length > 0) yield { part, bytes };
      return;
    }
    const all = new Uint8Array((rest?.length ?? 0) + bytes.length);
    if (rest) all.set(rest);
    all.set(bytes, rest?.length ?? 0);
    const whole = all.length - (all.length % 4);
    this.#rests.set(part, all.slice(whole));
    if (whole > 0) yield { part, bytes: all.slice(0, whole) };
  }

  /** What is left, filled up with zeros. */
  *finish(): Generator<PackedPiece, void, undefined> {
    for (const [part, rest] of this.#rests) {
      if (rest.length === 0) continue;
      const bytes = new Uint8Array(4);
      bytes.set(rest);
      yield { part, bytes };
    }
  }
}

export function bytesOf(array: {
  readonly buffer: ArrayBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;
}): Uint8Array<ArrayBuffer> {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** Codes of four bits, the first in the low half of each byte. */
export function nibbles(codes: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(Math.ceil(codes.length / 2));
  for (let i = 0; i < codes.length; i += 2) out[i >> 1] = codes[i]! | ((codes[i + 1] ?? 0) << 4);
  return out;
}
