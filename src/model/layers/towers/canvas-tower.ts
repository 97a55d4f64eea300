import type { CanvasProcessorSettings } from "../../../images/processors/canvas-processor-config.ts";
import { add, mul, sub, tanh } from "../../../kernels/elementwise/elementwise.ts";
import { patchEmbedding } from "../../../kernels/matmul/patch-embedding.ts";
import { concat, stack } from "../../../kernels/movement/concat.ts";
import { cast } from "../../../kernels/movement/copy.ts";
import { gatherRows } from "../../../kernels/movement/gather.ts";
import type { Device } from "../../../tensor/device.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import {
  type CanvasPicture,
  type CanvasTowerConfig,
  canvasPicture,
} from "../../checkpoint/config/canvas-tower-config.ts";
import type { Picture } from "../../checkpoint/config/vision-setup.ts";
import type { PromptImage } from "../../prompt/prompt-image.ts";
import { passOverImages } from "../../walk/input-passes.ts";
import type { AttentionRule } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import type { Walk } from "../../walk/site-events.ts";
import type { Stack } from "../../walk/stack.ts";
import type { Norm } from "../norm.ts";
import { uploadImages } from "./upload-images.ts";

export interface CanvasTowerWeights {
  /** [width, 3 * patch * patch] */
  readonly patchWeight: Tensor;
  /** [width] */
  readonly classEmbedding: Tensor;
  /** By canvas and tile, [(canvases + 1) * tiles, width], added to patches and behind the first encoder; each with its gate, [1]. */
  readonly preTile: Gated;
  readonly postTile: Gated;
  /** By row of a tile, [tileRows, width]; the share of those by canvas, tile and row is its gate. */
  readonly positions: Tensor;
  /** [(canvases + 1) * tiles * tileRows, width] */
  readonly tilePositions: Gated;
  readonly preNorm: Norm;
  readonly stack: Stack;
  readonly postNorm: Norm;
  /** The second encoder. */
  readonly global: Stack;
}

interface Gated {
  readonly table: Tensor;
  readonly gate: Tensor;
}

/**
 * Which rows attend to which: those of the tiles that a picture has to all, padding and tiles that it has not as well; the
 * latter, which come last, to the former only.
 */
export function ownAndPadding(tower: CanvasTowerConfig, processor: CanvasProcessorSettings): AttentionRule {
  const all = tower.tiles * tower.paddedRows;
  return (position, { image }) => {
    const own = canvasPicture(image!, processor).own * tower.tileRows;
    return { start: 0, end: position < own ? all : own };
  };
}

/**
 * The vision transformer of Llama 3.2 Vision (Grattafiori et al. 2024, arXiv 2407.21783): patches of all tiles of a picture at
 * once, padding and missing tiles included, then a second, gated encoder. A sequence a picture: the rows of its own tiles, tile by
 * tile, then all padding.
 */
export class CanvasTower {
  readonly config: CanvasTowerConfig;
  readonly processor: CanvasProcessorSettings;
  readonly #w: CanvasTowerWeights;

  constructor(config: CanvasTowerConfig, processor: CanvasProcessorSettings, weights: CanvasTowerWeights) {
    this.config = config;
    this.processor = processor;
    this.#w = weights;
  }

  /**
   * Pictures → [pictures * tiles * tileRows, width * (1 + layers read)]: what leaves the second encoder, then for each channel
   * what is read of the first one, layer by layer. Without padding, tile by tile. Site: vision.features, beside those of both encoders.
   */
  *features(images: readonly PromptImage[], pass: Pass): Walk<Tensor> {
    const { tiles, paddedRows, tileRows, intermediate, intermediateLayers } = this.config;
    const pictures = images.map((image) => canvasPicture(image, this.processor));
    const rowsOf = () => tiles * paddedRows;
    const own = passOverImages(pass, rowsOf);
    const embedded = yield* own.sites().pass(
      "vision.embed",
      pass.device.scope(() => this.#embed(images, pictures, pass)),
    );
    const inside = new Map<number, Tensor>();
    const behind = intermediateLayers === "outputs" ? 1 : 0;
    const x = yield* this.#w.stack.run(embedded, own, {
      onStream(index, stream) {
        if (intermediate.includes(index - behind)) inside.set(index - behind, stream.alias());
      },
    });
    const normed = yield* own.sites().pass("vision.post_norm", this.#w.postNorm(x));
    const { table, gate } = this.#w.postTile;
    const places = pictures.flatMap((picture) =>
      this.#rows(picture).map(({ tile }) => picture.id * tiles + tile),
    );
    const placed = add(normed, mul(take(table, places), tanh(cast(gate, "f32"))));
    const wide = passOverImages(pass, rowsOf, { prefix: "vision.global." });
    const last = yield* this.#w.global.run(placed, wide);
    const kept = pictures.flatMap((picture, i) => {
      const rows = this.#rows(picture);
      const where = new Map(rows.map(({ tile, row }, at) => [tile * paddedRows + row, i * rowsOf() + at]));
      return Array.from(
        { length: tiles * tileRows },
        (_, at) => where.get(Math.floor(at / tileRows) * paddedRows + (at % tileRows))!,
      );
    });
    const layers = intermediate.map((layer) => take(inside.get(layer)!, kept)); // each [rows, width]
    const rows = kept.length;
    const read =
      layers.length === 0 ? [] : [stack(layers, -1).reshape([rows, layers.length * this.config.width])];
    const features = concat([take(last, kept), ...read], 1);
    return yield* passOverImages(pass, () => tiles * tileRows)
      .sites()
      .pass("vision.features", features);
  }

  /** The rows of a picture: which tile and which row of it, padding included. */
  #rows({ own }: CanvasPicture): { tile: number; row: number }[] {
    const { tiles, tileRows, paddedRows } = this.config;
    const all = Array.from({ length: tiles * paddedRows }, (_, i) => ({
      tile: Math.floor(i / paddedRows),
      row: i % paddedRows,
    }));
    const isOwn = ({ tile, row }: { tile: number; row: number }) => tile < own && row < tileRows;
    return [...all.filter(isOwn), ...all.filter((each) => !isOwn(each))];
  }

  /** What enters the first block: patches and class tokens with positions, normed, and zeros for padding: [rows, width]. */
  #embed(images: readonly Picture[], pictures: readonly CanvasPicture[], pass: Pass): Tensor {
    const { width, tiles, tileRows, patchSize, paddedRows } = this.config;
    const { patchWeight, classEmbedding, preTile, positions, tilePositions, preNorm } = this.#w;
    const { device } = pass;
    const patches = tileRows - 1;
    const zero = device.zeros([1, width]);
    const embedded = this.#patches(images, pictures, pass, patchWeight, patchSize);
    const count = embedded?.dim(0) ?? 0;
    const source = concat([
      ...(embedded ? [embedded] : []),
      cast(classEmbedding, "f32").reshape([1, width]),
      zero,
    ]);
    const each: { id: number; tile: number; row: number; from: number }[] = [];
    let first = 0; // patch of the picture
    for (const { id, tiles: own } of pictures) {
      for (let tile = 0; tile < tiles; tile++) {
        for (let row = 0; row < tileRows; row++) {
          const from = row === 0 ? count : tile < own ? first + tile * patches + row - 1 : count + 1;
          each.push({ id, tile, row, from });
        }
      }
      first += own * patches;
    }
    const share = tanh(cast(tilePositions.gate, "f32"));
    const byTile = take(
      preTile.table,
      each.map(({ id, tile }) => id * tiles + tile),
    );
    const isPatch = device.tensor(
      Float32Array.from(each, ({ row }) => (row === 0 ? 0 : 1)),
      { shape: [each.length, 1] },
    );
    const parts = [
      take(
        source,
        each.map(({ from }) => from),
      ),
      mul(mul(byTile, isPatch), tanh(cast(preTile.gate, "f32"))),
      mul(
        take(
          positions,
          each.map(({ row }) => row),
        ),
        sub(1, share),
      ),
      mul(
        take(
          tilePositions.table,
          each.map(({ id, tile, row }) => (id * tiles + tile) * tileRows + row),
        ),
        share,
      ),
    ];
    const normed = preNorm(parts.reduce((sum, part) => add(sum, part)));
    const order = pictures.flatMap((picture, i) =>
      this.#rows(picture).map(({ tile, row }) =>
        row < tileRows ? (i * tiles + tile) * tileRows + row : each.length,
      ),
    );
    if (paddedRows === tileRows) return take(normed, order);
    return take(concat([normed, zero]), order);
  }

  /** The patches of the tiles that pictures have: [tiles * patches, width]; undefined where there is no tile. */
  #patches(
    images: readonly Picture[],
    pictures: readonly CanvasPicture[],
    pass: Pass,
    weight: Tensor,
    patchSize: number,
  ): Tensor | undefined {
    const { imageSize } = this.config;
    if (pictures.every(({ tiles }) => tiles === 0)) return undefined;
    const counts = new Map(images.map((image, i) => [image, pictures[i]!.tiles]));
    const pixels = uploadImages(
      pass.device,
      images,
      { imageSize, channels: 3 },
      this.processor,
      (image) => counts.get(image)!,
    );
    return patchEmbedding(pass.pixels(pixels), weight, patchSize);
  }
}

/** Rows of a table: f32 [rows, width]. */
function take(table: Tensor, rows: readonly number[]): Tensor {
  return gatherRows(table, ids(table.device, rows));
}

function ids(device: Device, rows: readonly number[]): Tensor {
  return device.tensor(Uint32Array.from(rows), { dtype: "u32" });
}
