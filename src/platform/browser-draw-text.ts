import { ImageError } from "../errors.ts";
import type { TextLine } from "./platform.ts";

/** See `Platform.drawText`. In the browser's own fonts. */
export function drawText(
  lines: readonly TextLine[],
  { width, height, fontSize }: { readonly width: number; readonly height: number; readonly fontSize: number },
): Uint8Array {
  const context = globalThis.OffscreenCanvas && new OffscreenCanvas(width, height).getContext("2d");
  if (!context) {
    throw new ImageError(
      "expected a canvas (OffscreenCanvas) to draw text with, found none; toSvg needs none",
    );
  }
  context.font = `${fontSize}px "DejaVu Sans Mono", monospace`;
  for (const { x, y, text } of lines) context.fillText(text, x, y);
  const { data } = context.getImageData(0, 0, width, height);
  return Uint8Array.from({ length: width * height }, (_, i) => data[4 * i + 3]!);
}
