import type { RgbImage } from "../images/rgb.ts";
import { pngUri } from "./data-uri.ts";
import { ASCENT, type Figure, FONT_SIZE, type Shape } from "./drawing.ts";

/** How much larger than its units a figure is shown at first. */
const ZOOM = 1.5;

/** A figure as an SVG document that needs nothing else: pictures are inside it as PNG. */
export function toSvg({ width, height, shapes }: Figure): string {
  const pictures = [...new Set(shapes.flatMap((shape) => (shape.kind === "picture" ? [shape.picture] : [])))];
  const size = `width="${width * ZOOM}" height="${height * ZOOM}" viewBox="0 0 ${width} ${height}"`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" ${size} shape-rendering="crispEdges" font-family="'DejaVu Sans Mono', monospace" font-size="${FONT_SIZE.toFixed(3)}">`,
    `<defs>${pictures.map(definition).join("\n")}</defs>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    ...shapes.map((shape) => element(shape, pictures)),
    "</svg>\n",
  ].join("\n");
}

/** Text as the content of an XML or HTML element, or between double quotes. */
export function escapeXml(text: string): string {
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: XML cannot hold them in any spelling.
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd")
      .replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]!)
  );
}

function definition(picture: RgbImage, index: number): string {
  const { width, height } = picture;
  return (
    `<image id="picture${index}" width="${width}" height="${height}" style="image-rendering:pixelated" ` +
    `href="${pngUri(picture)}"/>`
  );
}

function element(shape: Shape, pictures: readonly RgbImage[]): string {
  const { x, y } = shape;
  if (shape.kind === "picture") {
    const { width, height } = shape.picture;
    const scale = `scale(${shape.width / width} ${shape.height / height})`;
    return `<use href="#picture${pictures.indexOf(shape.picture)}" transform="translate(${x} ${y}) ${scale}"/>`;
  }
  if (shape.kind === "label") {
    return `<text x="${x}" y="${y + ASCENT}" fill="${shape.colour}" xml:space="preserve">${escapeXml(shape.text)}</text>`;
  }
  const { width, height, fill, opacity = 1, tooltip } = shape;
  const attributes = `x="${x}" y="${y}" width="${width}" height="${height}" fill="${fill}" fill-opacity="${opacity}"`;
  return tooltip === undefined
    ? `<rect ${attributes}/>`
    : `<rect ${attributes}><title>${escapeXml(tooltip)}</title></rect>`;
}
