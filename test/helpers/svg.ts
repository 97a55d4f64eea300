import type { RgbImage } from "../../src/images/rgb.ts";

/** A picture whose pixels all differ. */
export const picture = gradient(28, 28);

export function gradient(width: number, height: number): RgbImage {
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) data.set([i & 255, (i * 7) & 255, i >> 8], i * 3);
  return { width, height, data };
}

/** Texts of an SVG, a line each, unescaped. */
export function textsOf(svg: string): string[] {
  const lines = svg.replaceAll(/<title>[^<]*<\/title>/g, "").matchAll(/>([^<]*)<\/(?:text|tspan)>/g);
  return [...lines].map(([, text]) => unescaped(text!)).filter((text) => text !== "");
}

export function titlesOf(svg: string): string[] {
  return [...svg.matchAll(/<title>([^<]*)<\/title>/g)].map(([, text]) => unescaped(text!));
}

function unescaped(text: string): string {
  return text
    .replaceAll("&quot;", '"')
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&amp;", "&");
}

/** The colours of the shapes that have tooltips. */
export function coloursOf(svg: string): number[][] {
  return [...svg.matchAll(/<path[^>]*fill="rgb\((\d+), (\d+), (\d+)\)"[^>]*><title>/g)].map(([, ...rgb]) =>
    rgb.slice(0, 3).map(Number),
  );
}

export const luma = ([r, g, b]: readonly number[]) => 0.299 * r! + 0.587 * g! + 0.114 * b!;
