import type { RgbImage } from "../../src/images/files/rgb.ts";

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

/** WCAG's contrast of a colour with white and with black. */
export function contrasts(colour: readonly number[]): { readonly white: number; readonly black: number } {
  const [r, g, b] = colour.map((value) => {
    const share = value / 255;
    return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
  return { white: 1.05 / (luminance + 0.05), black: (luminance + 0.05) / 0.05 };
}

/** The contrast of each of the words that stand on shapes with tooltips, in their order. */
export function wordContrasts(svg: string): number[] {
  const inks = [...svg.matchAll(/<text[^>]*fill="#(000000|ffffff)"[^>]*>/g)].map(([, fill]) => fill!);
  return coloursOf(svg).map((colour, i) => contrasts(colour)[inks[i] === "ffffff" ? "white" : "black"]);
}
