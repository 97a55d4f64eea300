import { platform } from "#platform";
import {
  aFunction,
  aNumber,
  checkArgument,
  checkOptions,
  type Expected,
  type Options,
} from "../../arguments.ts";
import { ImageError } from "../../errors.ts";
import type { Blob, Fetch, ImageData, URL } from "../../platform/global-types.ts";
import { type Drawable, readDrawable } from "../canvas.ts";
import { type DecodeOptions, decodeImage } from "./decode.ts";
import { filePath } from "./file-url.ts";
import { checkPixelCount, DEFAULT_MAX_PIXELS, type RgbImage, rgbaOverWhite } from "./rgb.ts";

/**
 * Where a picture comes from: a path (in Node) or URL (`http:`, `https:`, `data:`, `blob:`, `file:`, in a browser also
 * relative to the page), the bytes of a file, a Blob or File, a browser's ImageBitmap, canvas or ImageData, or 8-bit RGB
 * as it is.
 */
export type ImageSource = string | URL | Uint8Array | ArrayBuffer | Blob | Drawable | ImageData | RgbImage;

/** How {@link loadImage} fetches and decodes. */
export interface LoadImageOptions extends DecodeOptions {
  /** Used for URLs in place of the global `fetch`. */
  fetch?: Fetch;
}

const OPTIONS: Options<LoadImageOptions> = { maxPixels: aNumber, fetch: aFunction };

const aSource: Expected = {
  words: "a path or URL, bytes, a Blob, or a picture with width and height",
  holds: (source) =>
    typeof source === "string" ||
    source instanceof URL ||
    source instanceof Uint8Array ||
    source instanceof ArrayBuffer ||
    source instanceof Blob ||
    (typeof source === "object" && source !== null && "width" in source && "height" in source),
};

/** The longest file worth reading: 16-bit RGBA that did not compress, and room for metadata. */
const maxFileSize = (maxPixels: number) => 8 * maxPixels + 2 ** 20;

/**
 * Gets a picture as 8-bit RGB; files go through `decodeImage`. Throws ImageError, led by the path or URL, when it cannot be
 * read, does not decode or has more than `options.maxPixels` pixels.
 */
export async function loadImage(source: ImageSource, options: LoadImageOptions = {}): Promise<RgbImage> {
  checkArgument("loadImage", "source", source, aSource);
  checkOptions("loadImage", options, OPTIONS);
  const maxPixels = options.maxPixels ?? DEFAULT_MAX_PIXELS;
  if (typeof source === "string" || source instanceof URL) return loadNamed(source, options, maxPixels);
  if (source instanceof Uint8Array) return decodeImage(source, options);
  if (source instanceof ArrayBuffer) return decodeImage(new Uint8Array(source), options);
  if (source instanceof Blob) {
    checkFileSize(source.size, maxPixels);
    return decodeImage(new Uint8Array(await source.arrayBuffer()), options);
  }
  checkPixelCount(source.width, source.height, maxPixels);
  return "data" in source ? fromPixels(source) : readDrawable(source);
}

async function loadNamed(
  source: string | URL,
  options: LoadImageOptions,
  maxPixels: number,
): Promise<RgbImage> {
  const address = String(source);
  try {
    return await decodeImage(await readNamed(address, options.fetch ?? fetch, maxPixels), options);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    // A data: URL is the whole picture; its beginning is name enough.
    const name = address.length > 200 ? `${address.slice(0, 200)}…` : address;
    // The platform's own errors name the file already.
    throw new ImageError(reason.includes(name) ? reason : `${name}: ${reason}`, { cause });
  }
}

/** The bytes of a picture's file, by its path or URL. */
function readNamed(address: string, get: Fetch = fetch, maxPixels = DEFAULT_MAX_PIXELS): Promise<Uint8Array> {
  const isFile = /^file:/i.test(address);
  const isUrl = /^(https?|data|blob):/i.test(address) || (!isFile && platform.baseUrl() !== undefined);
  return isUrl
    ? fetchBytes(address, get, maxPixels)
    : readFile(isFile ? filePath(address) : address, maxPixels);
}

async function readFile(path: string, maxPixels: number): Promise<Uint8Array> {
  const file = await platform.openFile(path);
  try {
    checkFileSize(file.size, maxPixels);
    return await file.read(0, file.size);
  } finally {
    await file.close();
  }
}

async function fetchBytes(url: string, get: Fetch, maxPixels: number): Promise<Uint8Array> {
  const response = await get(url);
  if (!response.ok) {
    await response.body?.cancel();
    throw new ImageError(`expected a picture, found ${response.status} ${response.statusText}`);
  }
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const reader = response.body?.getReader();
  let size = 0;
  try {
    for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
      size += part.value.length;
      checkFileSize(size, maxPixels);
      parts.push(part.value);
    }
  } catch (cause) {
    await reader?.cancel();
    throw cause;
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

function checkFileSize(size: number, maxPixels: number): void {
  const limit = maxFileSize(maxPixels);
  if (size > limit)
    throw new ImageError(`expected a picture of at most ${limit} bytes, found ${size} or more`);
}

/** Pixels that are there already: ImageData has four bytes for each, RgbImage three. */
function fromPixels(source: ImageData | RgbImage): RgbImage {
  const { width, height, data } = source;
  const channels = data.length / (width * height);
  if (channels === 4) return rgbaOverWhite(data, width, height);
  if (channels === 3 && data instanceof Uint8Array) {
    const { opaque } = source as RgbImage;
    return { width, height, data, ...(opaque && { opaque }) };
  }
  throw new ImageError(
    `expected 3 (RGB) or 4 (RGBA) bytes for each of ${width} x ${height} pixels, found ${data.length} bytes`,
  );
}
