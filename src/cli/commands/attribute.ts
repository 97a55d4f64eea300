import type { Command } from "commander";
import type { ImagePatches } from "../../analysis/heads/attention-map.ts";
import { attributionMap } from "../../analysis/maps/attribution-map.ts";
import { compareMaps, type MapComparison } from "../../analysis/maps/compare-maps.ts";
import { patchMap } from "../../analysis/maps/patch-map.ts";
import { PatchMap } from "../../analysis/maps/patch-map-result.ts";
import { checkSameLength, type PatchDirection } from "../../analysis/maps/patch-pairs.ts";
import { heatFigure } from "../../figures/heat-figure.ts";
import type { RgbImage } from "../../images/files/rgb.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import { type Prompt, patchPositions } from "../../model/prompt/prompt.ts";
import { logitDifference, logProbability, type Metric, resolveMetric } from "../../patching/metric.ts";
import type { PatchableModel } from "../../patching/model.ts";
import type { Positions } from "../../patching/positions.ts";
import { type Setting, settingOf, showSetting } from "../../patching/setting.ts";
import { matchSites, type SitePattern } from "../../patching/site-patterns.ts";
import { choice, escapedText, listed, positions, wholeNumber } from "../options/arguments.ts";
import { checkLengths, checkPositions, checkWritable, ofOption } from "../options/checks.ts";
import { newCommand, refuseUnused } from "../options/command.ts";
import { figureFiles, writeFigure } from "../options/figure-files.ts";
import {
  addSpanOption,
  checkImages,
  IMAGE_OPTION,
  imagePrompt,
  readImages,
} from "../options/image-prompt.ts";
import { addModelOptions, type ModelArguments, withModel } from "../options/session.ts";
import { addPromptOptions, type PromptArguments, promptText } from "../options/text-files.ts";
import { quote, showPercent, table } from "../terminal/layout.ts";
import { printResult } from "../terminal/output.ts";
import { withProgress } from "../terminal/progress.ts";

interface Arguments extends ModelArguments, PromptArguments {
  readonly corrupted?: string;
  readonly image?: readonly string[];
  readonly corruptedImage?: readonly string[];
  readonly span: string;
  readonly sites?: readonly SitePattern[];
  readonly heads?: boolean;
  readonly positions?: Positions;
  readonly answer?: string;
  readonly against?: string;
  readonly direction: PatchDirection;
  readonly steps?: number;
  readonly exact?: boolean;
  readonly out?: readonly string[];
  readonly pictureOut?: readonly string[];
}

/** What the command makes of its arguments. */
interface Prepared {
  readonly clean: Prompt;
  readonly corrupted: Prompt;
  readonly metric: Metric | undefined;
  readonly shown: { readonly patches: ImagePatches; readonly picture: RgbImage } | undefined;
}

/** Of a picture's patches in one row of the map. */
interface PictureEffects {
  readonly site: string;
  /** Of all patches together, added up. */
  readonly sum: number;
  /** The patch with the largest effect, for or against. */
  readonly peak: { readonly row: number; readonly column: number; readonly effect: number };
}

export interface AttributeReport extends Setting {
  readonly prompt: string;
  readonly corruptedPrompt: string;
  readonly map: PatchMap;
  readonly exact?: PatchMap;
  readonly comparison?: MapComparison;
  readonly picture?: readonly PictureEffects[];
  readonly out: readonly string[];
}

/** Panels over a picture: the rows of the map with the largest effects there. */
const PICTURE_ROWS = 5;

export function attributeCommand(): Command {
  const command = newCommand(
    "attribute",
    "Attribution patching: what patching each activation would do, estimated by gradients",
    [
      'attribute --model xpatch:smollm2 --prompt "Q: Italy\\nA:" --corrupted "Q: Spain\\nA:" --answer " Rome" --against " Madrid"',
      'attribute --prompt "Q: Italy\\nA:" --corrupted "Q: Spain\\nA:" --heads --exact --out heads.png',
      'attribute --image italy.png --corrupted-image spain.png --prompt "Q:<image>\\nA:" --steps 8 --picture-out map.png',
    ],
  );
  return addSpanOption(addPromptOptions(addModelOptions(command)))
    .option("--corrupted <text>", "the other prompt (default: the same, with --corrupted-image)", escapedText)
    .option(...IMAGE_OPTION, listed)
    .option("--corrupted-image <file>", "the same for the other prompt (default: the same pictures)", listed)
    .option("--sites <patterns>", "rows of the map (default: resid_pre.*, or z.* with --heads)", sitePatterns)
    .option("--heads", "columns are heads, at all positions together")
    .option(
      "--positions <positions>",
      "-1, 0,3,5, 2..5 or all (default: all from the first at which the prompts differ)",
      positions,
    )
    .option(
      "--answer <token>",
      "what is measured: the log probability of this token, or with --against",
      escapedText,
    )
    .option(
      "--against <token>",
      "the logit of --answer less that of this token (default: both prompts' likeliest)",
      escapedText,
    )
    .addOption(
      choice("--direction <way>", "whose activations go where", ["denoising", "noising"]).default(
        "denoising",
      ),
    )
    .option("--steps <n>", "integrated gradients over so many points between the prompts", wholeNumber(1))
    .option("--exact", "the exact map too, a run for each cell, and how well it was estimated")
    .option("--out <file>", ".png, .svg or .html to write the map to; may be repeated", figureFiles)
    .option(
      "--picture-out <file>",
      `the same for the effects of the picture's patches over it, of the ${PICTURE_ROWS} sites where they are largest`,
      figureFiles,
    )
    .action(async (args: Arguments) => {
      if (args.corrupted === undefined && args.corruptedImage === undefined) {
        command.error("error: expected --corrupted or --corrupted-image");
      }
      if (args.answer === undefined) refuseUnused(command, ["against"], "--answer");
      if (args.image === undefined)
        refuseUnused(command, ["corruptedImage", "span", "pictureOut"], "--image");
      if (args.heads) refuseUnused(command, ["pictureOut", "span"], "maps by position (without --heads)");
      for (const file of args.out ?? []) await checkWritable("--out", file);
      for (const file of args.pictureOut ?? []) await checkWritable("--picture-out", file);
      const text = await promptText(args, command);
      const images = await readImages(args.image);
      const others = args.corruptedImage
        ? await readImages(args.corruptedImage, "--corrupted-image")
        : images;
      const report = await withModel(
        args,
        (model) => prepare(model, text, images, others, args),
        (model, prepared) => attribute(model, prepared, args),
      );
      printResult(report, args.json, formatAttribute);
    });
}

function sitePatterns(text: string): SitePattern[] {
  return text.split(",").map((pattern) => pattern.trim() as SitePattern);
}

async function prepare(
  model: ModelOutline,
  text: string,
  images: readonly RgbImage[],
  others: readonly RgbImage[],
  args: Arguments,
): Promise<Prepared> {
  const { sites, answer, against } = args;
  await checkImages(model, images);
  const clean = model.prompt(text, { images });
  const corrupted = await ofOption("--corrupted", () =>
    model.prompt(args.corrupted ?? text, { images: others }),
  );
  checkLengths(model, [clean, corrupted]);
  if (args.positions !== undefined) {
    await checkPositions(model, "--positions", args.positions, [clean, corrupted]);
  } else checkSameLength("--corrupted", corrupted, clean, "counted from the end (--positions -2,-1)");
  if (sites) await ofOption("--sites", () => matchSites(model.sites, sites));
  const metric =
    answer === undefined
      ? undefined
      : await ofOption("--answer", () =>
          resolveMetric(
            "attribute",
            model,
            against === undefined ? logProbability(answer) : logitDifference(answer, against),
          ),
        );
  const patched = args.direction === "denoising" ? others : images;
  const patchedText = args.direction === "denoising" ? (args.corrupted ?? text) : text;
  // Pictures that are no plain grid of patches are looked at only where that is asked for.
  const asked = args.pictureOut !== undefined || args.span !== "image";
  const shown =
    images.length > 0 && !args.heads && (asked || clean.spans[args.span]?.grid)
      ? await imagePrompt(model, patchedText, patched, args.span)
      : undefined;
  return { clean, corrupted, metric, shown };
}

async function attribute(
  model: PatchableModel,
  { clean, corrupted, metric, shown }: Prepared,
  args: Arguments,
): Promise<AttributeReport> {
  const { sites, heads, positions: at, direction, steps, out = [], pictureOut = [] } = args;
  const options = {
    direction,
    ...(sites && { sites }),
    ...(heads && { heads }),
    ...(at !== undefined && { positions: at }),
    ...(metric && { metric }),
  };
  const map = await attributionMap(model, clean, corrupted, {
    ...options,
    ...(steps !== undefined && { steps }),
  });
  const exact = args.exact
    ? await withProgress("patching", (update) =>
        patchMap(model, clean, corrupted, { ...options, onProgress: (done, all) => update(done, all) }),
      )
    : undefined;
  await writeFigure(heatFigure(exact ? [exact, map] : map), out);
  const picture = shown && pictureEffects(map, shown.patches);
  if (shown && pictureOut.length > 0) {
    await writeFigure(
      heatFigure(strongestRows(map, shown.patches), { picture: shown.picture, patches: shown.patches }),
      pictureOut,
    );
  }
  return {
    ...settingOf(model),
    prompt: clean.text,
    corruptedPrompt: corrupted.text,
    map,
    ...(exact && { exact, comparison: compareMaps(exact, map) }),
    ...(picture && { picture }),
    out: [...out, ...pictureOut],
  };
}

/** The columns of a picture's patches, as far as the map has them. */
function ownColumns({ columns }: PatchMap, patches: ImagePatches): number[] {
  const own = new Set(patchPositions(patches));
  return columns.flatMap((column, c) => ("position" in column && own.has(column.position) ? [c] : []));
}

function pictureEffects(map: PatchMap, patches: ImagePatches): PictureEffects[] {
  const own = ownColumns(map, patches);
  if (own.length === 0) return [];
  const { columns: width } = patches.grid;
  const positions = patchPositions(patches);
  return map.effects.map((row, r) => {
    const largest = own.reduce((most, c) => (Math.abs(row[c]!) > Math.abs(row[most]!) ? c : most));
    const patch = positions.indexOf((map.columns[largest] as { position: number }).position);
    const peak = { row: Math.floor(patch / width), column: patch % width, effect: row[largest]! };
    return { site: map.rows[r]!, sum: own.reduce((sum, c) => sum + row[c]!, 0), peak };
  });
}

/** The map with those rows only whose largest effects at a picture's patches are the largest. */
function strongestRows(map: PatchMap, patches: ImagePatches): PatchMap {
  const peaks = pictureEffects(map, patches).map(({ peak }) => Math.abs(peak.effect));
  const order = [...peaks.keys()].sort((a, b) => peaks[b]! - peaks[a]!);
  const kept = order.slice(0, PICTURE_ROWS).sort((a, b) => a - b);
  return new PatchMap({
    ...map,
    rows: kept.map((r) => map.rows[r]!),
    values: kept.map((r) => map.values[r]!),
  });
}

function formatAttribute(report: AttributeReport): string {
  const { prompt, corruptedPrompt, map, exact, comparison, picture = [], out } = report;
  const lines = [
    showSetting(report),
    "",
    `clean      ${quote(prompt)}`,
    `corrupted  ${quote(corruptedPrompt)}`,
    "",
    `${map}`,
  ];
  if (picture.length > 0) {
    const rows = picture.map(({ site, sum, peak }) => [
      site,
      showPercent(sum),
      showPercent(peak.effect),
      `${peak.row}, ${peak.column}`,
    ]);
    lines.push("", table([["", "picture", "peak", "at row, column"], ...rows], [1, 2, 3]));
  }
  if (exact) lines.push("", `${exact}`, "", `${comparison}`);
  if (out.length > 0) lines.push("", `written to ${out.join(", ")}`);
  return lines.join("\n");
}
