import type { ImagePatches } from "../analysis/heads/attention-map.ts";
import type { PatchMap } from "../analysis/maps/patch-map-result.ts";
import { ArgumentError } from "../errors.ts";
import type { RgbImage } from "../images/files/rgb.ts";
import { patchPositions } from "../model/prompt/prompt.ts";
import { Figure } from "./figure.ts";
import { settingLines } from "./setting-lines.ts";
import { showNumber, showPatch } from "./text.ts";
import { picturePanelsSpec } from "./vega-lite/picture-panels.ts";

interface PictureHeatOptions {
  title?: string;
  caption?: string;
  value?: string;
  diverging?: boolean;
}

/**
 * The effects of a patch map at a picture's patches, over the picture: a panel for each site, all on one scale. Throws
 * ArgumentError where the map lacks one of the patches.
 */
export function pictureHeatFigure(
  map: PatchMap,
  picture: RgbImage,
  patches: ImagePatches,
  { title = map.metric, caption = "", value, diverging }: PictureHeatOptions,
): Figure {
  const { effects, columns, rows, direction, estimated } = map;
  const { start, end, grid } = patches;
  const positions = patchPositions(patches);
  const places = positions.map((position) =>
    columns.findIndex((column) => "position" in column && column.position === position),
  );
  const missing = positions[places.indexOf(-1)];
  if (missing !== undefined) {
    throw new ArgumentError(
      `heatFigure: expected a map by position that has all of the picture, ${start} to ${end - 1}, found none of position ${missing}`,
    );
  }
  const own = effects.map((row) => places.map((c) => row[c]!));
  const finite = own.flat().filter(Number.isFinite);
  const peak = finite.reduce((most, effect) => Math.max(most, Math.abs(effect)), 0);
  const signed = diverging ?? finite.some((effect) => effect < 0);
  const [from, into] = direction === "denoising" ? ["clean", "corrupted"] : ["corrupted", "clean"];
  const how = `effect of ${from} activations in the ${into} prompt${estimated && `, ${estimated}`}`;
  const panels = own.map((row, r) => {
    const largest = row.reduce((most, effect, i) => (Math.abs(effect) > Math.abs(row[most]!) ? i : most), 0);
    return {
      caption: `${rows[r]}: largest ${showNumber(row[largest]!)}, ${showPatch(largest, grid)}`,
      patches: row.map((effect, i) => ({
        shade: peak > 0 && Number.isFinite(effect) ? effect / peak : 0,
        tooltip: `${showPatch(i, grid)}: ${estimated && "estimated "}effect ${showNumber(effect)}`,
      })),
    };
  });
  const legend = {
    title: value ?? (estimated ? "estimated effect" : "effect"),
    ends: [signed ? showNumber(-peak) : "0", showNumber(peak)] as const,
    diverging: signed,
  };
  const lines = [how, ...settingLines(map)];
  return new Figure({
    title,
    caption,
    text: [title, ...lines, ...panels.map(({ caption }) => caption)].join("\n"),
    spec: () => picturePanelsSpec({ title, lines, picture, grid, panels, legend }),
  });
}
