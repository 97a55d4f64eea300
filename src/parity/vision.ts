import {
  hasTileMap,
  type ImageLayout,
  type ImageRowCounts,
  imageRowCount,
  imageRowCounts,
  tileRows,
  type VisionSetup,
} from "../model/checkpoint/config/vision-setup.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { picturesOf } from "../model/prompt/prompt-image.ts";
import { siteInfo } from "../model/walk/site-info.ts";
import type { SiteName } from "../model/walk/sites.ts";
import type { PatchableModel } from "../patching/model.ts";
import { tap } from "../patching/tap.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkActivations, type GoldenActivation, readActivations } from "./activations.ts";
import { checkCanvasVision } from "./canvas-goldens.ts";
import type { CaseFolder } from "./case-folder.ts";
import type { Check } from "./checks.ts";
import { readQFormer } from "./qformer.ts";
import { checkTowerPositions } from "./tower-positions.ts";

/** The activations of the vision side: tower, what the projector reads and what it makes. */
export async function checkVision(
  folder: CaseFolder,
  name: string,
  prompts: readonly Prompt[],
  model: PatchableModel,
): Promise<Check[]> {
  const { goldens, tolerance } = folder;
  const { vision } = model.sites;
  const setup = model.config.vision;
  const places = prompts.flatMap((prompt) => prompt.images.map((_, image) => ({ prompt, image })));
  if (!vision || !setup || places.length === 0) return [];
  if (setup.processor.canvas) return await checkCanvasVision(folder, name, prompts, model);
  // An image a row of the goldens; where pictures are cut into tiles, a tile.
  const pieces = places.flatMap((place) => {
    const layout = setup.layout(picturesOf(place.prompt)[place.image]!);
    const counts = imageRowCounts(setup, place.prompt)[place.image]!;
    const { tiles = 1 } = layout;
    return Array.from({ length: tiles }, (_, tile): Piece => ({ ...place, layout, counts, tile, tiles }));
  });
  const rowsOf = (count: (layout: ImageLayout & ImageRowCounts) => number) =>
    pieces.map(({ layout, counts, tiles }) =>
      Array.from({ length: count({ ...layout, ...counts }) / tiles }, (_, i) => i),
    );
  const padded = paddedPatches(pieces);
  const ofTower = padded?.columns ?? rowsOf(({ towerRows }) => towerRows);
  const extent = padded && { extent: padded.extent };
  const { "projector.mlp": _, ...ofLatents } = resamplerNames(setup);
  const { sites } = model;
  const packed = setup.fixed === undefined && !setup.tiled && !setup.resampler;
  const shuffles = setup.shuffle !== undefined;
  const wanted = { sites, stack: "vision" as const, packed };
  const features = featureSite(setup);
  const activations = [
    ...(await readActivations(goldens, `${name}/`, ofTower, {
      ...wanted,
      ...extent,
      names: shuffles ? {} : { "projector.in": features },
    })),
    ...(await readActivations(
      goldens,
      `${name}/projector.`,
      packed
        ? pieces.map(({ layout: { tokens, order } }) => rowsBehind(tokens, order))
        : rowsOf(({ tileFeatures, tokens }) => tileFeatures ?? tokens),
      {
        ...wanted,
        names: {
          out: hasTileMap(setup) ? "tile_features" : "projector",
          ...(shuffles && { in: "pixel_shuffle", mlp: "projector" }),
          norm: "projector_norm",
        },
      },
    )),
    ...(await readActivations(
      goldens,
      `${name}/`,
      rowsOf(({ tokens }) => tokens),
      { ...wanted, stack: "text", ofImages: true },
    )),
    ...(await readActivations(
      goldens,
      `${name}/`,
      rowsOf((layout) => imageRowCount(layout, "latents")),
      { sites, stack: "resampler", names: ofLatents },
    )),
    ...(await readActivations(goldens, `${name}/projector.mlp`, ofTower, {
      sites,
      stack: "resampler",
      ...extent,
      names: { "": "resampler.in" },
    })),
    ...(await readQFormer(goldens, name, rowsOf, model)),
  ];
  const values: Float32Array[][] = [];
  for (const activation of activations) values.push(await valuesOf(activation, pieces, model));
  const pictures = prompts.flatMap(picturesOf);
  return [
    ...(padded ? await checkTowerPositions(goldens, name, pictures, padded.columns, setup) : []),
    ...checkActivations(activations, values, tolerance),
  ];
}

/** What the goldens call the sites of a resampler that is behind a projection. */
export function resamplerNames({ resampler }: VisionSetup): Record<string, SiteName> {
  if (!resampler?.projects) return {};
  const layers = Array.from({ length: resampler.layers }, (_, layer) => layer);
  return {
    ...Object.fromEntries(
      layers.map((layer): [string, SiteName] => [
        `projector.resid_post.${layer}`,
        `resampler.resid_post.${layer}`,
      ]),
    ),
    "projector.mlp": "resampler.in",
    "projector.out": "resampler.out",
  };
}

/** Where the goldens have the patches of pictures of unequal size, which are padded to the largest of a case. */
function paddedPatches(pieces: readonly Piece[]): { columns: number[][]; extent: number } | undefined {
  const grids = pieces.flatMap(({ layout, tile }) => layout.patchGrids?.[tile] ?? []);
  if (grids.length === 0) return undefined;
  const most = Math.max(...grids.map(({ columns }) => columns));
  const columns = grids.map(({ rows, columns }) =>
    Array.from({ length: rows * columns }, (_, i) => Math.floor(i / columns) * most + (i % columns)),
  );
  return { columns, extent: most * Math.max(...grids.map(({ rows }) => rows)) };
}

/** What the projector reads: a block's output, without the class token where that is dropped, or what a norm makes of it. */
export function featureSite({ featureLayer, postNorm }: VisionSetup): SiteName {
  if (postNorm) return "vision.post_norm";
  return featureLayer === 0 ? "vision.resid_pre.0" : `vision.resid_post.${featureLayer - 1}`;
}

/** An image of a prompt, or a tile of it. */
interface Piece {
  readonly prompt: Prompt;
  readonly image: number;
  readonly layout: ImageLayout;
  readonly counts: ImageRowCounts;
  readonly tile: number;
  readonly tiles: number;
}

/** Of a picture's features, the rows of the golden, which has them as the merger leaves them. */
export function rowsBehind(tokens: number, order?: readonly number[]): number[] {
  const rows = Array.from({ length: tokens }, (_, i) => i);
  order?.forEach((token, i) => {
    rows[token] = i;
  });
  return rows;
}

async function valuesOf(
  { site }: GoldenActivation,
  pieces: readonly Piece[],
  model: PatchableModel,
): Promise<Float32Array[]> {
  const values: Float32Array[] = [];
  const { rowsOf: counted, order } = siteInfo(model.sites, site);
  for (const { prompt, image, tile, tiles, layout } of pieces) {
    const stopAfter = Math.max(0, order);
    const { tapped } = model.run(prompt, { taps: { tapped: tap(site, "all", { image }) }, stopAfter });
    const all = (await (tapped as Tensor<"f32">).read()) as Float32Array;
    const counts = counted === "tower" ? tileRows(layout) : new Array<number>(tiles).fill(1);
    const before = (end: number) => counts.slice(0, end).reduce((sum, count) => sum + count, 0);
    const unit = all.length / before(tiles);
    values.push(all.subarray(before(tile) * unit, before(tile + 1) * unit));
    tapped.dispose();
  }
  return values;
}
