import type { RgbImage } from "./rgb.ts";

/** How a camera was held, as Exif numbers it: 1 is upright, 2 to 4 are mirrored or upside down, 5 to 8 on their side. */
export type Orientation = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8;

/** What a file says about its picture beside the pixels. */
export interface Metadata {
  /** An Exif record, with or without its "Exif" in front: a TIFF file. */
  exif?: Uint8Array;
  /** An XMP packet: text. */
  xmp?: Uint8Array;
}

/** The orientation that Pillow finds: Exif's, else XMP's. Records that make no sense count as upright. */
export function orientationOf({ exif, xmp }: Metadata): Orientation {
  const found = (exif && exifOrientation(exif)) ?? (xmp && xmpOrientation(xmp)) ?? 1;
  return found >= 1 && found <= 8 ? (found as Orientation) : 1;
}

const ORIENTATION = 0x0112;
/** The whole numbers among TIFF's types: their sizes in bytes. Pillow takes a BYTE for text. */
const SIZES: ReadonlyMap<number, 1 | 2 | 4> = new Map([
  [3, 2],
  [4, 4],
  [6, 1],
  [8, 2],
  [9, 4],
]);

/** The value of the tag in the first directory of a TIFF file; 0 for one that is no single whole number. */
function exifOrientation(record: Uint8Array): number | undefined {
  let begin = 0;
  while (begin < 12 && letters(record.subarray(begin, begin + 6)) === "Exif\0\0") begin += 6;
  const view = new DataView(record.buffer, record.byteOffset + begin, record.byteLength - begin);
  if (view.byteLength < 8) return undefined;
  const order = letters(record.subarray(begin, begin + 2));
  if (order !== "II" && order !== "MM") return undefined;
  const little = order === "II";
  const directory = view.getUint32(4, little);
  if (directory + 2 > view.byteLength) return undefined;
  const entries = view.getUint16(directory, little);
  let found: number | undefined;
  for (let i = 0, at = directory + 2; i < entries && at + 12 <= view.byteLength; i++, at += 12) {
    if (view.getUint16(at, little) !== ORIENTATION) continue;
    const size = SIZES.get(view.getUint16(at + 2, little));
    const count = view.getUint32(at + 4, little);
    if (count !== 1 || !size) found = 0;
    else if (size === 1) found = view.getUint8(at + 8);
    else found = size === 2 ? view.getUint16(at + 8, little) : view.getUint32(at + 8, little);
  }
  return found;
}

function xmpOrientation(packet: Uint8Array): number | undefined {
  const match = /tiff:Orientation(?:="|>)([0-9])/.exec(new TextDecoder("latin1").decode(packet));
  return match ? Number(match[1]) : undefined;
}

function letters(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

/** The picture turned and mirrored so that it stands upright. */
export function upright({ opaque, ...image }: RgbImage, orientation: Orientation): RgbImage {
  const turned = turn(image, orientation);
  return opaque ? { ...turned, opaque: turn({ ...image, data: opaque }, orientation).data } : turned;
}

function turn(image: RgbImage, orientation: Orientation): RgbImage {
  if (orientation === 1) return image;
  const onItsSide = orientation >= 5;
  const fromRight = [2, 3, 7, 8].includes(orientation);
  const fromBelow = [3, 4, 6, 7].includes(orientation);
  const width = onItsSide ? image.height : image.width;
  const height = onItsSide ? image.width : image.height;
  const data = new Uint8Array(image.data.length);
  let to = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [column, row] = onItsSide ? [y, x] : [x, y];
      const fromX = fromRight ? image.width - 1 - column : column;
      const fromY = fromBelow ? image.height - 1 - row : row;
      const from = (fromY * image.width + fromX) * 3;
      data[to++] = image.data[from]!;
      data[to++] = image.data[from + 1]!;
      data[to++] = image.data[from + 2]!;
    }
  }
  return { width, height, data };
}
