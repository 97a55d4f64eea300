import type { Command } from "commander";
import { logitLens, STREAM_SITES } from "../../analysis/lens/logit-lens.ts";
import { SiteError } from "../../errors.ts";
import { lensFigure } from "../../figures/lens-figure.ts";
import type { RgbImage } from "../../images/files/rgb.ts";
import { MAX_TOP_K } from "../../kernels/reduction/top-k.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import type { LayerSite } from "../../model/walk/sites.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { type Positions, resolvePositions } from "../../patching/positions.ts";
import { type Setting, settingOf, showSetting } from "../../patching/setting.ts";
import { layerSite, layers, listed, positions, wholeNumber } from "../options/arguments.ts";
import { checkLayerOption, checkLengths, checkPositions, checkWritable } from "../options/checks.ts";
import { newCommand, refuseUnused } from "../options/command.ts";
import { figureFiles, writeFigure } from "../options/figure-files.ts";
import {
  addSpanOption,
  IMAGE_OPTION,
  type ImageArguments,
  type ImagePrompt,
  imagePrompt,
  readImages,
} from "../options/image-prompt.ts";
import { addModelOptions, type ModelArguments, withModel } from "../options/session.ts";
import { addPromptOptions, type PromptArguments, promptText } from "../options/text-files.ts";
import { quote, showPercent, table, terminalWidth } from "../terminal/layout.ts";
import { printResult } from "../terminal/output.ts";
import { type LensPosition, lensPositions, type SpelledCell, spellCells } from "./lens-cells.ts";
import { formatImageLens, lensImage } from "./lens-image.ts";

interface Arguments extends ModelArguments, PromptArguments, Omit<ImageArguments, "image"> {
  readonly image?: readonly string[];
  readonly site: LayerSite;
  readonly at: Positions;
  readonly layers?: readonly number[];
  readonly top: number;
  readonly out?: readonly string[];
}

export interface LensReport extends Setting {
  readonly site: LayerSite;
  readonly prompt: string;
  readonly positions: readonly LensPosition[];
  readonly cells: readonly SpelledCell[];
  readonly out: readonly string[];
}

export function lensCommand(): Command {
  const command = newCommand("lens", "Logit lens: which tokens each layer and position reads as", [
    'lens --model xpatch:smollm2 --prompt "Q: Greece\\nA: Athens\\n\\nQ: Italy\\nA:"',
    'lens --model xpatch:smollm2 --prompt "Q: Italy\\nA:" --at -1 --top 8 --layers 15-29',
    'lens --image flag.png --prompt "Q:<image>\\nA:" --out lens.html',
  ]);
  return addSpanOption(addPromptOptions(addModelOptions(command)))
    .option(...IMAGE_OPTION, listed)
    .option(
      "--out <file>",
      ".png, .svg or .html to write the table, or the words over the picture, to; may be repeated",
      figureFiles,
    )
    .option(
      "--site <site>",
      "which activation of each layer",
      layerSite((site) => STREAM_SITES.has(site)),
      "resid_post",
    )
    .option(
      "--at <positions>",
      "token positions: -1, 0,3,5, 2..5 or all; not with --image, whose patches are looked at",
      positions,
      "all",
    )
    .option("--layers <layers>", "such as 0-5,8 (default: all)", layers)
    .option(
      "--top <k>",
      "tokens per cell; a table of several positions shows the first",
      wholeNumber(1, MAX_TOP_K),
      5,
    )
    .action(async (args: Arguments) => {
      const { image, out = [] } = args;
      if (image) refuseUnused(command, ["at"], "prompts without --image");
      else refuseUnused(command, ["span"], "--image");
      for (const file of out) await checkWritable("--out", file);
      const text = await promptText(args, command);
      if (image) {
        const images = await readImages(image);
        const report = await withModel(
          args,
          (model) => prepareImage(model, text, images, args),
          (model, shown) => lensImage(model, shown, { ...args, image }),
        );
        printResult(report, args.json, formatImageLens);
        return;
      }
      const report = await withModel(
        args,
        (model) => preparePrompt(model, text, args),
        (model, prompt) => lens(model, prompt, args),
      );
      printResult(report, args.json, formatLens);
    });
}

function checkArguments(model: ModelOutline, { layers: asked, top }: Arguments): void {
  checkLayerOption(model, asked);
  const { vocab } = model.config;
  if (top > vocab) throw new SiteError(`--top: expected at most ${vocab}, the size of the vocabulary`);
}

async function preparePrompt(model: ModelOutline, text: string, args: Arguments): Promise<Prompt> {
  checkArguments(model, args);
  const prompt = model.prompt(text);
  checkLengths(model, [prompt]);
  await checkPositions(model, "--at", args.at, [prompt]);
  return prompt;
}

async function prepareImage(
  model: ModelOutline,
  text: string,
  images: readonly RgbImage[],
  args: Arguments,
): Promise<ImagePrompt> {
  checkArguments(model, args);
  const shown = await imagePrompt(model, text, images, args.span);
  checkLengths(model, [shown.prompt]);
  return shown;
}

async function lens(model: PatchableModel, prompt: Prompt, args: Arguments): Promise<LensReport> {
  const { site, at, top, out = [] } = args;
  const sequence = model.sequenceOf(prompt);
  const found = resolvePositions(at, sequence);
  const cells = await logitLens(model, prompt, { site, at, layers: args.layers, k: top });
  const report: LensReport = {
    ...settingOf(model),
    site,
    prompt: prompt.text,
    positions: lensPositions(sequence, found),
    cells: spellCells(model, cells),
    out,
  };
  const lines = [quote(prompt.text)];
  await writeFigure(lensFigure(cells, { lines, title: `logit lens of ${site}` }), out);
  return report;
}

/** A row a layer: the best tokens of a single position side by side, or the best one of each of several positions. */
export function formatLens(report: LensReport, width = terminalWidth()): string {
  const { site, positions: found, cells, out } = report;
  const rows = [...new Set(cells.map((cell) => cell.layer))].map((layer) => ({
    name: `${site}.${layer}`,
    cells: cells.filter((cell) => cell.layer === layer),
  }));
  const show = ({ token, probability }: { token: string; probability: number }) =>
    `${quote(token)} ${showPercent(probability)}`;
  const title = (i: number) => `${found[i]!.position} ${quote(found[i]!.token)}`;
  const lines = [showSetting(report), ""];
  const written = out.length > 0 ? [`\nwritten to ${out.join(", ")}`] : [];
  if (found.length === 1) {
    lines.push(`position ${title(0)}`, "");
    lines.push(table(rows.map(({ name, cells: [cell] }) => [name, ...cell!.tokens.map(show)])));
    return [...lines, ...written].join("\n");
  }
  const columns = found.map((_, i) => [title(i), ...rows.map((row) => show(row.cells[i]!.tokens[0]!))]);
  const names = ["", ...rows.map((row) => row.name)];
  const tables = fold(columns, width - widest(names)).map((part) =>
    table(names.map((name, r) => [name, ...part.map((column) => column[r]!)])),
  );
  return [...lines, tables.join("\n\n"), ...written].join("\n");
}

/** Divides columns into groups that fit the width, at least one each. */
function fold(columns: readonly string[][], width: number): string[][][] {
  const groups: string[][][] = [];
  let room = 0;
  for (const column of columns) {
    const needed = widest(column) + 2;
    if (needed > room || groups.length === 0) {
      groups.push([]);
      room = width;
    }
    groups.at(-1)!.push(column);
    room -= needed;
  }
  return groups;
}

function widest(cells: readonly string[]): number {
  return Math.max(...cells.map((cell) => cell.length));
}
