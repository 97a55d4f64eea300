import type { LensCell } from "../analysis/logit-lens.ts";
import { PromptError } from "../errors.ts";
import type { RgbImage } from "../images/rgb.ts";
import type { PatchGrid } from "../model/prompt/prompt.ts";
import { type Figure, fitLabel, LINE_HEIGHT, labelWidth, type Shape } from "./drawing.ts";
import { HEAT_OPACITY, heatColour } from "./heat.ts";
import { arrangePanels, type Panel, patchCells, picturePanel, toGrey } from "./panels.ts";
import { showPatch, showShare, showWord } from "./text.ts";

/** Side of a patch: room for eight characters. */
const CELL = 52;

/**
 * Draws the logit lens over an image, a panel a layer: in each patch the word that it reads as, over the picture that
 * the model saw, coloured by the word's probability. Viewers of SVG and HTML show the other words of a patch as tooltips.
 *
 * @param cells from `logitLens` at the image's span
 * @param lines what stands above: model, prompt
 * @throws PromptError if a layer has not a cell for each patch
 */
export function lensFigure(
  picture: RgbImage,
  grid: PatchGrid,
  cells: readonly LensCell[],
  lines: readonly string[],
): Figure {
  const size = { width: CELL * grid.columns, height: CELL * grid.rows };
  const layers = [...new Set(cells.map((cell) => cell.layer))];
  const most = cells.reduce((top, { tokens }) => Math.max(top, tokens[0]!.probability), 0);
  const background: Shape = { kind: "picture", x: 0, y: 0, ...size, picture: toGrey(picture) };
  const panels = layers.map((layer): Panel => {
    const words = cells.filter((cell) => cell.layer === layer);
    if (words.length !== grid.rows * grid.columns) {
      throw new PromptError(
        `Expected a cell for each of ${grid.rows * grid.columns} patches, found ${words.length} of layer ${layer}.`,
      );
    }
    const shapes = patchCells(grid, size.width, size.height, (box, i) => patch(box, words[i]!, i)).flat();
    return {
      caption: `layer ${layer}`,
      ...size,
      shapes: [background, ...shapes],
    };
  });
  return arrangePanels(
    lines,
    ["0", `${showShare(most)} probability of the word`],
    [picturePanel(picture, grid, size), ...panels],
  );

  function patch(
    box: { x: number; y: number; width: number; height: number },
    { tokens, position }: LensCell,
    index: number,
  ): Shape[] {
    const { text, probability } = tokens[0]!;
    const strip = LINE_HEIGHT + 1;
    const word = fitLabel(showWord(text), box.width - 2);
    const readings = tokens.map((token) => `${JSON.stringify(token.text)} ${showShare(token.probability)}`);
    const tooltip = [`${showPatch(index, grid)}, position ${position}`, ...readings].join("\n");
    return [
      { kind: "rectangle", ...box, fill: heatColour(probability / most), opacity: HEAT_OPACITY },
      {
        kind: "rectangle",
        x: box.x,
        y: box.y + box.height - strip,
        width: box.width,
        height: strip,
        fill: "#ffffff",
        opacity: 0.9,
      },
      {
        kind: "label",
        x: box.x + (box.width - labelWidth(word)) / 2,
        y: box.y + box.height - LINE_HEIGHT,
        text: word,
        colour: "#000000",
      },
      // Over the rest, and invisible: it is there for the pointer.
      { kind: "rectangle", ...box, fill: "#ffffff", opacity: 0, tooltip },
    ];
  }
}
