import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { writeWhole } from "#src/platform/node-write";
import type { Cell } from "../framework/cell.ts";
import type { Experiment, Findings } from "../framework/experiment.ts";
import type { Lab } from "../framework/lab.ts";
import { figureSvg, svgToPng } from "./picture.ts";
import { tableCsv, tableMarkdown } from "./table.ts";

/** Writes an experiment's folder: result.json, tables as Markdown and CSV, figures as SVG and PNG. */
export async function writeFindings(
  lab: Lab,
  experiment: Experiment,
  cells: readonly Cell<unknown>[],
  findings: Findings,
): Promise<void> {
  const folder = join(lab.folder, experiment.name);
  mkdirSync(folder, { recursive: true });
  for (const table of [...findings.tables, ...findings.controls]) {
    await writeWhole(join(folder, `${table.name}.md`), `${table.title}\n\n${tableMarkdown(table)}\n`);
    await writeWhole(join(folder, `${table.name}.csv`), tableCsv(table));
  }
  for (const figure of findings.figures) {
    const svg = await figureSvg(figure);
    await writeWhole(join(folder, `${figure.name}.svg`), svg);
    await writeWhole(join(folder, `${figure.name}.png`), await svgToPng(svg));
  }
  const { name, title, claim } = experiment;
  const records = cells.map(({ key }) => lab.store.get(key));
  const result = { name, title, claim, setting: lab.setting, findings, cells: records };
  await writeWhole(join(folder, "result.json"), `${JSON.stringify(result, null, 2)}\n`);
}
