import { CheckpointError, ImageError } from "../../../errors.ts";
import { pieceSizes } from "../../../images/preprocess.ts";
import { readIdefics2ProcessorConfig } from "../../../images/processors/idefics2-processor-config.ts";
import type { ProcessorSettings, Size } from "../../../images/processors/processor-config.ts";
import { gatedActivation } from "../../../kernels/elementwise/activation.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import { activationKind } from "../../checkpoint/config/activation-kind.ts";
import type { LlamaConfig } from "../../checkpoint/config/decoder-config.ts";
import { requireWholeHeads } from "../../checkpoint/config/encoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import type {
  ImageLayout,
  Picture,
  ResamplerConfig,
  VisionSetup,
} from "../../checkpoint/config/vision-setup.ts";
import { ConfigReader, isObject, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { ImageDecoder } from "../../layers/bridges/image-decoder.ts";
import { Resampler, resamplerBlock } from "../../layers/bridges/resampler.ts";
import { gatedMlp } from "../../layers/mlp.ts";
import { readRmsNorm } from "../../layers/norm.ts";
import { type NativeSizeTowerConfig, readNativeSizeTower } from "../../layers/towers/native-size-tower.ts";
import { passOverImages } from "../../walk/input-passes.ts";
import { type Block, Stack } from "../../walk/stack.ts";
import type { Family, FamilyFiles } from "../family.ts";
import { mistral } from "../text/mistral.ts";
import { FAKE_TOKEN, IMAGE_TOKEN } from "./parts/idefics-images.ts";
import { idefics2ImageRules } from "./parts/idefics2-images.ts";
import { requirePreprocessor } from "./parts/llava-parts.ts";

interface Perceiver extends ResamplerConfig {
  readonly normEps: number;
  readonly activation: LlamaConfig["activation"];
}

interface Idefics2Setup extends VisionSetup<NativeSizeTowerConfig> {
  readonly resampler: Perceiver;
}

interface Idefics2Config extends LlamaConfig {
  readonly vision: Idefics2Setup;
}

/** Values that Hugging Face's classes have where a config.json is silent; those of the text only where it has no text_config. */
const TEXT_DEFAULTS: JsonObject = {
  model_type: "mistral",
  max_position_embeddings: 32768,
  rms_norm_eps: 1e-5,
};
const VISION_DEFAULTS = {
  hidden_size: 768,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  num_channels: 3,
  image_size: 224,
  patch_size: 32,
  hidden_act: "gelu_pytorch_tanh",
  layer_norm_eps: 1e-6,
};
const PERCEIVER_DEFAULTS = {
  hidden_act: "silu",
  hidden_size: 4096,
  rms_norm_eps: 1e-6,
  resampler_n_latents: 64,
  resampler_depth: 3,
  resampler_n_heads: 16,
  resampler_head_dim: 96,
  num_key_value_heads: 4,
};
/** Pieces of a picture that the processor splits: its quarters, and the whole. */
const PIECES = 5;

function readConfig(config: JsonObject, where: string, files: FamilyFiles): Idefics2Config {
  requireNeutral(config, where);
  const c = new ConfigReader(config, where);
  const text = c.has("text_config") ? c.object("text_config") : TEXT_DEFAULTS;
  const type = text["model_type"] ?? "mistral";
  if (type !== "mistral") {
    throw new CheckpointError(
      `${where}: Idefics 2 over ${JSON.stringify(type)} is not supported; supported is mistral`,
    );
  }
  // Either of the two ties.
  const tied = c.boolean("tie_word_embeddings", false) || (text["tie_word_embeddings"] ?? false);
  const decoder = mistral.readConfig(
    { ...text, tie_word_embeddings: tied },
    `${where}: text_config`,
    files,
  ) as LlamaConfig;
  const tower = readTower(c.object("vision_config"), `${where}: vision_config`);
  const resampler = readPerceiver(c.object("perceiver_config"), decoder, `${where}: perceiver_config`);
  const imageTokenId = c.count("image_token_id", 32001, 0);
  checkTokens(imageTokenId, resampler, where, files);
  // Its processor converts pictures by PIL alone, before the image processor sees them.
  const processor = { ...readIdefics2ProcessorConfig(requirePreprocessor(files, where)), opaque: true };
  const vision: Idefics2Setup = {
    tower,
    imageTokenId,
    imageToken: IMAGE_TOKEN,
    featureLayer: tower.layers,
    postNorm: true,
    resampler,
    layout: layouts(tower, resampler, processor),
    processor,
  };
  return { ...decoder, vision };
}

function readTower(values: JsonObject, where: string): NativeSizeTowerConfig {
  requireNeutral(values, where);
  const c = new ConfigReader({ ...VISION_DEFAULTS, ...values }, where);
  const patchSize = c.count("patch_size");
  const imageSize = c.count("image_size");
  const channels = c.count("num_channels");
  if (channels !== 3) {
    throw new CheckpointError(`${where}: num_channels ${channels} is not supported; expected 3`);
  }
  if (imageSize < patchSize) {
    throw new CheckpointError(
      `${where}: expected an image_size of at least a patch (patch_size ${patchSize}), found ${imageSize}`,
    );
  }
  const tower: NativeSizeTowerConfig = {
    kind: "idefics2",
    layers: c.count("num_hidden_layers"),
    width: c.count("hidden_size"),
    heads: c.count("num_attention_heads"),
    mlpWidth: c.count("intermediate_size"),
    normEps: c.number("layer_norm_eps"),
    activation: activationKind(c.string("hidden_act"), where),
    patchSize,
    channels,
    positionsPerSide: Math.floor(imageSize / patchSize),
  };
  requireWholeHeads(tower, where);
  return tower;
}

function readPerceiver(values: JsonObject, text: LlamaConfig, where: string): Perceiver {
  requireNeutral(values, where);
  const c = new ConfigReader({ ...PERCEIVER_DEFAULTS, ...values }, where);
  const heads = c.count("resampler_n_heads");
  const kvHeads = c.count("num_key_value_heads");
  if (heads % kvHeads !== 0) {
    throw new CheckpointError(
      `${where}: ${heads} heads (resampler_n_heads) cannot share ${kvHeads} key-value heads (num_key_value_heads)`,
    );
  }
  const eps = c.number("rms_norm_eps");
  return {
    layers: c.count("resampler_depth"),
    latents: c.count("resampler_n_latents"),
    width: text.width,
    heads,
    kvHeads,
    headDim: c.count("resampler_head_dim"),
    mlpWidth: 4 * text.width,
    qkNorm: false,
    projects: true,
    // Of another width it is taken for one that was left out, and so is its eps.
    normEps: c.count("hidden_size") === text.width ? eps : text.normEps,
    activation: activationKind(c.string("hidden_act"), where),
  };
}

/** Throws CheckpointError unless tokenizer, processor and config mean the same by a picture in a text. */
function checkTokens(
  id: number,
  { latents }: ResamplerConfig,
  where: string,
  { idOf, specialTokens = {}, processor }: FamilyFiles,
): void {
  const own = idOf(IMAGE_TOKEN);
  if (own !== id) {
    throw new CheckpointError(
      `${where}: expected image_token_id to be the tokenizer's ${IMAGE_TOKEN}, ${own ?? "which it lacks"}, found ${id}`,
    );
  }
  if (idOf(FAKE_TOKEN) === undefined) {
    throw new CheckpointError(`${where}: the tokenizer beside it has no token ${FAKE_TOKEN}`);
  }
  const named = { image_token: IMAGE_TOKEN, image_boundary_token: FAKE_TOKEN };
  for (const [field, token] of Object.entries(named)) {
    const found = specialTokens[field] ?? token;
    if (found === token) continue;
    throw new CheckpointError(
      `${where}: expected ${field} of tokenizer_config.json to be ${token}, found ${JSON.stringify(found)}`,
    );
  }
  const said = isObject(processor) ? (processor["image_seq_len"] ?? latents) : latents;
  if (said !== latents) {
    throw new CheckpointError(
      `${where}: expected image_seq_len of processor_config.json to be ${latents} (resampler_n_latents of perceiver_config), found ${JSON.stringify(said)}`,
    );
  }
}

/** How pictures of any size go through the model, each with its quarters if the processor splits it. */
function layouts(
  { patchSize }: NativeSizeTowerConfig,
  { latents }: ResamplerConfig,
  processor: ProcessorSettings,
): (picture: Picture) => ImageLayout {
  const known = new WeakMap<Picture, ImageLayout>();
  return (picture) => {
    const found = known.get(picture);
    if (found) return found;
    const patchGrids = sizesOf(picture, processor).map(({ width, height }) => {
      const grid = { rows: Math.floor(height / patchSize), columns: Math.floor(width / patchSize) };
      if (grid.rows > 0 && grid.columns > 0) return grid;
      throw new ImageError(
        `expected a picture of at least a patch of ${patchSize} x ${patchSize} pixels for this vision tower, found ${width} x ${height}`,
      );
    });
    const tiles = patchGrids.length;
    const towerRows = patchGrids.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
    const layout = { tiles, patchGrids, towerRows, tokens: tiles * latents, latents: tiles * latents };
    known.set(picture, layout);
    return layout;
  };
}

/** Of a picture's pieces in pixels. */
function sizesOf(picture: Picture, processor: ProcessorSettings): readonly Size[] {
  if (!("shape" in picture)) return pieceSizes(picture, processor);
  const { shape, tiling } = picture;
  const { sizes } = tiling ?? {};
  if (!tiling) return [{ height: shape[1], width: shape[2] }];
  if (sizes?.length === PIECES) return sizes;
  throw new ImageError(
    `expected pixel values of one picture, or of its quarters and itself with their sizes (tiling), found ${tiling.count} tile(s)`,
  );
}

/**
 * Idefics 2 (Laurençon et al. 2024, arXiv 2405.02246): pictures of any size go through a SigLIP tower; what a perceiver
 * resampler makes of a projection of its rows takes the places of the `<image>` tokens in a Mistral decoder.
 */
export const idefics2: Family<Idefics2Config> = {
  modelType: "idefics2",
  readConfig,
  imageRules: ({ vision }) => idefics2ImageRules(vision),
  async build(w, config, json) {
    const { vision: setup } = config;
    const names = { prefix: "model.text_model.", head: "lm_head" };
    const decoder = await mistral.build(w, config, json, names);
    const tower = await readNativeSizeTower(w, setup, "model.vision_model.");
    const project = await readProjection(w, config, "model.connector.modality_projection.");
    const resampler = await readPerceiverResampler(w, setup, "model.connector.perceiver_resampler.");
    return new ImageDecoder(decoder, setup, function* (images, pass) {
      const rows = yield* tower(images, pass); // [patches, width of the tower]
      const projected = pass.device.scope(() => project(rows)); // [patches, width]
      const own = passOverImages(pass, (image) => setup.layout(image).towerRows);
      return yield* resampler.run(yield* own.sites().pass("resampler.in", projected), pass, setup);
    });
  },
};

/** A gated MLP from the width of the tower to that of the language model: [rows, …] → the same. */
async function readProjection(
  w: Weights,
  { width, mlpWidth, activation, vision }: Idefics2Config,
  prefix: string,
): Promise<(x: Tensor) => Tensor> {
  const source = vision.tower.width;
  const gate = await w.linear(`${prefix}gate_proj`, [mlpWidth, source]);
  const up = await w.linear(`${prefix}up_proj`, [mlpWidth, source]);
  const down = await w.linear(`${prefix}down_proj`, [width, mlpWidth]);
  return (x) => down.apply(gatedActivation(gate.apply(x), up.apply(x), activation));
}

async function readPerceiverResampler(w: Weights, setup: Idefics2Setup, prefix: string): Promise<Resampler> {
  const { layers, latents, width, heads, kvHeads, headDim, mlpWidth, normEps, activation } = setup.resampler;
  const norm = (name: string) => readRmsNorm(w, `${prefix}${name}`, width, { eps: normEps });
  const blocks: Block[] = [];
  for (let i = 0; i < layers; i++) {
    const layer = `layers.${i}.`;
    const linear = (name: string, out: number, source: number) =>
      w.linear(`${prefix}${layer}${name}`, [out, source]);
    const parts = {
      contextNorm: await norm(`${layer}input_context_norm`),
      attentionNorm: await norm(`${layer}input_latents_norm`),
      attention: {
        q: await linear("self_attn.q_proj", heads * headDim, width),
        k: await linear("self_attn.k_proj", kvHeads * headDim, width),
        v: await linear("self_attn.v_proj", kvHeads * headDim, width),
        o: await linear("self_attn.o_proj", width, heads * headDim),
        headDim,
      },
      mlpNorm: await norm(`${layer}post_attention_layernorm`),
      mlp: gatedMlp(
        {
          gate: await linear("mlp.gate_proj", mlpWidth, width),
          up: await linear("mlp.up_proj", mlpWidth, width),
          down: await linear("mlp.down_proj", width, mlpWidth),
        },
        activation,
      ),
    };
    blocks.push(resamplerBlock(parts, setup));
  }
  const start = await w.tensor(`${prefix}latents`, [latents, width]);
  return new Resampler(start, new Stack(w.device, blocks), await norm("norm"));
}
