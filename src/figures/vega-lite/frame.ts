import type { Spec } from "./groupings.ts";
import { wrapText } from "./text-width.ts";

/** Carried by the package dejavu-fonts-ttf; browsers without it take the next one. */
const FONT = "DejaVu Sans";
export const MONOSPACED = "DejaVu Sans Mono";

export const INK = "#222222";

/** Pixels that panels may take side by side. */
export const PAGE_WIDTH = 1000;
/** Pixels of a letter of a label, about. */
export const LETTER = 7;

/** Of the titles of panels. */
export const HEADER_SIZE = 12;

/** Pixels of a letter of a title, which is bold, and of the lines below it, about; how many lines each text may take. */
const TITLE_LETTER = 9.5;
const LINE_LETTER = 6.45;
const MOST_LINES = 4;

/**
 * What all figures have: a title with lines below it, white ground, fonts, axes and legends.
 *
 * @param width pixels that texts may take before they go on in another line
 */
export function frame(text: string, lines: readonly string[], width = PAGE_WIDTH): Spec {
  const wrapped = (line: string, letter: number) => wrapText(line, Math.floor(width / letter), MOST_LINES);
  const title = wrapped(text, TITLE_LETTER);
  const subtitle = lines.flatMap((line) => wrapped(line, LINE_LETTER));
  return {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    title: {
      text: title.length === 1 ? text : title,
      subtitle,
      anchor: "start",
      fontSize: 14,
      subtitleFontSize: 11,
      subtitleColor: "#555555",
      subtitlePadding: 4,
      offset: 12,
    },
    background: "white",
    config: {
      // Marks that have a tooltip say so themselves; of the others descriptions would double the size.
      aria: false,
      font: `${FONT}, Verdana, sans-serif`,
      // Within the panel, so that those with and without numbers are equally high.
      axisYQuantitative: { labelFlush: true },
      axis: {
        labelFontSize: 11,
        titleFontSize: 12,
        titleFontWeight: "normal",
        titlePadding: 8,
        gridColor: "#e8e8e8",
        labelLimit: 400,
        // Titles stand beside the labels, however long these are.
        maxExtent: 1000,
      },
      legend: {
        labelFontSize: 11,
        titleFontSize: 12,
        titleFontWeight: "normal",
        labelLimit: 500,
        symbolOpacity: 1,
        symbolSize: 80,
      },
      header: { labelFontSize: HEADER_SIZE, titleFontSize: 12, labelLimit: PAGE_WIDTH },
      view: { stroke: "#cccccc" },
    },
  };
}
