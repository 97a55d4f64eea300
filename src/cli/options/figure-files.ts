import { InvalidArgumentError } from "commander";
import { XpatchError } from "../../errors.ts";
import { type Figure, formatOf } from "../../figures/figure.ts";

/** What --out takes, given any number of times; the ends of the names say what is written. */
export function figureFiles(path: string, previous: readonly string[] = []): string[] {
  try {
    formatOf(path);
  } catch (error) {
    if (!(error instanceof XpatchError)) throw error;
    throw new InvalidArgumentError(`${error.message}.`);
  }
  return [...previous, path];
}

/** Writes a figure to each of the files. */
export async function writeFigure(figure: Figure, files: readonly string[]): Promise<void> {
  for (const file of files) await figure.save(file);
}
