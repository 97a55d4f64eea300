import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { writeWhole } from "#src/platform/node-write";
import type { Cell } from "../framework/cell.ts";
import type { Experiment, Findings } from "../framework/experiment.ts";
import type { Lab } from "../framework/lab.ts";
import type { Figure } from "./figure.ts";
import { drawnFigure } from "./picture.ts";
import { tableCsv, tableMarkdown } from "./table.ts";

/**
 * Writes an experiment's folder: result.json, tables as Markdown and CSV, figures as SVG and PNG, and figures.md, which has
 * them with their captions. Markdown files end in the command that computes their numbers again.
 */
export async function writeFindings(
  lab: Lab,
  experiment: Experiment,
  cells: readonly Cell<unknown>[],
  findings: Findings,
): Promise<void> {
  const folder = join(lab.folder, experiment.name);
  mkdirSync(folder, { recursive: true });
  const command = lab.command?.(experiment.name);
  const source = command === undefined ? "" : `\nEvery number above is from\n\n    ${command}\n`;
  for (const table of [...findings.tables, ...findings.controls]) {
    await writeWhole(
      join(folder, `${table.name}.md`),
      `${table.title}\n\n${tableMarkdown(table)}\n${source}`,
    );
    await writeWhole(join(folder, `${table.name}.csv`), tableCsv(table));
  }
  for (const figure of findings.figures) {
    const drawn = drawnFigure(figure);
    await writeWhole(join(folder, `${figure.name}.svg`), await drawn.svg());
    await writeWhole(join(folder, `${figure.name}.png`), await drawn.png());
  }
  if (findings.figures.length > 0) {
    const shown = findings.figures.map(figureMarkdown).join("\n\n");
    await writeWhole(join(folder, "figures.md"), `${shown}\n${source}`);
  }
  const { name, title, claim } = experiment;
  // Of an experiment that was broken off some are missing.
  const records = cells.flatMap(({ key }) => lab.store.get(key) ?? []);
  const result = { name, title, claim, command, setting: lab.setting, findings, cells: records };
  await writeWhole(join(folder, "result.json"), `${JSON.stringify(result, null, 2)}\n`);
}

/** A figure with its caption, for a Markdown file beside it. */
function figureMarkdown(figure: Figure): string {
  // Its own characters have no meaning there.
  const plain = (text: string) => text.replaceAll(/[\\`*_[\]<>|]/g, "\\$&");
  return `![${plain(figure.title)}](${figure.name}.svg)\n\n*${plain(figure.title)}.* ${plain(drawnFigure(figure).caption)}`;
}
