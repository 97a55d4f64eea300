import { CheckpointError } from "../../../errors.ts";
import type { PatchTowerConfig, PatchTowerFields } from "../../checkpoint/config/patch-tower-config.ts";
import type { Picture } from "../../checkpoint/config/vision-setup.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import { gatedMlp } from "../../layers/mlp.ts";
import { readRmsNorm } from "../../layers/norm.ts";
import type { PatchGrid } from "../../prompt/prompt.ts";
import { type AttentionRule, full } from "../../walk/masks.ts";
import type { Family } from "../family.ts";
import { llavaImageRules } from "./llava.ts";
import { buildQwenVl, QWEN2_MERGER, type QwenVlConfig, readQwenVlConfig, TOWER_EPS } from "./qwen2-vl.ts";

interface WindowedConfig extends QwenVlConfig {
  /** Blocks of the tower that attend to the whole picture; the others only within windows. */
  readonly fullBlocks: readonly number[];
  windowsOf(picture: Picture): Windows;
}

/** The features of a picture by windows. */
interface Windows {
  /** Numbers of the features, window by window. */
  readonly order: readonly number[];
  /** For each of these, where its window begins and ends in that order. */
  readonly bounds: readonly (readonly [start: number, end: number])[];
}

/** Values that Hugging Face's Qwen2_5_VLVisionConfig has where a vision_config is silent. */
const DEFAULTS = {
  depth: 32,
  hidden_size: 3584,
  hidden_act: "silu",
  intermediate_size: 3420,
  num_heads: 16,
  in_channels: 3,
  patch_size: 14,
  spatial_merge_size: 2,
  temporal_patch_size: 2,
  window_size: 112,
  out_hidden_size: 3584,
  fullatt_block_indexes: [7, 15, 23, 31],
};

const TOWER: PatchTowerFields = {
  kind: "qwen2_5_vl",
  defaults: DEFAULTS,
  width: "hidden_size",
  outWidth: "out_hidden_size",
  mlpWidth: (c) => c.count("intermediate_size"),
};

/**
 * Qwen2.5-VL (Bai et al. 2025, arXiv 2502.13923): Qwen2-VL with a tower like Llama's, most of whose blocks attend within
 * windows. The tower's rows are in the order of the windows.
 */
export const qwen25Vl: Family<WindowedConfig> = {
  modelType: "qwen2_5_vl",
  readConfig(config, where, files) {
    const read = readQwenVlConfig(config, where, files, TOWER);
    const { vision } = read;
    const given = new ConfigReader(config, where).object("vision_config");
    const windows = readWindows(given, vision.tower, `${where}: vision_config`);
    const windowsOf = (picture: Picture) => windows.of(vision.layout(picture).grid!);
    const layout = (picture: Picture) => ({ ...vision.layout(picture), order: windowsOf(picture).order });
    return { ...read, fullBlocks: windows.fullBlocks, windowsOf, vision: { ...vision, layout } };
  },
  imageRules: (config) => llavaImageRules(config.vision),
  build(w, config) {
    const { width, mlpWidth, activation } = config.vision.tower;
    const windowed = windowRule(config);
    return buildQwenVl(w, config, {
      merger: QWEN2_MERGER,
      norm: (name, width) => readRmsNorm(w, name, width, { eps: TOWER_EPS }),
      async mlp(prefix) {
        const weights = {
          gate: await w.linear(`${prefix}gate_proj`, [mlpWidth, width], true),
          up: await w.linear(`${prefix}up_proj`, [mlpWidth, width], true),
          down: await w.linear(`${prefix}down_proj`, [width, mlpWidth], true),
        };
        return gatedMlp(weights, activation);
      },
      rule: (index) => (config.fullBlocks.includes(index) ? full : windowed),
    });
  },
};

function readWindows(vision: JsonObject, { patches }: PatchTowerConfig, where: string) {
  const c = new ConfigReader({ ...DEFAULTS, ...vision }, where);
  const size = c.count("window_size");
  const side = Math.floor(Math.floor(size / patches.merge) / patches.size);
  if (side < 1) {
    throw new CheckpointError(
      `${where}: expected window_size to be ${patches.merge * patches.size} pixels or more, found ${size}`,
    );
  }
  const fullBlocks = c.value("fullatt_block_indexes");
  if (!Array.isArray(fullBlocks) || !fullBlocks.every((index) => Number.isSafeInteger(index))) {
    throw new CheckpointError(
      `${where}: expected fullatt_block_indexes to be numbers of blocks, found ${JSON.stringify(fullBlocks)}`,
    );
  }
  const known = new Map<string, Windows>();
  const of = (grid: PatchGrid) => {
    const key = `${grid.rows} ${grid.columns}`;
    const found = known.get(key) ?? windowsIn(grid, side);
    known.set(key, found);
    return found;
  };
  return { of, fullBlocks: fullBlocks as readonly number[] };
}

/** Windows of `side` by `side` features, row by row; those at the far edges are smaller. */
function windowsIn({ rows, columns }: PatchGrid, side: number): Windows {
  const order: number[] = [];
  const bounds: [number, number][] = [];
  for (let top = 0; top < rows; top += side) {
    for (let left = 0; left < columns; left += side) {
      const start = order.length;
      for (let row = top; row < Math.min(top + side, rows); row++) {
        for (let column = left; column < Math.min(left + side, columns); column++) {
          order.push(row * columns + column);
        }
      }
      while (bounds.length < order.length) bounds.push([start, order.length]);
    }
  }
  return { order, bounds };
}

/** Within the window. */
function windowRule({ windowsOf, vision }: WindowedConfig): AttentionRule {
  const patches = vision.tower.patches.merge ** 2; // of a feature
  return (position, { image }) => {
    const [start, end] = windowsOf(image!).bounds[Math.floor(position / patches)]!;
    return { start: start * patches, end: end * patches };
  };
}
