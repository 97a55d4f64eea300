import { deflateSync } from "node:zlib";

export interface PngSpec {
  width: number;
  height: number;
  depth: number;
  colorType: number;
  interlace?: number;
  /** The rows, each behind its filter byte; compressed here. */
  rows: Uint8Array;
  /** Chunks between IHDR and IDAT. */
  before?: Uint8Array[];
  /** Chunks between IDAT and IEND. */
  after?: Uint8Array[];
}

/** Writes a PNG chunk by chunk, without asking whether it makes sense. */
export function buildPng(spec: PngSpec): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, spec.width);
  view.setUint32(4, spec.height);
  header.set([spec.depth, spec.colorType, 0, 0, spec.interlace ?? 0], 8);
  return concat([
    Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a),
    pngChunk("IHDR", header),
    ...(spec.before ?? []),
    pngChunk("IDAT", deflateSync(spec.rows)),
    ...(spec.after ?? []),
    pngChunk("IEND", new Uint8Array(0)),
  ]);
}

export function pngChunk(type: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const chunk = new Uint8Array(12 + data.length);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, data.length);
  chunk.set(new TextEncoder().encode(type), 4);
  chunk.set(data, 8);
  view.setUint32(8 + data.length, crc32(chunk.subarray(4, 8 + data.length)));
  return chunk;
}

/** The checksum of PNG and zip, bit by bit; `zlib.crc32` is newer than the oldest Node supported. */
function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

export function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Numbers as big-endian 16-bit words. */
export function words(...values: number[]): number[] {
  return values.flatMap((value) => [value >> 8, value & 255]);
}
