import { frame, MONOSPACED, PAGE_WIDTH } from "./frame.ts";
import type { Spec } from "./groupings.ts";
import { heatScale } from "./heat-scale.ts";
import { inkOn } from "./ink.ts";
import { letters, wrapText } from "./text-width.ts";

/** A text whose tokens have a number each. */
export interface TokenPanel {
  readonly caption: string;
  readonly tokens: readonly { readonly shown: string; readonly value: number; readonly tooltip: string }[];
}

export interface TokenLines {
  readonly title: string;
  readonly lines: readonly string[];
  readonly panels: readonly TokenPanel[];
  /** What the colour stands for. */
  readonly value: string;
  readonly diverging?: boolean;
}

const FONT_SIZE = 12;
/** DejaVu Sans Mono's letters are so wide, in ems. */
const LETTER = 0.602 * FONT_SIZE;
const LINE = 20;
const PADDING = 3;
/** Between panels. */
const GAP = { row: 14, column: 30 };
/** Lines are broken here. */
const WIDTH = 760;
/** Of a token; the rest is cut. */
const MOST_LETTERS = Math.floor((WIDTH - 2 * PADDING) / LETTER);
/** From nothing to the largest value. */
const SHADES = ["#f4f8fc", "#08519c"];

/** Tokens one after the other in lines, each on the colour of its value; a token that ends in a new line ends its line. */
export function tokenLinesSpec({ title, lines, panels, value, diverging }: TokenLines): Spec {
  const all = panels.flatMap(({ tokens }) => tokens.map((token) => token.value));
  const { ticks, format, ...scale } = heatScale(all, diverging);
  const color = {
    field: "value",
    type: "quantitative",
    title: value,
    scale: diverging ? scale : { domain: scale.domain, range: SHADES },
    legend: { values: ticks, format, labelOverlap: false, gradientLength: 100 },
  };
  const blocks = panels.map(({ caption, tokens }) => ({ caption, placed: place(tokens) }));
  const width = Math.max(...blocks.flatMap(({ placed }) => placed.map(({ right }) => right)));
  return {
    ...frame(title, lines),
    spacing: GAP,
    columns: Math.max(1, Math.floor(PAGE_WIDTH / (width + GAP.column))),
    concat: blocks.map(({ caption, placed }) => {
      const height = LINE * (1 + Math.max(0, ...placed.map(({ line }) => line)));
      const across = (field: string) => axis(field, [0, width]);
      const down = (field: string) => axis(field, [height, 0]);
      return {
        width,
        height,
        title: { text: caption, anchor: "start", fontSize: 11, fontWeight: "normal", offset: 4 },
        view: { stroke: null },
        data: { values: placed },
        layer: [
          {
            mark: { type: "rect", aria: true },
            encoding: {
              x: across("left"),
              x2: { field: "right" },
              y: down("top"),
              y2: { field: "bottom" },
              color,
              description: { field: "tooltip" },
            },
          },
          {
            mark: { type: "text", font: `${MONOSPACED}, monospace`, fontSize: FONT_SIZE },
            encoding: {
              x: across("middle"),
              y: down("centre"),
              text: { field: "shown" },
              color: inkOn(diverging ? "diverging" : "shades", scale.domain),
            },
          },
        ],
      };
    }),
  };
}

function axis(field: string, domain: readonly [number, number]) {
  return { field, type: "quantitative", axis: null, scale: { domain, nice: false, zero: false } };
}

function place(tokens: TokenPanel["tokens"]) {
  let [left, line] = [0, 0];
  return tokens.map((token) => {
    const [shown] = wrapText(token.shown, MOST_LETTERS, 1);
    const width = letters(shown!) * LETTER + 2 * PADDING;
    if (left > 0 && left + width > WIDTH) [left, line] = [0, line + 1];
    const box = {
      ...token,
      shown,
      line,
      left,
      right: left + width - 1,
      middle: left + width / 2,
      top: line * LINE + 1,
      bottom: (line + 1) * LINE - 1,
      centre: (line + 0.5) * LINE,
    };
    left += width;
    if (token.shown.endsWith("\\n")) [left, line] = [0, line + 1];
    return box;
  });
}
