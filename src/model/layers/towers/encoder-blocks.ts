import type { EncoderConfig } from "../../checkpoint/config/encoder-config.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import type { AttentionRule } from "../../walk/masks.ts";
import type { Block } from "../../walk/stack.ts";
import { block } from "../block.ts";
import { plainMlp } from "../mlp.ts";
import { readLayerNorm } from "../norm.ts";

/**
 * The blocks under `<prefix>encoder.layers.`, in Hugging Face's names: the pre-norm block that both towers of CLIP and
 * SigLIP are made of, with biases everywhere and a plain MLP.
 */
export async function readEncoderBlocks(
  w: Weights,
  prefix: string,
  { layers, width, heads, mlpWidth, normEps, activation }: EncoderConfig,
  rule: AttentionRule,
): Promise<Block[]> {
  const blocks: Block[] = [];
  for (let i = 0; i < layers; i++) {
    const layer = `${prefix}encoder.layers.${i}.`;
    const projection = (name: string) => w.linear(`${layer}self_attn.${name}`, [width, width], true);
    blocks.push(
      block({
        rule,
        attentionNorm: await readLayerNorm(w, `${layer}layer_norm1`, width, normEps),
        attention: {
          q: await projection("q_proj"),
          k: await projection("k_proj"),
          v: await projection("v_proj"),
          o: await projection("out_proj"),
          headDim: width / heads,
        },
        mlpNorm: await readLayerNorm(w, `${layer}layer_norm2`, width, normEps),
        mlp: plainMlp(
          {
            in: await w.linear(`${layer}mlp.fc1`, [mlpWidth, width], true),
            out: await w.linear(`${layer}mlp.fc2`, [width, mlpWidth], true),
          },
          activation,
        ),
      }),
    );
  }
  return blocks;
}
