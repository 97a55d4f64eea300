import { extname } from "node:path";
import { InvalidArgumentError } from "commander";
import type { Figure } from "../../figures/drawing.ts";
import { toPage } from "../../figures/figure-page.ts";
import { toPixels } from "../../figures/pixels.ts";
import { toSvg } from "../../figures/svg.ts";
import { encodePng } from "../../images/png.ts";
import { writeWhole } from "../../platform/node-write.ts";

const FORMATS: Readonly<Record<string, (figure: Figure, title: string) => string | Uint8Array>> = {
  ".png": (figure) => encodePng(toPixels(figure)),
  ".svg": (figure) => toSvg(figure),
  ".html": (figure, title) => toPage(title, figure),
};

/** What --out takes, given any number of times; the ends of the names say what is written. */
export function figureFiles(path: string, previous: readonly string[] = []): string[] {
  if (Object.hasOwn(FORMATS, extname(path).toLowerCase())) return [...previous, path];
  throw new InvalidArgumentError(`Expected a name that ends in ${Object.keys(FORMATS).join(", ")}.`);
}

/** Writes a figure to each of the files. */
export async function writeFigure(figure: Figure, title: string, files: readonly string[]): Promise<void> {
  for (const file of files) await writeWhole(file, FORMATS[extname(file).toLowerCase()]!(figure, title));
}
