import { type Command, InvalidArgumentError } from "commander";
import {
  type AttentionMap,
  attentionMaps,
  patchKeys,
  rolloutMaps,
} from "../../analysis/heads/attention-map.ts";
import { checkLayers } from "../../analysis/layers.ts";
import { SiteError } from "../../errors.ts";
import { attentionFigure } from "../../figures/attention-figure.ts";
import { showShare } from "../../figures/text.ts";
import type { RgbImage } from "../../images/files/rgb.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { type Setting, settingOf, showSetting } from "../../patching/setting.ts";
import { layers, listed, position, wholeNumber } from "../options/arguments.ts";
import { checkLengths, checkPositions, checkWritable, ofOption } from "../options/checks.ts";
import { newCommand } from "../options/command.ts";
import { figureFiles, writeFigure } from "../options/figure-files.ts";
import {
  addSpanOption,
  IMAGE_OPTION,
  type ImageArguments,
  type PicturePrompt,
  picturePrompt,
  readImages,
} from "../options/image-prompt.ts";
import { addModelOptions, type ModelArguments, withModel } from "../options/session.ts";
import { addPromptOptions, type PromptArguments, promptText } from "../options/text-files.ts";
import { quote, table } from "../terminal/layout.ts";
import { printResult } from "../terminal/output.ts";

interface Arguments extends ModelArguments, PromptArguments, ImageArguments {
  readonly token: number;
  readonly layer: readonly number[] | "all";
  readonly head: number | "mean";
  readonly rollout?: boolean;
  readonly out: readonly string[];
}

export interface AttendReport extends Setting {
  readonly prompt: string;
  /** The token that attends, as the vocabulary spells it. */
  readonly position: number;
  readonly token: string;
  readonly method: "attention" | "rollout";
  readonly head: number | "mean";
  readonly span: string;
  readonly grid: { readonly rows: number; readonly columns: number };
  readonly maps: readonly {
    readonly layer: number;
    /** Of the token's attention, on the whole image. */
    readonly share: number;
    readonly peak: { readonly row: number; readonly column: number; readonly weight: number };
    /** By row, then column. */
    readonly weights: readonly (readonly number[])[];
  }[];
  readonly out: readonly string[];
}

export function attendCommand(): Command {
  const command = newCommand(
    "attend",
    "Attention from a token to an image's patches, drawn over the picture",
    [
      'attend --image flag.png --prompt "Q:<image>\\nA:" --out map.png',
      'attend --model ./llava --image cat.png --prompt "USER: <image>\\nWhat is it? ASSISTANT:" --layer 14 --head 3 --out map.html',
    ],
  );
  addModelOptions(command).requiredOption(...IMAGE_OPTION, listed);
  return addSpanOption(addPromptOptions(command))
    .option("--token <n>", "position of the token that attends", position, -1)
    .option(
      "--layer <layers>",
      "such as 12 or 0-5,8, or all",
      (text) => (text === "all" ? text : layers(text)),
      "all",
    )
    .option("--head <head>", "a head's number, or mean", head, "mean")
    .option(
      "--rollout",
      "attention rollout from the embedding up to each layer, in place of each layer's own",
    )
    .requiredOption("--out <file>", ".png, .svg or .html to write; may be repeated", figureFiles)
    .action(async (args: Arguments) => {
      if (args.rollout && args.head !== "mean") {
        command.error("error: --rollout is over the mean of all heads; leave --head out");
      }
      for (const file of args.out) await checkWritable("--out", file);
      const text = await promptText(args, command);
      const images = await readImages(args.image);
      const report = await withModel(
        args,
        (model) => prepare(model, text, images, args),
        (model, shown) => attend(model, shown, args),
      );
      printResult(report, args.json, formatAttend);
    });
}

function head(text: string): number | "mean" {
  if (text === "mean") return text;
  try {
    return wholeNumber(0)(text);
  } catch {
    throw new InvalidArgumentError("Expected mean or a head's number.");
  }
}

async function prepare(
  model: ModelOutline,
  text: string,
  images: readonly RgbImage[],
  args: Arguments,
): Promise<PicturePrompt> {
  const { token, layer, head } = args;
  const { heads } = model.config;
  if (layer !== "all") checkLayers(model, layer, "--layer");
  if (head !== "mean" && head >= heads) {
    throw new SiteError(`--head: expected mean, or a head from 0 to ${heads - 1}, found ${head}`);
  }
  const shown = await picturePrompt(model, text, images, args.span);
  await ofOption("--span", () => patchKeys(model, shown.prompt, args.span));
  checkLengths(model, [shown.prompt]);
  await checkPositions(model, "--token", token, [shown.prompt]);
  return shown;
}

async function attend(
  model: PatchableModel,
  { prompt, picture }: PicturePrompt,
  args: Arguments,
): Promise<AttendReport> {
  const { token: at, head, rollout, span, out } = args;
  const which = { at, span, ...(args.layer !== "all" && { layers: args.layer }) };
  const maps = rollout
    ? await rolloutMaps(model, prompt, which)
    : await attentionMaps(model, prompt, { ...which, ...(head !== "mean" && { head }) });
  const found = prompt.at(at);
  const report: AttendReport = {
    ...settingOf(model),
    prompt: prompt.text,
    position: found,
    token: prompt.tokens[found]!,
    method: rollout ? "rollout" : "attention",
    head,
    span,
    grid: maps[0]!.grid,
    maps: maps.map(describe),
    out,
  };
  const lines = [quote(prompt.text)];
  await writeFigure(attentionFigure(maps, { picture, title: subject(report), lines }), out);
  return report;
}

function describe({ layer, share, weights, grid }: AttentionMap): AttendReport["maps"][number] {
  const { rows, columns } = grid;
  const index = weights.indexOf(weights.reduce((a, b) => Math.max(a, b)));
  return {
    layer,
    share,
    peak: { row: Math.floor(index / columns), column: index % columns, weight: weights[index]! },
    weights: Array.from({ length: rows }, (_, row) => [
      ...weights.subarray(row * columns, (row + 1) * columns),
    ]),
  };
}

function subject({ position, token, method, head, maps }: AttendReport): string {
  const what = method === "rollout" ? "attention rollout" : "attention";
  const heads = head === "mean" ? "mean of all heads" : `head ${head}`;
  const where = maps.length === 1 ? `, layer ${maps[0]!.layer}` : "";
  return `${what} of token ${position} ${quote(token)}${where}, ${heads}`;
}

function formatAttend(report: AttendReport): string {
  const rows = report.maps.map(({ layer, share, peak }) => [
    `${layer}`,
    showShare(share),
    showShare(peak.weight),
    `${peak.row}, ${peak.column}`,
  ]);
  const maps = table([["layer", "on the image", "peak", "at row, column"], ...rows], [0, 1, 2, 3]);
  const written = `written to ${report.out.join(", ")}`;
  return [showSetting(report), "", subject(report), "", maps, "", written].join("\n");
}
