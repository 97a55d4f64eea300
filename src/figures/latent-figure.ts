import { type LatentActivity, placeOf, titleOf } from "../analysis/autoencoders/latent-examples.ts";
import {
  aListOf,
  anArray,
  anObject,
  aString,
  checkArgument,
  checkOptions,
  type Expected,
  type Options,
} from "../arguments.ts";
import { ArgumentError } from "../errors.ts";
import type { RgbImage } from "../images/files/rgb.ts";
import { Figure } from "./figure.ts";
import { showNumber, showPatch, showToken } from "./text.ts";
import { picturePanelsSpec } from "./vega-lite/picture-panels.ts";
import { tokenLinesSpec } from "./vega-lite/token-lines.ts";

/** Titles of {@link latentFigure}, and the picture below its patches. */
export interface LatentFigureOptions {
  title?: string;
  caption?: string;
  /** Lines below the title, such as what the autoencoder is. */
  lines?: readonly string[];
  /** Of examples that are patches of one picture: that picture, as the model saw it (`modelView`). */
  picture?: RgbImage;
  /** Which prompt the picture is of. Default: that of the first example at a patch. */
  prompt?: number;
}

const OPTIONS: Options<LatentFigureOptions> = {
  title: aString,
  caption: aString,
  lines: aListOf(aString),
  picture: anObject,
  prompt: { words: "the number of a prompt", holds: (value) => Number.isInteger(value) },
};

const anActivity: Expected = {
  words: "what a latent is active at (from topActivations(…), its .of(latent))",
  holds: (value) => anObject.holds(value) && anArray.holds((value as LatentActivity).examples),
};

/**
 * What activates a latent: the texts around its top tokens, each on the colour of the latent; or with `picture` the latent over the
 * patches of that picture. Throws ArgumentError where there are no examples, or none at a patch.
 *
 * @example await show(latentFigure((await topActivations(sae, { model, prompts }, { latents: [17] })).of(17)));
 */
export function latentFigure(activity: LatentActivity, options: LatentFigureOptions = {}): Figure {
  checkArgument("latentFigure", "activity", activity, anActivity);
  checkOptions("latentFigure", options, OPTIONS);
  const { title = titleOf(activity), caption = "", lines = [], picture, prompt } = options;
  const { examples } = activity;
  if (examples.length === 0)
    throw new ArgumentError(`latentFigure: latent ${activity.latent} is active nowhere`);
  if (picture) return overPicture(activity, { title, caption, lines, picture, prompt });
  if (prompt !== undefined)
    throw new ArgumentError("latentFigure: prompt says which one a picture is of, and there is none");
  const panels = examples.map((example) => ({
    caption: `${placeOf(example)}: ${showNumber(example.value)}`,
    tokens: example.tokens.map((token, i) => ({
      shown: JSON.stringify(token.replaceAll(/[Ġ▁]/g, " ").replaceAll("Ċ", "\n"))
        .slice(1, -1)
        .replaceAll('\\"', '"'),
      value: example.values[i]!,
      tooltip: `${showToken(example.start + i, token)}: ${showNumber(example.values[i]!)}`,
    })),
  }));
  return new Figure({
    title,
    caption,
    text: [title, ...lines, ...panels.map(({ caption: own }) => own)].join("\n"),
    spec: () => tokenLinesSpec({ title, lines, value: "latent", diverging: false, panels }),
  });
}

function overPicture(
  { latent, examples }: LatentActivity,
  {
    title,
    caption,
    lines,
    picture,
    prompt,
  }: Required<Omit<LatentFigureOptions, "prompt">> & { prompt: number | undefined },
): Figure {
  const found = examples.find(({ patch, prompt: own }) => patch && (prompt === undefined || own === prompt));
  if (!found?.patch) {
    const where = prompt === undefined ? "" : ` of prompt ${prompt}`;
    throw new ArgumentError(
      `latentFigure: none of the examples of latent ${latent} is a patch of a picture${where}`,
    );
  }
  const { grid, values } = found.patch;
  const peak = values.reduce((most, value) => (value > most ? value : most), 0);
  const panel = {
    caption: `${placeOf(found)}: ${showNumber(found.value)}`,
    patches: values.map((value, i) => ({
      shade: peak > 0 && Number.isFinite(value) ? value / peak : 0,
      tooltip: `${showPatch(i, grid)}: ${showNumber(value)}`,
    })),
  };
  const legend = { title: "latent", ends: ["0", showNumber(peak)] as const };
  return new Figure({
    title,
    caption,
    text: [title, ...lines, panel.caption].join("\n"),
    spec: () => picturePanelsSpec({ title, lines, picture, grid, panels: [panel], legend }),
  });
}
