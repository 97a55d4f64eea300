import { ImageError } from "../../errors.ts";
import { PNG_SIGNATURE } from "./png-chunks.ts";

/** How the file of a picture ends, by how it begins. Throws ImageError for what is none of those that are decoded here. */
export function extensionOf(bytes: Uint8Array): "png" | "jpg" | "webp" {
  if (PNG_SIGNATURE.every((byte, i) => byte === bytes[i])) return "png";
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return "jpg";
  const letters = String.fromCharCode(...bytes.subarray(0, 12));
  if (letters.startsWith("RIFF") && letters.endsWith("WEBP")) return "webp";
  const others = [
    ["GIF8", "GIF"],
    ["BM", "BMP"],
    ["II*", "TIFF"],
    ["MM", "TIFF"],
  ] as const;
  const found =
    others.find(([start]) => letters.startsWith(start))?.[1] ?? `${bytes.length} bytes of another kind`;
  throw new ImageError(`expected a PNG, JPEG or WebP picture, found ${found}`);
}
