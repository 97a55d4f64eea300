import { encodePng } from "../images/files/png-write.ts";
import type { RgbImage } from "../images/files/rgb.ts";

/** A picture as the URL of a PNG that is the URL itself. */
export function pngUri(picture: RgbImage): string {
  const bytes = encodePng(picture);
  let binary = "";
  for (let at = 0; at < bytes.length; at += 0x8000) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return `data:image/png;base64,${btoa(binary)}`;
}
