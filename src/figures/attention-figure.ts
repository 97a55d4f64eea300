import type { AttentionMap } from "../analysis/heads/attention-map.ts";
import { HeadPattern } from "../analysis/heads/head-pattern-result.ts";
import {
  aListOf,
  aNumber,
  anArray,
  anObject,
  aString,
  checkArgument,
  checkOptions,
  type Expected,
  isList,
  type Options,
} from "../arguments.ts";
import { ArgumentError, PromptError } from "../errors.ts";
import type { RgbImage } from "../images/files/rgb.ts";
import { resolvePosition } from "../model/prompt/prompt.ts";
import { chartFigure } from "./chart-figure.ts";
import { Figure } from "./figure.ts";
import { settingLines } from "./setting-lines.ts";
import { showPatch, showShare, showToken } from "./text.ts";
import { tokenFigure } from "./token-figure.ts";
import { picturePanelsSpec } from "./vega-lite/picture-panels.ts";

/** Titles of {@link attentionFigure}, and what it draws the weights over. */
export interface AttentionFigureOptions {
  title?: string;
  /** Lines below the title, behind the one that says model, dtypes and adapter. */
  lines?: readonly string[];
  /** For maps over an image: the picture as the model saw it (`modelView`). */
  picture?: RgbImage;
  /** For patterns over text: the token that attends; its weights are drawn over the text. Default: all, as a square. */
  at?: number;
}

const OPTIONS: Options<AttentionFigureOptions> = {
  title: aString,
  lines: aListOf(aString),
  picture: anObject,
  at: aNumber,
};

/**
 * Where attention goes: over text, for what `headPattern` or `headPatterns` gives (all tokens to all, or from one of them); over a
 * picture, for what `attentionMaps` or `rolloutMaps` gives. A panel for each.
 *
 * Over pictures every panel has a scale of its own, from 0 to its peak, which stands in its caption with the share of the whole
 * image; over text all have one.
 *
 * @throws ArgumentError if there is nothing to draw, the same head twice, or no picture for maps over one
 * @throws PromptError where patterns are of different prompts, or have no such token, and where maps are of different grids
 */
export function attentionFigure(
  attention: AttentionMap | HeadPattern | readonly AttentionMap[] | readonly HeadPattern[],
  options: AttentionFigureOptions = {},
): Figure {
  checkArgument("attentionFigure", "attention", attention, anObject);
  checkOptions("attentionFigure", options, OPTIONS);
  const list = anArray.holds(attention)
    ? (attention as readonly (AttentionMap | HeadPattern)[])
    : [attention as AttentionMap | HeadPattern];
  if (list.length === 0) {
    throw new ArgumentError("attentionFigure: expected at least one pattern or map to draw, found none");
  }
  if (list.every((one): one is HeadPattern => one instanceof HeadPattern)) return overText(list, options);
  checkArgument("attentionFigure", "attention", list, aListOf(aMap));
  return overPicture(list as readonly AttentionMap[], options);
}

const aMap: Expected = {
  words: "what headPattern, headPatterns, attentionMaps or rolloutMaps gives",
  holds: (value) =>
    anObject.holds(value) &&
    aNumber.holds((value as AttentionMap).layer) &&
    anObject.holds((value as AttentionMap).grid) &&
    isList((value as AttentionMap).weights),
};

function overText(
  patterns: readonly HeadPattern[],
  { title, lines: below = [], at, picture }: AttentionFigureOptions,
): Figure {
  const lines = [...settingLines(...patterns), ...below];
  if (picture) {
    throw new ArgumentError(
      "attentionFigure: a picture goes with maps (attentionMaps), not with patterns over text",
    );
  }
  const [{ tokens }] = patterns as [HeadPattern];
  const other = patterns.find((one) => one.tokens.join("\0") !== tokens.join("\0"));
  if (other) {
    throw new PromptError(
      `Expected patterns of one prompt, found those of ${JSON.stringify(tokens.join(""))} and ${JSON.stringify(other.tokens.join(""))}.`,
    );
  }
  const names = patterns.map(nameOf);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) {
    throw new ArgumentError(
      `attentionFigure: expected patterns that differ in layer or head, found ${twice} twice`,
    );
  }
  const text = patterns.join("\n\n");
  if (at !== undefined) {
    const position = resolvePosition(at, tokens.length);
    const blocks = patterns.map((pattern) => [nameOf(pattern), pattern.weights[position]!] as const);
    return tokenFigure(tokens, Object.fromEntries(blocks), {
      title: title ?? `attention from token ${showToken(position, tokens[position]!)}`,
      value: "weight",
      lines,
    });
  }
  const labels = tokens.map((token, i) => showToken(i, token));
  return chartFigure(
    {
      kind: "heat",
      title: title ?? (patterns.length === 1 ? `attention of ${nameOf(patterns[0]!)}` : "attention"),
      lines,
      x: "to",
      y: "from",
      value: "weight",
      rows: patterns.flatMap((pattern) =>
        pattern.weights.flatMap((row, from) =>
          // What is hidden from a token stays white.
          row.flatMap((weight, to) =>
            weight === 0 && to > from
              ? []
              : [
                  {
                    ...(patterns.length > 1 && { panel: nameOf(pattern) }),
                    x: labels[to]!,
                    y: labels[from]!,
                    value: weight,
                    tooltip: `${labels[from]} → ${labels[to]}: ${showShare(weight)}`,
                  },
                ],
          ),
        ),
      ),
    },
    text,
  );
}

function nameOf({ layer, head }: HeadPattern): string {
  return `layer ${layer}, ${head === undefined ? "mean of all heads" : `head ${head}`}`;
}

function overPicture(
  maps: readonly AttentionMap[],
  { title = "attention", lines: below = [], picture, at }: AttentionFigureOptions,
): Figure {
  const lines = [...settingLines(...maps), ...below];
  if (!picture) {
    throw new ArgumentError(
      "attentionFigure: expected the option picture, the picture as the model saw it (modelView), for maps over an image",
    );
  }
  if (at !== undefined) {
    throw new ArgumentError(
      "attentionFigure: maps are of one token already; give the token to attentionMaps, not at",
    );
  }
  const [{ grid }] = maps as [AttentionMap];
  const patches = grid.rows * grid.columns;
  const other = maps.find(
    (map) =>
      map.grid.rows !== grid.rows || map.grid.columns !== grid.columns || map.weights.length !== patches,
  );
  if (other) {
    throw new PromptError(
      `Expected maps over one picture of ${grid.rows} x ${grid.columns} patches, found ${other.weights.length} weights over ${other.grid.rows} x ${other.grid.columns}.`,
    );
  }
  const panels = maps.map(({ layer, head, share, weights }) => {
    const peak = peakOf(weights);
    return {
      caption: `layer ${layer}${head === undefined ? "" : `, head ${head}`}: ${showShare(share)} on the image, peak ${showShare(peak)}`,
      patches: Array.from(weights, (weight, i) => ({
        shade: peak > 0 ? weight / peak : 0,
        tooltip: `${showPatch(i, grid)}: ${showShare(weight)}`,
      })),
    };
  });
  const [only] = maps.length === 1 ? maps : [];
  const legend = {
    title: "attention",
    ends: ["0", only ? showShare(peakOf(only.weights)) : "peak of each panel"] as const,
  };
  return new Figure({
    title,
    caption: "",
    text: [title, ...lines, ...panels.map(({ caption }) => caption)].join("\n"),
    spec: () => picturePanelsSpec({ title, lines, picture, grid, panels, legend }),
  });
}

function peakOf(weights: Float32Array): number {
  return weights.reduce((a, b) => Math.max(a, b), 0);
}
