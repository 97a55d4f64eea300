import { inflateInto } from "./inflate.ts";
import type { Metadata } from "./orientation.ts";

const XMP = "XML:com.adobe.xmp";
/** What ImageMagick makes of Exif: its bytes as hexadecimal digits, behind three lines of a header. */
const RAW_EXIF = "Raw profile type exif";
/** Longer compressed texts are not read; Pillow refuses them. */
const MAX_TEXT = 2 ** 20;

/** Picks Exif and XMP out of the chunks that a PNG may hold them in: eXIf, iTXt, zTXt and tEXt. */
export function readText(type: string, contents: Uint8Array, metadata: Metadata): void {
  if (type === "eXIf") {
    metadata.exif = contents;
    return;
  }
  if (type !== "iTXt" && type !== "zTXt" && type !== "tEXt") return;
  const key = latin1(contents.subarray(0, Math.max(0, contents.indexOf(0))));
  if (key !== XMP && key !== RAW_EXIF) return;
  const text = textOf(type, contents.subarray(key.length + 1));
  if (!text) return;
  if (key === XMP) metadata.xmp = text;
  else metadata.exif ??= fromHex(latin1(text).split("\n").slice(3).join(""));
}

/** The text behind the key. */
function textOf(type: string, rest: Uint8Array): Uint8Array | undefined {
  if (type === "tEXt") return rest;
  if (type === "zTXt") return inflated(rest.subarray(1));
  const [compressed, method] = rest;
  const language = rest.indexOf(0, 2);
  const translation = rest.indexOf(0, language + 1);
  if (language < 0 || translation < 0 || method === undefined) return undefined;
  const text = rest.subarray(translation + 1);
  return compressed ? inflated(text) : text;
}

function inflated(data: Uint8Array): Uint8Array | undefined {
  const text = new Uint8Array(MAX_TEXT);
  const { size, damaged } = inflateInto(text, [data]);
  return damaged || size > MAX_TEXT ? undefined : text.subarray(0, size);
}

function fromHex(digits: string): Uint8Array {
  return Uint8Array.from(digits.match(/[0-9a-f]{2}/gi) ?? [], (pair) => Number.parseInt(pair, 16));
}

function latin1(bytes: Uint8Array): string {
  return new TextDecoder("latin1").decode(bytes);
}
