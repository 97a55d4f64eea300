import { signal } from "@preact/signals";
import { ImageError } from "../../../src/errors.ts";
import type { PictureRef } from "./picture-ref.ts";

type Own = PictureRef & { readonly kind: "own" };

/** As many bytes as a file of a picture may have: some 20 megapixels of JPEG, and PNGs of a screen. */
const MOST_BYTES = 80e6;
const STORE = "xpatch-explorer-pictures";

/** Files that the reader brought, by hash. They stay with this browser, so that a reload finds them. */
const files = signal<ReadonlyMap<string, Blob>>(new Map());
/** Those that have been looked for in the browser's storage. */
const sought = new Map<string, Promise<void>>();

/** Takes a file in. Throws ImageError for what is no picture by its first bytes, or too large; whether it can be read shows when it is. */
export async function takePicture(file: Blob, name = "picture"): Promise<Own> {
  if (file.size > MOST_BYTES) {
    throw new ImageError(
      `${name}: ${Math.round(file.size / 1e6)} MB; a picture's file may have ${MOST_BYTES / 1e6} MB`,
    );
  }
  const bytes = new Uint8Array(await file.arrayBuffer());
  const type = typeOf(bytes);
  if (!type) throw new ImageError(`${name}: this is no picture that can be read; PNG, JPEG and WebP can`);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hash = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const kept = new Blob([bytes], { type });
  files.value = new Map(files.peek()).set(hash, kept);
  await storage(async (cache) => cache.put(addressOf(hash), new Response(kept)));
  return { kind: "own", hash, name: name.slice(0, 200) };
}

/** The file of a picture. Throws ImageError where it is not here, as with links from somebody else. */
export function fileOf({ hash, name }: Own): Blob {
  const file = files.value.get(hash);
  if (file) return file;
  throw new ImageError(`${name} lies with whoever dropped it; drop the same file here`);
}

/** The same, looked for in the browser's storage first. */
export async function findFile(picture: Own): Promise<Blob> {
  if (!hasFile(picture)) await sought.get(picture.hash);
  return fileOf(picture);
}

/** Whether the file is here; looks for it in the browser's storage where it is not, and fires when it is found. */
export function hasFile({ hash }: Own): boolean {
  if (files.value.has(hash)) return true;
  if (!sought.has(hash)) sought.set(hash, seek(hash));
  return false;
}

async function seek(hash: string): Promise<void> {
  await storage(async (cache) => {
    const found = await (await cache.match(addressOf(hash)))?.blob();
    if (found) files.value = new Map(files.peek()).set(hash, found);
  });
}

const addressOf = (hash: string) => `https://pictures.invalid/${hash}`;

/** Without storage, as in private windows, pictures last as long as the page. */
async function storage(use: (cache: Cache) => Promise<void>): Promise<void> {
  try {
    if (typeof caches !== "undefined") await use(await caches.open(STORE));
  } catch {
    // Full, or not allowed.
  }
}

/** By the first bytes: a browser goes by the name, which may say anything. */
function typeOf(bytes: Uint8Array): string | undefined {
  const ascii = (at: number, text: string) =>
    [...text].every((letter, i) => bytes[at + i] === letter.charCodeAt(0));
  if (bytes[0] === 0x89 && ascii(1, "PNG")) return "image/png";
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return "image/jpeg";
  return ascii(0, "RIFF") && ascii(8, "WEBP") ? "image/webp" : undefined;
}
