import { logitLens } from "../../analysis/lens/logit-lens.ts";
import { lensFigure } from "../../figures/lens-figure.ts";
import { showWord } from "../../figures/text.ts";
import { patchPositions } from "../../model/prompt/prompt.ts";
import type { LayerSite } from "../../model/walk/sites.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { resolvePositions } from "../../patching/positions.ts";
import { type Setting, settingOf, showSetting } from "../../patching/setting.ts";
import { writeFigure } from "../options/figure-files.ts";
import type { ImageArguments, ImagePrompt } from "../options/image-prompt.ts";
import { quote, table, terminalWidth } from "../terminal/layout.ts";
import { type LensPosition, lensPositions, type SpelledCell, spellCells } from "./lens-cells.ts";

interface Arguments extends ImageArguments {
  readonly site: LayerSite;
  readonly layers?: readonly number[];
  readonly top: number;
  readonly out?: readonly string[];
}

export interface ImageLensReport extends Setting {
  readonly site: LayerSite;
  readonly prompt: string;
  readonly span: string;
  readonly grid: { readonly rows: number; readonly columns: number };
  readonly positions: readonly LensPosition[];
  readonly cells: readonly SpelledCell[];
  readonly out: readonly string[];
}

/** The logit lens over an image's patches, as a report and as figures. */
export async function lensImage(
  model: PatchableModel,
  { prompt, patches, picture }: ImagePrompt,
  args: Arguments,
): Promise<ImageLensReport> {
  const { site, layers, top, span, out = [] } = args;
  const at = patchPositions(patches);
  const cells = await logitLens(model, prompt, { site, at, layers, k: top });
  const report: ImageLensReport = {
    ...settingOf(model),
    site,
    prompt: prompt.text,
    span,
    grid: patches.grid,
    positions: lensPositions(prompt, resolvePositions(at, prompt)),
    cells: spellCells(model, cells),
    out,
  };
  const title = `logit lens of ${site}: the likeliest word of each patch`;
  const lines = [quote(prompt.text)];
  await writeFigure(lensFigure(cells, { picture, grid: patches.grid, title, lines }), out);
  return report;
}

/** How many words of a layer are listed. */
const LISTED = 6;

/** A layer at a time: the patches' words as a grid where that fits the width, and how often each occurs. */
export function formatImageLens(report: ImageLensReport, width = terminalWidth()): string {
  const { grid, cells, out } = report;
  const lines = [showSetting(report)];
  for (const layer of new Set(cells.map((cell) => cell.layer))) {
    const words = cells.filter((cell) => cell.layer === layer).map((cell) => showWord(cell.tokens[0]!.text));
    lines.push("", `${report.site}.${layer}: ${frequent(words)}`);
    const rows = Array.from({ length: grid.rows }, (_, row) =>
      words.slice(row * grid.columns, (row + 1) * grid.columns),
    );
    const drawn = table(rows.map((row) => ["", ...row]));
    if (drawn.split("\n").every((line) => line.length <= width)) lines.push(drawn);
  }
  if (out.length > 0) lines.push("", `written to ${out.join(", ")}`);
  return lines.join("\n");
}

function frequent(words: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1]);
  const shown = sorted.slice(0, LISTED).map(([word, count]) => `${word} x${count}`);
  const left = sorted.length - shown.length;
  return shown.join(", ") + (left > 0 ? `, and ${left} more` : "");
}
