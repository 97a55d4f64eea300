import type { AttentionMap } from "../analysis/attention-map.ts";
import { PromptError } from "../errors.ts";
import type { RgbImage } from "../images/rgb.ts";
import type { Figure, Shape } from "./drawing.ts";
import { HEAT_OPACITY, heatColour } from "./heat.ts";
import { arrangePanels, type Panel, patchCells, picturePanel, toGrey } from "./panels.ts";
import { showPatch, showShare } from "./text.ts";

/** Sides of a panel are about this long; whole units a patch. */
const PANEL_SIDE = 288;

/**
 * Draws attention maps over the picture that the model saw (`modelView`), a panel each, beside the picture itself. Every
 * panel has a scale of its own, from 0 to its peak, which stands in its caption with the share of the whole image.
 *
 * @param lines what stands above: model, prompt, token
 * @throws PromptError if there is no map
 */
export function attentionFigure(
  picture: RgbImage,
  maps: readonly AttentionMap[],
  lines: readonly string[],
): Figure {
  const [first] = maps;
  if (!first) throw new PromptError("Expected at least one attention map to draw, found none.");
  const cell = Math.max(1, Math.round(PANEL_SIDE / Math.max(first.grid.rows, first.grid.columns)));
  const size = { width: cell * first.grid.columns, height: cell * first.grid.rows };
  const background: Shape = { kind: "picture", x: 0, y: 0, ...size, picture: toGrey(picture) };
  const panels = maps.map((map): Panel => {
    const peak = peakOf(map);
    const heat = patchCells(map.grid, size.width, size.height, (box, i): Shape => {
      const weight = map.weights[i]!;
      return {
        kind: "rectangle",
        ...box,
        fill: heatColour(peak > 0 ? weight / peak : 0),
        opacity: HEAT_OPACITY,
        tooltip: `${showPatch(i, map.grid)}: ${showShare(weight)}`,
      };
    });
    const caption = `layer ${map.layer}: ${showShare(map.share)} on the image, peak ${showShare(peak)}`;
    return { caption, ...size, shapes: [background, ...heat] };
  });
  const [only] = maps.length === 1 ? maps : [];
  const end = only ? `${showShare(peakOf(only))} of the attention` : "peak of each panel";
  return arrangePanels(lines, ["0", end], [picturePanel(picture, first.grid, size), ...panels]);
}

function peakOf({ weights }: AttentionMap): number {
  return weights.reduce((a, b) => Math.max(a, b), 0);
}
