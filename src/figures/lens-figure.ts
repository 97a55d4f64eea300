import { LensCells } from "../analysis/lens/lens-cells.ts";
import type { LensCell } from "../analysis/lens/logit-lens.ts";
import {
  aListOf,
  aNumber,
  anArray,
  anObject,
  aString,
  checkArgument,
  checkOptions,
  type Expected,
  type Options,
} from "../arguments.ts";
import { ArgumentError, PromptError } from "../errors.ts";
import type { RgbImage } from "../images/files/rgb.ts";
import type { PatchGrid } from "../model/prompt/prompt.ts";
import type { HeatChart } from "./chart.ts";
import { chartFigure } from "./chart-figure.ts";
import { Figure } from "./figure.ts";
import { settingLines } from "./setting-lines.ts";
import { showPatch, showShare, showToken, showWord } from "./text.ts";
import { MOST_WORDS } from "./vega-lite/heat.ts";
import { picturePanelsSpec } from "./vega-lite/picture-panels.ts";

/** Titles of {@link lensFigure}, names of its tokens, and the picture below its cells. */
export interface LensFigureOptions {
  title?: string;
  /** Lines below the title, behind the one that says model, dtypes and adapter. */
  lines?: readonly string[];
  /** What to call the tokens in place of what they read as, a name for each of the sequence. */
  tokens?: readonly string[];
  /** For cells at an image's span: the picture as the model saw it (`modelView`), and how its patches lie. */
  picture?: RgbImage;
  grid?: PatchGrid;
}

const aCell: Expected = {
  words: "a cell from logitLens, with layer, position and tokens",
  holds: (value) =>
    anObject.holds(value) &&
    aNumber.holds((value as LensCell).layer) &&
    aNumber.holds((value as LensCell).position) &&
    anArray.holds((value as LensCell).tokens) &&
    (value as LensCell).tokens.length > 0,
};

const OPTIONS: Options<LensFigureOptions> = {
  title: aString,
  lines: aListOf(aString),
  tokens: aListOf(aString),
  picture: anObject,
  grid: anObject,
};

/**
 * The logit lens as a table, a row a layer: at several positions the word that each reads as, at one position its likeliest
 * words. With a picture, over it, a panel a layer and a word a patch. Colours are probabilities; viewers of SVG and HTML show
 * the other words under the pointer.
 *
 * @param cells from `logitLens`
 * @throws ArgumentError without cells, with a picture and no grid, or with tokens beside them
 * @throws PromptError if a layer has not a cell for each patch, or tokens are not those that were read
 */
export function lensFigure(cells: readonly LensCell[], options: LensFigureOptions = {}): Figure {
  checkArgument("lensFigure", "cells", cells, aListOf(aCell));
  checkOptions("lensFigure", options, OPTIONS);
  if (cells.length === 0) throw new ArgumentError("lensFigure: expected at least one cell, found none");
  const { picture, grid, title = "logit lens", lines: below = [] } = options;
  const lines = [...settingLines(...(cells instanceof LensCells ? [cells] : [])), ...below];
  if ((picture === undefined) !== (grid === undefined)) {
    throw new ArgumentError("lensFigure: expected picture and grid together, found one of them");
  }
  if (picture && grid) {
    if (options.tokens) {
      throw new ArgumentError(
        "lensFigure: tokens name the columns of a text; over a picture they are not used",
      );
    }
    return overPicture(cells, picture, grid, title, lines);
  }
  return overText(cells, title, lines, options.tokens);
}

function overText(
  cells: readonly LensCell[],
  title: string,
  lines: readonly string[],
  given: readonly string[] | undefined,
): Figure {
  const known = cells instanceof LensCells ? cells.tokens : [];
  const tokens = given ?? known;
  const last = cells.reduce((most, { position }) => Math.max(most, position), 0);
  const fits = known.length > 0 ? tokens.length === known.length : last < tokens.length;
  if (given && !fits) {
    throw new PromptError(
      `lensFigure: expected ${known.length > 0 ? known.length : `at least ${last + 1}`} tokens, as many as were read, found ${tokens.length}.`,
    );
  }
  const positions = [...new Set(cells.map(({ position }) => position))];
  const named = (position: number) =>
    tokens[position] === undefined ? `${position}` : showToken(position, tokens[position]);
  const wordless = positions.length > 1 && cells.length > MOST_WORDS;
  const chart: Omit<HeatChart, "x" | "rows"> = {
    kind: "heat",
    title: positions.length === 1 ? `${title} at ${named(positions[0]!)}` : title,
    lines: wordless ? [...lines, "too many words to be drawn: name fewer layers or positions"] : lines,
    y: "layer",
    value: "probability",
  };
  const rows =
    positions.length === 1
      ? cells.flatMap(({ layer, tokens: words }) =>
          words.map(({ text, probability }, i) => ({
            x: i + 1,
            y: layer,
            value: probability,
            word: showWord(text),
            tooltip: `layer ${layer}, ${i + 1}: ${JSON.stringify(text)} ${showShare(probability)}`,
          })),
        )
      : cells.map((cell) => ({
          x: named(cell.position),
          y: cell.layer,
          value: cell.tokens[0]!.probability,
          word: showWord(cell.tokens[0]!.text),
          tooltip: [`layer ${cell.layer}, ${named(cell.position)}`, ...readings(cell)].join("\n"),
        }));
  const x = positions.length === 1 ? "rank" : "position";
  return chartFigure({ ...chart, x, rows }, cells instanceof LensCells ? cells.table() : undefined);
}

function readings({ tokens }: LensCell): string[] {
  return tokens.map(({ text, probability }) => `${JSON.stringify(text)} ${showShare(probability)}`);
}

function overPicture(
  cells: readonly LensCell[],
  picture: RgbImage,
  grid: PatchGrid,
  title: string,
  lines: readonly string[],
): Figure {
  const layers = [...new Set(cells.map(({ layer }) => layer))];
  const most = cells.reduce((top, { tokens }) => Math.max(top, tokens[0]!.probability), 0);
  const panels = layers.map((layer) => {
    const own = cells.filter((cell) => cell.layer === layer);
    if (own.length !== grid.rows * grid.columns) {
      throw new PromptError(
        `Expected a cell for each of ${grid.rows * grid.columns} patches, found ${own.length} of layer ${layer}.`,
      );
    }
    return {
      caption: `layer ${layer}`,
      patches: own.map((cell, i) => ({
        shade: cell.tokens[0]!.probability / most,
        word: showWord(cell.tokens[0]!.text),
        tooltip: [`${showPatch(i, grid)}, position ${cell.position}`, ...readings(cell)].join("\n"),
      })),
    };
  });
  const legend = { title: "probability of the word", ends: ["0", showShare(most)] as const };
  return new Figure({
    title,
    caption: "",
    text: [
      title,
      ...lines,
      ...panels.map(({ caption, patches }) => `${caption}: ${patches.map(({ word }) => word).join(" ")}`),
    ].join("\n"),
    spec: () => picturePanelsSpec({ title, lines, picture, grid, panels, legend }),
  });
}
