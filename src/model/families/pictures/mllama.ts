import { CheckpointError } from "../../../errors.ts";
import { canvasesOf } from "../../../images/canvas-tiles.ts";
import {
  type CanvasProcessorSettings,
  readCanvasProcessor,
} from "../../../images/processors/canvas-processor-config.ts";
import { mul, tanh } from "../../../kernels/elementwise/elementwise.ts";
import { cast } from "../../../kernels/movement/copy.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import {
  type CanvasTowerConfig,
  canvasLayout,
  canvasPicture,
  readCanvasTower,
} from "../../checkpoint/config/canvas-tower-config.ts";
import {
  type CrossConfig,
  type LlamaConfig,
  readLlamaConfig,
} from "../../checkpoint/config/decoder-config.ts";
import { requireNeutral } from "../../checkpoint/config/neutral-fields.ts";
import type { VisionSetup } from "../../checkpoint/config/vision-setup.ts";
import { ConfigReader, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import { findPrefix } from "../../checkpoint/weights/find-prefix.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { crossLayer } from "../../layers/attention/cross-layer.ts";
import { block } from "../../layers/block.ts";
import { CrossDecoder } from "../../layers/cross-decoder.ts";
import { Decoder } from "../../layers/decoder.ts";
import { plainMlp } from "../../layers/mlp.ts";
import { type Norm, perHead, readLayerNorm, readRmsNorm } from "../../layers/norm.ts";
import { RopeTables } from "../../layers/rope/rope-tables.ts";
import { CanvasTower, ownAndPadding } from "../../layers/towers/canvas-tower.ts";
import { picturesOf } from "../../prompt/prompt-image.ts";
import { takeRows } from "../../walk/forward.ts";
import { passOverImages } from "../../walk/input-passes.ts";
import type { Context } from "../../walk/key-value-store.ts";
import { causal } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import { RowMap, type RowSpan } from "../../walk/row-map.ts";
import { crossLayerSites } from "../../walk/site-shapes.ts";
import { type Block, Stack } from "../../walk/stack.ts";
import type { Family, FamilyFiles } from "../family.ts";
import { readAttention, readGatedMlp } from "../text/llama.ts";
import { mllamaImageRules, pictureRows, sightOf } from "./parts/mllama-images.ts";

interface MllamaConfig extends LlamaConfig {
  readonly cross: CrossConfig;
  readonly vision: VisionSetup<CanvasTowerConfig> & { readonly processor: CanvasProcessorSettings };
}

/** Values that Hugging Face's MllamaTextConfig has where a text_config is silent. */
const DEFAULTS = {
  vocab_size: 128256,
  hidden_size: 4096,
  intermediate_size: 14336,
  num_hidden_layers: 40,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  hidden_act: "silu",
  max_position_embeddings: 131072,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
  cross_attention_layers: [3, 8, 13, 18, 23, 28, 33, 38],
};
/** Rows that the embedding has beyond the logits: the image token's and others'. */
const FURTHER_IDS = 8;
/** Of the norms around the encoders, PyTorch's default. */
const NORM_EPS = 1e-5;

function readConfig(config: JsonObject, where: string, files: FamilyFiles): MllamaConfig {
  requireNeutral(config, where);
  const inText = `${where}: text_config`;
  const outer = new ConfigReader(config, where);
  const text = outer.object("text_config");
  const c = new ConfigReader({ ...DEFAULTS, ...text }, inText);
  // Heads are of one size, whatever else the config says, and nothing is tied.
  const given = { rope_theta: 500000, ...text, head_dim: null, tie_word_embeddings: false };
  const decoder = readLlamaConfig(given, { defaults: DEFAULTS }, inText);
  const layers = c.value("cross_attention_layers") ?? DEFAULTS.cross_attention_layers;
  if (
    !Array.isArray(layers) ||
    !layers.every((layer) => Number.isSafeInteger(layer) && layer >= 0 && layer < decoder.layers)
  ) {
    throw new CheckpointError(
      `${inText}: expected cross_attention_layers to be numbers of the ${decoder.layers} layers (num_hidden_layers), ` +
        `found ${JSON.stringify(layers)}`,
    );
  }
  const { heads, kvHeads, headDim, vocab } = decoder;
  return {
    ...decoder,
    inputIds: vocab + FURTHER_IDS,
    cross: {
      layers: [...new Set(layers as number[])].sort((a, b) => a - b),
      ...{ heads, kvHeads, headDim, qkNorm: true, gateWidth: 1, replaces: true },
    },
    vision: readVision(outer, where, files),
  };
}

function readVision(
  c: ConfigReader,
  where: string,
  { preprocessor, tokenOf, intermediateLayers = "inputs" }: FamilyFiles,
): MllamaConfig["vision"] {
  const inVision = `${where}: vision_config`;
  const tower = readCanvasTower(c.object("vision_config"), intermediateLayers, inVision);
  if (preprocessor === undefined) {
    throw new CheckpointError(`${where}: there is no preprocessor_config.json beside it`);
  }
  const processor = readCanvasProcessor(preprocessor);
  const { side, most } = processor.canvas;
  if (side !== tower.imageSize || most !== tower.tiles) {
    throw new CheckpointError(
      `${where}: expected an image processor whose size is the tower's image_size, ${tower.imageSize}, and whose max_image_tiles its ` +
        `max_num_tiles, ${tower.tiles}; found ${side} and ${most}`,
    );
  }
  const imageTokenId = c.count(c.has("image_token_id") ? "image_token_id" : "image_token_index", 128256, 0);
  return {
    tower,
    imageTokenId,
    imageToken: tokenOf(imageTokenId),
    featureLayer: tower.layers,
    postNorm: true,
    embeds: false,
    tiled: true,
    global: { layers: tower.globalLayers, width: tower.width, heads: tower.heads, mlpWidth: tower.mlpWidth },
    featureWidth: tower.width * (1 + tower.intermediate.length),
    fixed: canvasLayout({ id: 1, tiles: 1, own: 1 }, tower),
    layout: (picture) => canvasLayout(canvasPicture(picture, processor), tower),
    contextRows: (layouts) => pictureRows(layouts).map(({ own, missing }) => [own, missing]),
    processor,
  };
}

/** Attention and MLP of an encoder's layer, gated in the second one. */
async function readEncoder(
  w: Weights,
  { width, heads, mlpWidth, normEps, activation }: CanvasTowerConfig,
  rule: Block["rule"],
  prefix: string,
  { layers, gated }: { layers: number; gated: boolean },
): Promise<Stack> {
  const blocks: Block[] = [];
  const gate = async (name: string): Promise<Norm> => {
    const alpha = await w.tensor(name, [1]);
    return (x: Tensor) => mul(x, tanh(cast(alpha, "f32")));
  };
  for (let i = 0; i < layers; i++) {
    const layer = `${prefix}layers.${i}.`;
    const projection = (name: string) => w.linear(`${layer}self_attn.${name}`, [width, width]);
    blocks.push(
      block({
        rule,
        attentionNorm: await readLayerNorm(w, `${layer}input_layernorm`, width, normEps),
        attention: {
          q: await projection("q_proj"),
          k: await projection("k_proj"),
          v: await projection("v_proj"),
          o: await projection("o_proj"),
          headDim: width / heads,
        },
        mlpNorm: await readLayerNorm(w, `${layer}post_attention_layernorm`, width, normEps),
        mlp: plainMlp(
          {
            in: await w.linear(`${layer}mlp.fc1`, [mlpWidth, width], true),
            out: await w.linear(`${layer}mlp.fc2`, [width, mlpWidth], true),
          },
          activation,
        ),
        ...(gated && {
          attentionPostNorm: await gate(`${layer}gate_attn`),
          mlpPostNorm: await gate(`${layer}gate_ffn`),
        }),
      }),
    );
  }
  return new Stack(w.device, blocks);
}

async function readTower(w: Weights, { tower, processor }: MllamaConfig["vision"], prefix: string) {
  const { width, patchSize, tiles, tileRows, layers, globalLayers } = tower;
  const ids = canvasesOf(tiles).length + 1; // the first of no canvas
  const rule = ownAndPadding(tower, processor);
  const norm = (name: string) => readLayerNorm(w, `${prefix}${name}`, width, NORM_EPS);
  const gateOf = (name: string) => w.tensor(`${prefix}${name}.gate`, [1]);
  const byTile = async (name: string) => ({
    table: w.reshape(await w.tensor(`${prefix}${name}.embedding.weight`, [ids, tiles * width]), [
      ids * tiles,
      width,
    ]),
    gate: await gateOf(name),
  });
  const kernel = await w.tensor(`${prefix}patch_embedding.weight`, [width, 3, patchSize, patchSize]);
  const gated = "gated_positional_embedding";
  const perTile = await w.tensor(`${prefix}${gated}.tile_embedding.weight`, [ids, tiles * tileRows * width]);
  return new CanvasTower(tower, processor, {
    patchWeight: w.reshape(kernel, [width, 3 * patchSize ** 2]),
    classEmbedding: await w.tensor(`${prefix}class_embedding`, [width]),
    preTile: await byTile("pre_tile_positional_embedding"),
    postTile: await byTile("post_tile_positional_embedding"),
    positions: await w.tensor(`${prefix}${gated}.embedding`, [tileRows, width]),
    tilePositions: {
      table: w.reshape(perTile, [ids * tiles * tileRows, width]),
      gate: await gateOf(gated),
    },
    preNorm: await norm("layernorm_pre"),
    stack: await readEncoder(w, tower, rule, `${prefix}transformer.`, { layers, gated: false }),
    postNorm: await norm("layernorm_post"),
    global: await readEncoder(w, tower, rule, `${prefix}global_transformer.`, {
      layers: globalLayers,
      gated: true,
    }),
  });
}

/** What cross-attention reads: for each prompt the rows of its pictures' own tiles, then those of the tiles that they have not. */
function contextOf(x: Tensor, pass: Pass, { layout }: MllamaConfig["vision"]): Context {
  const natural = passOverImages(pass, (image) => layout(image).latents!).rows; // x: [rows, width], picture by picture
  const order: number[] = [];
  const rows: RowSpan[] = [];
  const named: RowSpan[] = [];
  let image = 0; // among those of the pass
  for (const { sequence } of pass.rows.spans) {
    const spans = natural.spans.slice(image, image + pass.prompt(sequence)!.images.length);
    image += spans.length;
    if (spans.length === 0) continue;
    const start = order.length;
    const layouts = picturesOf(pass.prompt(sequence)!).map(layout);
    const ranges = pictureRows(layouts);
    for (const kind of ["own", "missing"] as const) {
      for (const [i, span] of spans.entries()) {
        const range = ranges[i]![kind];
        const position = kind === "own" ? 0 : layouts[i]!.ownLatents!;
        const count = range.end - range.start;
        if (count === 0) continue;
        named.push({ sequence: span.sequence, position, row: order.length, count });
        for (let row = 0; row < count; row++) order.push(span.row + position + row);
      }
    }
    rows.push({ sequence, position: 0, row: start, count: order.length - start });
  }
  return { x: takeRows(x, order), rows: new RowMap(rows), named: new RowMap(named) };
}

/**
 * Llama 3.2 Vision (Grattafiori et al. 2024, arXiv 2407.21783): a Llama some of whose layers attend to pictures in place of the
 * text. Pictures are laid on canvases of tiles, all of which a vision transformer reads at once.
 */
export const mllama: Family<MllamaConfig> = {
  modelType: "mllama",
  readConfig,
  imageRules: ({ vision }) => mllamaImageRules(vision.imageToken),
  async build(w, c) {
    const { vision, cross, width, headDim, heads, kvHeads, vocab } = c;
    // As published, and as transformers 5 names the modules.
    const prefix = findPrefix(w, ["language_model.model.", "model.language_model."], "embed_tokens.weight");
    const head = findPrefix(w, ["language_model.lm_head", "lm_head"], ".weight");
    const towerPrefix = findPrefix(w, ["vision_model.", "model.vision_model."], "class_embedding");
    const projector = findPrefix(w, ["multi_modal_projector", "model.multi_modal_projector"], ".weight");
    const rope = new RopeTables(w.device, { rotaryDim: headDim, ...c.rope });
    const norm = { eps: c.normEps };
    const sight = sightOf(vision.imageTokenId, (picture) => vision.layout(picture));
    const ofHeads = async (name: string) => perHead(await readRmsNorm(w, name, headDim, norm), headDim);
    const blocks: Block[] = [];
    for (let i = 0; i < c.layers; i++) {
      const layer = `${prefix}layers.${i}.`;
      const norms = {
        attentionNorm: await readRmsNorm(w, `${layer}input_layernorm`, width, norm),
        mlpNorm: await readRmsNorm(w, `${layer}post_attention_layernorm`, width, norm),
      };
      if (!cross.layers.includes(i)) {
        const attention = await readAttention(w, c, `${layer}self_attn.`, rope);
        blocks.push(
          block({ rule: causal, ...norms, attention, mlp: await readGatedMlp(w, c, `${layer}mlp.`) }),
        );
        continue;
      }
      const across = `${layer}cross_attn.`;
      const alpha = async (name: string) => w.reshape(await w.tensor(`${layer}${name}`, [1]), [1, 1]);
      blocks.push(
        crossLayer({
          ...norms,
          attention: {
            q: await w.linear(`${across}q_proj`, [heads * headDim, width]),
            k: await w.linear(`${across}k_proj`, [kvHeads * headDim, width]),
            v: await w.linear(`${across}v_proj`, [kvHeads * headDim, width]),
            o: await w.linear(`${across}o_proj`, [width, heads * headDim]),
            headDim,
            qNorm: await ofHeads(`${across}q_norm`),
            kNorm: await ofHeads(`${across}k_norm`),
          },
          mlp: await readGatedMlp(w, c, `${layer}mlp.`),
          attentionAlpha: await alpha("cross_attn_attn_gate"),
          mlpAlpha: await alpha("cross_attn_mlp_gate"),
          rule: (position, { prompt }) => sight.rule(position, prompt!),
          sees: sight.sees,
          sites: crossLayerSites(cross),
        }),
      );
    }
    const decoder = new Decoder(w.device, c, {
      embedding: await w.embedding(`${prefix}embed_tokens`, [vocab + FURTHER_IDS, width]),
      unembedding: await w.linear(head, [vocab, width]),
      blocks,
      finalNorm: await readRmsNorm(w, `${prefix}norm`, width, norm),
      rope: [rope],
    });
    const tower = await readTower(w, vision, towerPrefix);
    const project = await w.linear(projector, [width, vision.featureWidth!], true);
    return new CrossDecoder(decoder, function* (images, pass) {
      const features = yield* tower.features(images, pass);
      const { latents } = vision.fixed!;
      const sites = passOverImages(pass, () => latents!).sites();
      return contextOf(yield* sites.pass("projector", project.apply(features)), pass, vision);
    });
  },
};
