import { ImageError } from "../../errors.ts";
import type { Metadata } from "./orientation.ts";

export interface JpegFile {
  readonly width: number;
  readonly height: number;
  readonly metadata: Metadata;
  /** The file from SOI to EOI, without what decoders warn about although the picture is whole. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Where the entropy-coded data of each scan lies in `bytes`. */
  readonly scans: readonly Scan[];
}

export interface Scan {
  readonly begin: number;
  readonly end: number;
}

/** A progressive picture has about ten; each costs a pass over all its pixels, however short it is. */
const MAX_SCANS = 100;

/**
 * Walks the markers from SOI to EOI (ITU T.81, annex B) without decoding, and puts right what libjpeg, and so Pillow,
 * warns about and then ignores: stray bytes between segments, the version of JFIF, colour transforms unknown to Adobe,
 * the spectral selection of sequential scans, restart markers whose number is too far off to mean a lost one.
 *
 * libjpeg reports only the first of its warnings. After this, whichever that is, the data of the picture are at fault.
 *
 * Throws ImageError for files that are cut off or lack scans, and for kinds of JPEG that the decoder does not have.
 */
export function readJpegFile(bytes: Uint8Array<ArrayBuffer>): JpegFile {
  const metadata: Metadata = {};
  const parts: Uint8Array<ArrayBuffer>[] = [bytes.subarray(0, 2)];
  const scans: Scan[] = [];
  let size = 2;
  const keep = (part: Uint8Array<ArrayBuffer>) => {
    parts.push(part);
    size += part.length;
  };
  let frame: Frame | undefined;
  let inScan = false;
  for (let at = 2; ; ) {
    const begin = at;
    at = nextMarker(bytes, begin);
    if (at + 1 >= bytes.length) {
      throw new ImageError(
        `JPEG: truncated: ends after ${bytes.length} bytes without an end-of-image marker`,
      );
    }
    if (inScan) {
      scans.push({ begin: size, end: size + at - begin });
      keep(withRestartsInOrder(bytes.subarray(begin, at)));
      inScan = false;
    }
    const marker = bytes[at + 1]!;
    if (marker === EOI) {
      keep(bytes.subarray(at, at + 2));
      break;
    }
    at += 2;
    if (marker === TEM) continue;
    if (marker === SOI) throw new ImageError("JPEG: expected one start-of-image marker, found two");
    const length = at + 2 <= bytes.length ? (bytes[at]! << 8) | bytes[at + 1]! : 0;
    const optional = marker === COM || (marker >= APP0 && marker <= APP15);
    if (optional && length < 2 && at + 2 <= bytes.length) {
      at += 2; // Nothing but a wrong length; decoders step over it.
      continue;
    }
    if (length < 2 || at + length > bytes.length) {
      throw new ImageError(`JPEG: truncated: the segment at byte ${at - 2} reaches past the end`);
    }
    const segment = bytes.slice(at - 2, at + length);
    const contents = segment.subarray(4);
    if (isFrame(marker)) {
      if (frame) throw new ImageError("JPEG: expected one frame, found two");
      frame = readFrame(marker, contents);
    } else if (marker === SOS) {
      if (!frame) throw new ImageError("JPEG: expected a frame header, found none before the first scan");
      if (scans.length === MAX_SCANS)
        throw new ImageError(`JPEG: expected at most ${MAX_SCANS} scans, found more`);
      readScanHeader(contents, frame);
      inScan = true;
    } else if (marker === APP0) repairJfif(contents);
    else if (marker === APP14) repairAdobe(contents);
    else if (marker === APP1 && scans.length === 0) readMetadata(contents, metadata);
    keep(segment);
    at += length;
  }
  if (!frame) throw new ImageError("JPEG: expected a frame header, found none");
  if ([...frame.precision.values()].some((open) => open.some((bits) => bits !== 0))) {
    throw new ImageError("JPEG: truncated: there is an end-of-image marker, but the last scans are missing");
  }
  const { width, height } = frame;
  return { width, height, metadata, scans, bytes: joined(parts, size) };
}

interface Frame {
  readonly width: number;
  readonly height: number;
  readonly progressive: boolean;
  /**
   * For each component, how many low bits of its first coefficients the scans have left open so far; -1 for all. If any
   * are at the end, libjpeg smooths the picture, in each version otherwise.
   */
  readonly precision: ReadonlyMap<number, Int8Array>;
}

const SMOOTHED_COEFFICIENTS = 10;
/** The kinds of frame that the decoder has, by their markers: baseline, extended, progressive. */
const FRAMES: readonly number[] = [0xc0, 0xc1, 0xc2];
const PROGRESSIVE = 0xc2;

function readFrame(marker: number, contents: Uint8Array): Frame {
  if (contents.length < 6) {
    throw new ImageError(`JPEG: expected a frame header of at least 8 bytes, found ${contents.length + 2}`);
  }
  if (!FRAMES.includes(marker)) {
    const coding = marker > 0xc8 ? "arithmetic coding" : "a lossless or hierarchical one";
    throw new ImageError(
      `JPEG: expected a baseline or progressive picture, found ${coding} (SOF${marker - 0xc0})`,
    );
  }
  const [bits, components] = [contents[0]!, contents[5]!];
  if (bits !== 8) throw new ImageError(`JPEG: expected 8 bits per sample, found ${bits}`);
  if (components !== 1 && components !== 3) {
    throw new ImageError(`JPEG: expected 1 (grey) or 3 (colour) components, found ${components}`);
  }
  const precision = new Map<number, Int8Array>();
  for (let i = 0; i < components; i++) {
    precision.set(contents[6 + 3 * i]!, new Int8Array(SMOOTHED_COEFFICIENTS).fill(-1));
  }
  return {
    height: (contents[1]! << 8) | contents[2]!,
    width: (contents[3]! << 8) | contents[4]!,
    progressive: marker === PROGRESSIVE,
    precision,
  };
}

/** Notes what the scan is about to tell. A sequential one tells all, whatever a camera writes there. */
function readScanHeader(contents: Uint8Array, frame: Frame): void {
  const components = contents[0] ?? 0;
  const parameters = contents.subarray(1 + 2 * components, 4 + 2 * components);
  if (!frame.progressive) parameters.set([0, 63, 0].slice(0, parameters.length));
  const [first = 0, last = 0, approximation = 0] = parameters;
  for (let i = 0; i < components; i++) {
    frame.precision.get(contents[1 + 2 * i]!)?.fill(approximation & 15, first, last + 1);
  }
}

/** JFIF has stayed at version 1; decoders read all alike. */
function repairJfif(contents: Uint8Array): void {
  if (startsWith(contents, "JFIF\0") && contents.length >= 14) contents[5] = 1;
}

/** Of the transforms of three components Adobe knows none (0) and YCbCr (1); decoders take others for the latter. */
function repairAdobe(contents: Uint8Array): void {
  if (startsWith(contents, "Adobe") && contents.length >= 12 && contents[11]! > 1) contents[11] = 1;
}

const EXIF = "Exif\0\0";
const XMP = "http://ns.adobe.com/xap/1.0/\0";

/** Exif may be spread over several segments; of XMP packets, the last. */
function readMetadata(contents: Uint8Array<ArrayBuffer>, metadata: Metadata): void {
  if (startsWith(contents, EXIF)) {
    const more = contents.subarray(EXIF.length);
    const { exif } = metadata;
    metadata.exif = exif ? joined([exif, more], exif.length + more.length) : more;
  } else if (startsWith(contents, XMP)) {
    metadata.xmp = contents.subarray(XMP.length);
  }
}

/**
 * The data of a scan with its restart markers numbered as they should be, as far as decoders pass over a wrong number: if
 * it is one or two off, they conclude that an interval was lost or came twice, and leave a hole.
 */
function withRestartsInOrder(data: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  let repaired = data;
  let expected = 0;
  for (let at = data.indexOf(0xff); at !== -1; at = data.indexOf(0xff, at + 1)) {
    const next = data[at + 1];
    if (!isRestart(next)) continue;
    const off = (next! - RST0 - expected) & 7;
    if (off >= 3 && off <= 5) {
      if (repaired === data) repaired = data.slice();
      repaired[at + 1] = RST0 + expected;
    }
    expected = (expected + 1) & 7;
  }
  return repaired;
}

/** Decoding costs the same for each of them. */
const MAX_EXPLANATIONS = 64;

/**
 * The file once more for each likely explanation of `count` bytes that were left over before a marker: without the zeros
 * before every marker of the scans, then without the bytes before one of them. libjpeg may have read ahead, and speaks of
 * the marker behind.
 */
export function* withoutLeftOvers(
  { bytes, scans }: JpegFile,
  marker: number,
  count: number,
): Generator<Uint8Array<ArrayBuffer>> {
  const zeros: Scan[] = [];
  const ends: { marker: number; part: Scan }[] = [];
  for (const { begin, end } of scans) {
    for (let at = begin; at <= end; at++) {
      if (bytes[at] !== 0xff || (at < end && !isRestart(bytes[at + 1]))) continue;
      let last = at;
      while (last > begin && bytes[last - 1] === 0xff) last--; // fill bytes
      let first = last;
      while (first > begin && bytes[first - 1] === 0 && bytes[first - 2] !== 0xff) first--;
      if (first < last) zeros.push({ begin: first, end: last });
      ends.push({ marker: bytes[at + 1]!, part: { begin: Math.max(begin, last - count), end: last } });
    }
  }
  if (zeros.length > 0) yield without(bytes, zeros);
  const likely = ends.filter((end, i) => end.marker === marker || ends[i + 1]?.marker === marker);
  for (const { part } of likely.slice(0, MAX_EXPLANATIONS)) yield without(bytes, [part]);
}

function without(bytes: Uint8Array<ArrayBuffer>, gaps: readonly Scan[]): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let from = 0;
  for (const { begin, end } of gaps) {
    parts.push(bytes.subarray(from, begin));
    from = end;
  }
  parts.push(bytes.subarray(from));
  return joined(
    parts,
    parts.reduce((sum, part) => sum + part.length, 0),
  );
}

const TEM = 0x01;
const RST0 = 0xd0;
const RST7 = 0xd7;
const SOI = 0xd8;
export const EOI = 0xd9;
const SOS = 0xda;
const APP0 = 0xe0;
const APP1 = 0xe1;
const APP14 = 0xee;
const APP15 = 0xef;
const COM = 0xfe;

function isRestart(byte: number | undefined): boolean {
  return byte !== undefined && byte >= RST0 && byte <= RST7;
}

/** SOF0 to SOF15; DHT (c4), JPG (c8) and DAC (cc) lie among them. */
function isFrame(marker: number): boolean {
  return marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc;
}

/** The next marker that is not part of the entropy-coded data of a scan (stuffed zeros, fill bytes, restarts). */
function nextMarker(bytes: Uint8Array, from: number): number {
  for (let at = bytes.indexOf(0xff, from); at !== -1; at = bytes.indexOf(0xff, at + 1)) {
    const next = bytes[at + 1];
    if (next !== 0x00 && next !== 0xff && !isRestart(next)) return at;
  }
  return bytes.length;
}

function startsWith(bytes: Uint8Array, text: string): boolean {
  return Array.from(text).every((letter, i) => bytes[i] === letter.charCodeAt(0));
}

function joined(parts: readonly Uint8Array[], size: number): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
