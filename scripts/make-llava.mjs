/**
 * Writes a checkpoint in the shape of LLaVA-1.5-7B with random weights: CLIP ViT-L/14 at 336 pixels, the projector, and
 * a Llama of full width with as many layers as asked for, in float16 shards under the published names. It is for
 * measuring; its answers mean nothing. The tokenizer is the small one of the test fixtures.
 *
 *   node scripts/make-llava.mjs <folder> [layers, default 32] [GB a shard, default 1]
 */
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeSafetensors } from "../dist/index.js";
import { writeWhole } from "../dist/platform/node-write.js";
import { root } from "./cache.mjs";
import { runScript, SetupError } from "./command.mjs";

const TOKENIZER = join(root, "test", "fixtures", "llava", "model");
const IMAGE_TOKEN_ID = 431;
const VOCABULARY = 32064;
const TEXT = { width: 4096, mlpWidth: 11008, heads: 32 };
const VISION = { width: 1024, mlpWidth: 4096, heads: 16, layers: 24, imageSize: 336, patchSize: 14 };

const PREPROCESSOR = {
  image_processor_type: "CLIPImageProcessor",
  do_convert_rgb: true,
  do_resize: true,
  size: { shortest_edge: VISION.imageSize },
  resample: 3,
  do_center_crop: true,
  crop_size: { height: VISION.imageSize, width: VISION.imageSize },
  do_rescale: true,
  rescale_factor: 1 / 255,
  do_normalize: true,
  image_mean: [0.48145466, 0.4578275, 0.40821073],
  image_std: [0.26862954, 0.26130258, 0.27577711],
};

const F16_ONE = 0x3c00;
/** Float16 numbers that all weights are cut from: uniform, up to 1/32 in size. */
const POOL = randomPool(2 ** 20, 1);

await runScript(async () => {
  const [folder, layers = "32", shardGigabytes = "1"] = process.argv.slice(2);
  if (!folder || !/^[1-9]\d*$/.test(layers) || !(Number(shardGigabytes) > 0)) {
    throw new SetupError("expected a folder, a number of layers and gigabytes a shard");
  }
  await mkdir(folder, { recursive: true });
  for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
    await writeWhole(join(folder, file), await readFile(join(TOKENIZER, file)));
  }
  await writeJson(join(folder, "config.json"), config(Number(layers)));
  await writeJson(join(folder, "preprocessor_config.json"), PREPROCESSOR);
  await writeShards(folder, tensors(Number(layers)), Number(shardGigabytes) * 1e9);
});

async function writeShards(folder, all, limit) {
  const shards = [[]];
  let size = 0;
  for (const tensor of all) {
    const bytes = byteLength(tensor.shape);
    if (size > 0 && size + bytes > limit) {
      shards.push([]);
      size = 0;
    }
    shards.at(-1).push(tensor);
    size += bytes;
  }
  const map = {};
  for (const [i, shard] of shards.entries()) {
    const file = `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
    for (const { name } of shard) map[name] = file;
    await writeWhole(join(folder, file), writeSafetensors(shard, { format: "pt" }));
    console.log(`${file}: ${shard.length} tensors`);
  }
  const total = all.reduce((sum, { shape }) => sum + byteLength(shape), 0);
  await writeJson(join(folder, "model.safetensors.index.json"), {
    metadata: { total_size: total },
    weight_map: map,
  });
}

function tensors(layers) {
  const { width, mlpWidth } = TEXT;
  return [
    ...visionTensors(),
    ...linear("multi_modal_projector.linear_1", width, VISION.width),
    ...linear("multi_modal_projector.linear_2", width, width),
    random("language_model.model.embed_tokens.weight", [VOCABULARY, width]),
    ...Array.from({ length: layers }, (_, i) => `language_model.model.layers.${i}.`).flatMap((layer) => [
      ...["q", "k", "v", "o"].map((name) => random(`${layer}self_attn.${name}_proj.weight`, [width, width])),
      random(`${layer}mlp.gate_proj.weight`, [mlpWidth, width]),
      random(`${layer}mlp.up_proj.weight`, [mlpWidth, width]),
      random(`${layer}mlp.down_proj.weight`, [width, mlpWidth]),
      ones(`${layer}input_layernorm.weight`, width),
      ones(`${layer}post_attention_layernorm.weight`, width),
    ]),
    ones("language_model.model.norm.weight", width),
    random("language_model.lm_head.weight", [VOCABULARY, width]),
  ];
}

function visionTensors() {
  const { width, mlpWidth, layers, imageSize, patchSize } = VISION;
  const prefix = "vision_tower.vision_model.";
  const embeddings = `${prefix}embeddings.`;
  return [
    random(`${embeddings}class_embedding`, [width]),
    random(`${embeddings}patch_embedding.weight`, [width, 3, patchSize, patchSize]),
    random(`${embeddings}position_embedding.weight`, [(imageSize / patchSize) ** 2 + 1, width]),
    ...norm(`${prefix}pre_layrnorm`, width),
    ...Array.from({ length: layers }, (_, i) => `${prefix}encoder.layers.${i}.`).flatMap((layer) => [
      ...["q", "k", "v", "out"].flatMap((name) => linear(`${layer}self_attn.${name}_proj`, width, width)),
      ...linear(`${layer}mlp.fc1`, mlpWidth, width),
      ...linear(`${layer}mlp.fc2`, width, mlpWidth),
      ...norm(`${layer}layer_norm1`, width),
      ...norm(`${layer}layer_norm2`, width),
    ]),
    ...norm(`${prefix}post_layernorm`, width),
  ];
}

function linear(name, out, into) {
  return [random(`${name}.weight`, [out, into]), random(`${name}.bias`, [out])];
}

function norm(name, width) {
  return [ones(`${name}.weight`, width), random(`${name}.bias`, [width])];
}

function random(name, shape) {
  return { name, stored: "F16", shape, data: () => randomChunks(name, byteLength(shape)) };
}

function ones(name, width) {
  return { name, stored: "F16", shape: [width], data: bytesOf(new Uint16Array(width).fill(F16_ONE)) };
}

/** Pieces of the pool, from places that the name decides. */
async function* randomChunks(name, bytes) {
  let state = [...name].reduce((hash, c) => Math.imul(hash ^ c.charCodeAt(0), 0x01000193), 0x811c9dc5);
  for (let left = bytes; left > 0; ) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const start = 2 * (state % (POOL.length / 4));
    const chunk = POOL.subarray(start, start + Math.min(left, POOL.length - start));
    left -= chunk.length;
    yield chunk;
  }
}

/** Uniform in sign, ten bits of fraction and the exponents below 2^-5, each half as likely as the next. */
function randomPool(count, seed) {
  let state = seed;
  const words = Uint16Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const exponent = 9 - Math.min(Math.clz32(state << 11), 8);
    return ((state >>> 31) << 15) | (exponent << 10) | ((state >>> 21) & 0x3ff);
  });
  return bytesOf(words);
}

function config(layers) {
  return {
    architectures: ["LlavaForConditionalGeneration"],
    model_type: "llava",
    torch_dtype: "float16",
    image_token_index: IMAGE_TOKEN_ID,
    projector_hidden_act: "gelu",
    vision_feature_layer: -2,
    vision_feature_select_strategy: "default",
    text_config: {
      model_type: "llama",
      hidden_size: TEXT.width,
      intermediate_size: TEXT.mlpWidth,
      num_attention_heads: TEXT.heads,
      num_key_value_heads: TEXT.heads,
      num_hidden_layers: layers,
      max_position_embeddings: 4096,
      rms_norm_eps: 1e-5,
      rope_theta: 10000,
      vocab_size: VOCABULARY,
      hidden_act: "silu",
    },
    vision_config: {
      model_type: "clip_vision_model",
      hidden_size: VISION.width,
      intermediate_size: VISION.mlpWidth,
      num_attention_heads: VISION.heads,
      num_hidden_layers: VISION.layers,
      image_size: VISION.imageSize,
      patch_size: VISION.patchSize,
    },
  };
}

function writeJson(path, value) {
  return writeWhole(path, `${JSON.stringify(value, null, 2)}\n`);
}

function byteLength(shape) {
  return 2 * shape.reduce((a, b) => a * b, 1);
}

function bytesOf(words) {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}

function number(i) {
  return String(i).padStart(5, "0");
}
