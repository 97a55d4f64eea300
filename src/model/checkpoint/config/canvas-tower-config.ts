import { CheckpointError } from "../../../errors.ts";
import { bestCanvas, type CanvasSettings, canvasesOf } from "../../../images/canvas-tiles.ts";
import { ConfigReader, type JsonObject } from "../json/config-reader.ts";
import { activationKind } from "./activation-kind.ts";
import { type EncoderConfig, requireWholeHeads } from "./encoder-config.ts";
import { requireNeutral } from "./neutral-fields.ts";
import type { ImageLayout, Picture, TowerConfig } from "./vision-setup.ts";

/**
 * What is read inside a tower of Llama 3.2 Vision: what enters the layers that the config names (as transformers 4 has it, and
 * Meta's own code, for which the published checkpoints were made), or what leaves them (transformers 5).
 */
export type IntermediateLayers = "inputs" | "outputs";

/** The vision transformer of Llama 3.2 Vision: all tiles of a picture at once, and a second, gated encoder on top. */
export interface CanvasTowerConfig extends EncoderConfig, TowerConfig {
  readonly kind: "mllama";
  /** Layers of the second encoder. */
  readonly globalLayers: number;
  /** Side of a tile in pixels. */
  readonly imageSize: number;
  /** Tiles that a picture may have; those that it has not are rows as well. */
  readonly tiles: number;
  /** Rows of a tile: its patches and a class token in front; and with the rows of padding behind them. */
  readonly tileRows: number;
  readonly paddedRows: number;
  /** Numbers of the layers of the first encoder that are read. */
  readonly intermediate: readonly number[];
  readonly intermediateLayers: IntermediateLayers;
}

/** Where a vision_config is silent: Hugging Face's MllamaVisionConfig. */
const DEFAULTS = {
  hidden_size: 1280,
  hidden_act: "gelu",
  num_hidden_layers: 32,
  num_global_layers: 8,
  attention_heads: 16,
  num_channels: 3,
  intermediate_size: 5120,
  vision_output_dim: 7680,
  image_size: 448,
  patch_size: 14,
  norm_eps: 1e-5,
  max_num_tiles: 4,
  intermediate_layers_indices: [3, 7, 15, 23, 30],
};
/** Tiles are padded to a multiple of so many rows. */
const MULTIPLE = 8;

/** Reads a vision_config. Throws CheckpointError for what is not supported, by the field's name. */
export function readCanvasTower(
  values: JsonObject,
  intermediateLayers: IntermediateLayers,
  where: string,
): CanvasTowerConfig {
  requireNeutral(values, where);
  const given = Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null));
  const c = new ConfigReader({ ...DEFAULTS, ...given }, where);
  const type = c.string("model_type", "mllama_vision_model");
  if (type !== "mllama_vision_model") {
    throw new CheckpointError(
      `${where}: vision towers of model_type ${JSON.stringify(type)} are not supported; supported is mllama_vision_model`,
    );
  }
  const channels = c.count("num_channels");
  if (channels !== 3)
    throw new CheckpointError(`${where}: num_channels ${channels} is not supported; expected 3`);
  const [layers, width] = [c.count("num_hidden_layers"), c.count("hidden_size")];
  const heads = c.count("num_attention_heads", c.count("attention_heads"));
  if ("attention_heads" in given && c.count("attention_heads") !== heads) {
    throw new CheckpointError(
      `${where}: attention_heads is ${c.count("attention_heads")}, but num_attention_heads ${heads}`,
    );
  }
  requireWholeHeads({ width, heads }, where, ["hidden_size", "attention_heads"]);
  const [imageSize, patchSize, tiles] = [
    c.count("image_size"),
    c.count("patch_size"),
    c.count("max_num_tiles"),
  ];
  const tileRows = Math.floor(imageSize / patchSize) ** 2 + 1;
  if (tileRows % MULTIPLE === 0) {
    throw new CheckpointError(
      `${where}: an image_size of ${imageSize} in patches (patch_size) of ${patchSize} is not supported: with the class token a tile has ` +
        `${tileRows} rows, a multiple of ${MULTIPLE}, which transformers takes for padding altogether`,
    );
  }
  const intermediate = c.value("intermediate_layers_indices");
  if (
    !Array.isArray(intermediate) ||
    !intermediate.every((i) => Number.isSafeInteger(i) && i >= 0 && i < layers)
  ) {
    throw new CheckpointError(
      `${where}: expected intermediate_layers_indices to be numbers of the ${layers} layers (num_hidden_layers), ` +
        `found ${JSON.stringify(intermediate)}`,
    );
  }
  const outWidth = c.count("vision_output_dim");
  if (outWidth !== width * (1 + intermediate.length)) {
    throw new CheckpointError(
      `${where}: expected vision_output_dim to be ${width * (1 + intermediate.length)}, hidden_size for the last layer and for each of ` +
        `intermediate_layers_indices, found ${outWidth}`,
    );
  }
  requireCanvases(c, tiles, where);
  return {
    kind: "mllama",
    ...{ layers, width, heads, imageSize, patchSize, tiles, tileRows, intermediate, intermediateLayers },
    globalLayers: c.count("num_global_layers"),
    mlpWidth: c.count("intermediate_size"),
    normEps: c.number("norm_eps"),
    activation: activationKind(c.string("hidden_act"), where),
    paddedRows: Math.ceil(tileRows / MULTIPLE) * MULTIPLE,
  };
}

/** `supported_aspect_ratios` has to be what the processor numbers them by. */
function requireCanvases(c: ConfigReader, tiles: number, where: string): void {
  const expected = JSON.stringify(canvasesOf(tiles).map(({ rows, columns }) => [rows, columns]));
  const found = JSON.stringify(
    c.value("supported_aspect_ratios") ?? canvasesOf(4).map(({ rows, columns }) => [rows, columns]),
  );
  if (found === expected) return;
  throw new CheckpointError(
    `${where}: expected supported_aspect_ratios to be all of up to ${tiles} tiles (max_num_tiles), ${expected}, found ${found}`,
  );
}

/** A picture as the tower takes it. */
export interface CanvasPicture {
  /** Of its canvas; 0 for a picture that is none, which transformers fills up batches with. */
  readonly id: number;
  /** Tiles that it has. */
  readonly tiles: number;
  /** Tiles that count as its own: the first one of a picture that is none. */
  readonly own: number;
}

export function canvasPicture(
  picture: Picture,
  { canvas }: { readonly canvas: CanvasSettings },
): CanvasPicture {
  const size = "shape" in picture ? picture.tiling : picture;
  if (!size || size.width === 0) return { id: 0, tiles: 0, own: 1 };
  const { rows, columns } = bestCanvas(size, canvas);
  const id = 1 + canvasesOf(canvas.most).findIndex((each) => each.rows === rows && each.columns === columns);
  return { id, tiles: rows * columns, own: rows * columns };
}

/** Rows of every picture; those of the tiles that it has come first. */
export function canvasLayout({ tiles, own, id }: CanvasPicture, tower: CanvasTowerConfig): ImageLayout {
  const lie = canvasesOf(tower.tiles)[id - 1];
  const side = tower.imageSize / tower.patchSize;
  return {
    towerRows: tower.tiles * tower.paddedRows,
    tokens: id === 0 ? 0 : 1,
    latents: tower.tiles * tower.tileRows,
    ownLatents: own * tower.tileRows,
    tiles,
    ...(lie && { canvas: { tiles: lie, each: { rows: side, columns: side } } }),
  };
}
