import { createRequire } from "node:module";
import { dirname, join } from "node:path";

/** Paths of faces of the package dejavu-fonts-ttf, so that every machine draws the same letters. */
export function dejavuFonts(...faces: readonly string[]): string[] {
  const folder = dirname(createRequire(import.meta.url).resolve("dejavu-fonts-ttf/package.json"));
  return faces.map((face) => join(folder, "ttf", `${face}.ttf`));
}
