import { CheckpointError } from "../../../errors.ts";
import { readLlamaConfig } from "../../checkpoint/config/decoder-config.ts";
import type { PatchTowerFields } from "../../checkpoint/config/patch-tower-config.ts";
import { ropeParameters } from "../../checkpoint/config/rope-config.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import { plainMlp } from "../../layers/mlp.ts";
import { readLayerNorm } from "../../layers/norm.ts";
import { full } from "../../walk/masks.ts";
import type { Family } from "../family.ts";
import { llavaImageRules } from "./llava.ts";
import {
  buildQwenVl,
  plainRope,
  type QwenVlConfig,
  readQwenVlConfig,
  readSections,
  TOWER_EPS,
} from "./qwen2-vl.ts";

interface DeepstackConfig extends QwenVlConfig {
  /** Entries of the tower's table of positions. */
  readonly positions: number;
  /** Blocks of the tower whose output goes to the first layers of the language model, in order. */
  readonly deepstackBlocks: readonly number[];
}

/** Values that Hugging Face's Qwen3VLTextConfig has where a config.json is silent. */
const TEXT_DEFAULTS = {
  vocab_size: 151936,
  hidden_size: 4096,
  intermediate_size: 22016,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 32,
  head_dim: 128,
  hidden_act: "silu",
  max_position_embeddings: 128000,
  rms_norm_eps: 1e-6,
  attention_bias: false,
  tie_word_embeddings: false,
};

/** Values that Hugging Face's Qwen3VLVisionConfig has where a vision_config is silent. */
const VISION_DEFAULTS = {
  depth: 27,
  hidden_size: 1152,
  hidden_act: "gelu_pytorch_tanh",
  intermediate_size: 4304,
  num_heads: 16,
  in_channels: 3,
  patch_size: 16,
  spatial_merge_size: 2,
  temporal_patch_size: 2,
  out_hidden_size: 3584,
  num_position_embeddings: 2304,
  deepstack_visual_indexes: [8, 16, 24],
};

const TOWER: PatchTowerFields = {
  kind: "qwen3_vl",
  defaults: VISION_DEFAULTS,
  width: "hidden_size",
  outWidth: "out_hidden_size",
  mlpWidth: (c) => c.count("intermediate_size"),
};

function readText(values: JsonObject, where: string): Omit<QwenVlConfig, "vision"> {
  const heads = values["num_attention_heads"] ?? TEXT_DEFAULTS.num_attention_heads;
  const given = {
    rope_theta: 500000,
    ...values,
    ...plainRope(values),
    ...(values["num_key_value_heads"] === null && { num_key_value_heads: heads }),
  };
  const decoder = readLlamaConfig(given, { defaults: TEXT_DEFAULTS, attentionBias: true }, where);
  const { mrope_interleaved: interleaved = true } = ropeParameters(given);
  if (interleaved !== true) {
    throw new CheckpointError(
      `${where}: mrope_interleaved ${JSON.stringify(interleaved)} is not supported; expected true`,
    );
  }
  const [, row, column] = readSections(given, decoder.headDim, where, [24, 20, 20]) as [
    number,
    number,
    number,
  ];
  // Rows and columns have every third frequency, as far as their sections go.
  const axes = Array.from({ length: decoder.headDim / 2 }, (_, i) =>
    i % 3 === 1 && i < 3 * row ? 1 : i % 3 === 2 && i < 3 * column ? 2 : 0,
  );
  return { ...decoder, qkNorm: true, axes };
}

/** `deepstack_visual_indexes`, of so many blocks, for so many layers. */
function readBlocks(c: ConfigReader, blocks: number, layers: number, where: string): readonly number[] {
  const found = c.value("deepstack_visual_indexes");
  const fits =
    Array.isArray(found) &&
    found.every(
      (block, i) => Number.isSafeInteger(block) && block < blocks && block > (i === 0 ? -1 : found[i - 1]),
    );
  if (!fits) {
    throw new CheckpointError(
      `${where}: expected deepstack_visual_indexes to be numbers of the ${blocks} blocks (depth) in order, ` +
        `found ${JSON.stringify(found)}`,
    );
  }
  if (found.length < layers) return found;
  throw new CheckpointError(
    `${where}: expected deepstack_visual_indexes to be fewer than the language model's ${layers} layers ` +
      `(num_hidden_layers), found ${found.length}`,
  );
}

/**
 * Qwen3-VL (Bai et al. 2025, arXiv 2511.21631): a vision transformer over pictures of any size, blocks of 2 by 2 patches merged
 * into a feature each, and Qwen 3 turned by time, row and column in turns. Features of inner blocks of the tower are added to
 * the stream behind the first layers (DeepStack).
 */
export const qwen3Vl: Family<DeepstackConfig> = {
  modelType: "qwen3_vl",
  readConfig(config, where, files) {
    const read = readQwenVlConfig(config, where, files, TOWER, readText);
    const inVision = `${where}: vision_config`;
    const given = new ConfigReader(config, where).object("vision_config");
    const c = new ConfigReader({ ...VISION_DEFAULTS, ...given }, inVision);
    const positions = c.count("num_position_embeddings");
    if (!Number.isInteger(Math.sqrt(positions))) {
      throw new CheckpointError(
        `${inVision}: expected num_position_embeddings to be a square, found ${positions}`,
      );
    }
    const deepstackBlocks = readBlocks(c, read.vision.tower.layers, read.layers, inVision);
    const vision = { ...read.vision, deepstack: deepstackBlocks.length };
    return { ...read, positions, deepstackBlocks, vision };
  },
  imageRules: (config) => llavaImageRules(config.vision),
  build(w, config) {
    const { width, mlpWidth, activation } = config.vision.tower;
    return buildQwenVl(w, config, {
      merger: { norm: "norm", in: "linear_fc1", out: "linear_fc2" },
      patchBias: true,
      positions: config.positions,
      deepstack: config.deepstackBlocks,
      norm: (name, rows) => readLayerNorm(w, name, rows, TOWER_EPS),
      async mlp(prefix) {
        const weights = {
          in: await w.linear(`${prefix}linear_fc1`, [mlpWidth, width], true),
          out: await w.linear(`${prefix}linear_fc2`, [width, mlpWidth], true),
        };
        return plainMlp(weights, activation);
      },
      rule: () => full,
    });
  },
};
