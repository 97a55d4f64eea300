import { FileError, ImageError } from "../errors.ts";
import type { Shown } from "./platform.ts";

/** See `Platform.svgToPng`. By the page's own canvas, in its fonts. */
export async function svgToPng(svg: string, zoom: number): Promise<Uint8Array<ArrayBuffer>> {
  if (!globalThis.document) {
    throw new ImageError("expected a page to draw a PNG with, found none, as in a Worker; svg() needs none");
  }
  const image = new Image();
  const address = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
  try {
    image.src = address;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = Math.ceil(image.naturalWidth * zoom);
    canvas.height = Math.ceil(image.naturalHeight * zoom);
    const context = canvas.getContext("2d");
    if (!context) throw new ImageError("expected a canvas with a 2d context, found none");
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
    if (!blob) throw new ImageError(`the browser cannot draw ${canvas.width} x ${canvas.height} pixels`);
    return new Uint8Array(await blob.arrayBuffer());
  } finally {
    URL.revokeObjectURL(address);
  }
}

const TYPES: Readonly<Record<string, string>> = { svg: "image/svg+xml", png: "image/png", html: "text/html" };

const REVOKE_AFTER = 60_000; // ms

/** See `Platform.saveFile`: the browser downloads it. */
export async function saveFile(path: string, content: string | Uint8Array<ArrayBuffer>): Promise<void> {
  if (!globalThis.document) {
    throw new FileError(`cannot save ${path}: expected a page that can download it, found none`);
  }
  const type = TYPES[path.split(".").at(-1)!.toLowerCase()] ?? "application/octet-stream";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = path.split("/").at(-1)!;
  link.click();
  // Safari reads it after the click.
  setTimeout(() => URL.revokeObjectURL(link.href), REVOKE_AFTER);
}

/** See `Platform.show`: at the end of the page. */
export async function show(shown: Shown): Promise<void> {
  if (!globalThis.document) {
    console.log(shown.text);
    return;
  }
  const figure = document.createElement("figure");
  figure.innerHTML = await shown.svg();
  document.body.append(figure);
}
