import { activation } from "../../../kernels/elementwise/activation.ts";
import { add } from "../../../kernels/elementwise/elementwise.ts";
import { concat } from "../../../kernels/movement/concat.ts";
import { cast } from "../../../kernels/movement/copy.ts";
import { gatherRows } from "../../../kernels/movement/gather.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import {
  imageRowCount,
  type Picture,
  type QFormerConfig,
  type VisionSetup,
} from "../../checkpoint/config/vision-setup.ts";
import type { Linear } from "../../checkpoint/weights/linear-layer.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { picturesOf } from "../../prompt/prompt-image.ts";
import { passOverImages } from "../../walk/input-passes.ts";
import { full } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import type { Walk } from "../../walk/site-events.ts";
import { type Block, Stack } from "../../walk/stack.ts";
import type { Attention } from "../attention/attention-layer.ts";
import { type BlockParts, block } from "../block.ts";
import { type Mlp, plainMlp } from "../mlp.ts";
import { type Norm, readLayerNorm } from "../norm.ts";
import { byRows, linearByRows, type SplitRows, splitRows } from "./split-rows.ts";

/** The embedding of the text that a Q-Former reads. */
interface TextEmbedding {
  /** [vocab, width] */
  readonly words: Tensor;
  /** [context, width] */
  readonly positions: Tensor;
}

interface QFormerParts {
  readonly config: QFormerConfig;
  /** [queries, width] */
  readonly queries: Tensor;
  readonly text: TextEmbedding | undefined;
  /** In front of the first block. */
  readonly norm: Norm;
  readonly stack: Stack;
}

/**
 * A querying transformer (Li et al. 2023, arXiv 2301.12597): a BERT whose learned queries, and in InstructBLIP (Dai et al. 2023,
 * arXiv 2305.06500) the tokens of the prompt behind them, attend to each other; in some layers the queries attend to a
 * picture's rows in the tower.
 */
export class QFormer {
  readonly #parts: QFormerParts;

  constructor(parts: QFormerParts) {
    this.#parts = parts;
  }

  /**
   * x: [rows of all images in the tower, their width] → [queries of all images, width]. `pass` is that of the prompts. Sites:
   * qformer.<site>.N.
   */
  *run(x: Tensor, pass: Pass, setup: VisionSetup): Walk<Tensor> {
    const { config, norm, stack } = this.#parts;
    const textOf = (prompt: Parameters<NonNullable<VisionSetup["textOf"]>>[0]) =>
      setup.textOf?.(prompt) ?? [];
    const own = passOverImages(pass, (_image, prompt) => config.queries + textOf(prompt).length, {
      prefix: "qformer.",
    });
    const { rows } = passOverImages(pass, (image: Picture) => imageRowCount(setup.layout(image), "tower"));
    own.context.fill({ x, rows });
    const texts = pass.rows.spans.flatMap(({ sequence }) => {
      const prompt = pass.prompt(sequence)!;
      return picturesOf(prompt).map(() => textOf(prompt));
    });
    const start = norm(this.#embed(own, texts)); // [rows, width]
    const end = yield* stack.run(start, own);
    return splitRows(own, config.queries).leading(end);
  }

  /** Queries and text of each image: [rows, width]. */
  #embed({ device }: Pass, texts: readonly (readonly number[])[]): Tensor {
    const { queries, text } = this.#parts;
    const learned = cast(queries, "f32");
    if (!text) return concat(texts.map(() => learned));
    const u32 = (ids: readonly number[]) => device.tensor(Uint32Array.from(ids), { dtype: "u32" });
    return concat(
      texts.flatMap((ids) => {
        if (ids.length === 0) return [learned];
        const places = u32([...ids.keys()]);
        return [learned, add(gatherRows(text.words, u32(ids)), gatherRows(text.positions, places))];
      }),
    );
  }
}

/** A Q-Former under `prefix` and the queries beside it, in Hugging Face's names. */
export async function readQFormer(
  w: Weights,
  config: QFormerConfig,
  { prefix, queries, towerWidth }: { prefix: string; queries: string; towerWidth: number },
): Promise<QFormer> {
  const { width, text, normEps } = config;
  const blocks: Block[] = [];
  for (let i = 0; i < config.layers; i++) {
    blocks.push(block(await readBlock(w, config, `${prefix}encoder.layer.${i}.`, i, towerWidth)));
  }
  const learned = await w.tensor(queries, [1, config.queries, width]);
  return new QFormer({
    config,
    queries: w.reshape(learned, [config.queries, width]),
    text: text && {
      words: await w.tensor(`${prefix}embeddings.word_embeddings.weight`, [text.vocab, width]),
      positions: await w.tensor(`${prefix}embeddings.position_embeddings.weight`, [text.context, width]),
    },
    norm: await readLayerNorm(w, `${prefix}${text ? "embeddings.layernorm" : "layernorm"}`, width, normEps),
    stack: new Stack(w.device, blocks),
  });
}

async function readBlock(
  w: Weights,
  config: QFormerConfig,
  prefix: string,
  index: number,
  towerWidth: number,
): Promise<BlockParts> {
  const { width, queries, crossLayers, normEps } = config;
  const normBehind = (part: string) => readLayerNorm(w, `${prefix}${part}.LayerNorm`, width, normEps);
  const crossAttention = crossLayers.includes(index) && {
    attention: await readAttention(w, config, `${prefix}crossattention.`, towerWidth),
    streamNorm: await normBehind("crossattention.output"),
    rule: full,
    positions: queries,
  };
  return {
    rule: full,
    attention: await readAttention(w, config, `${prefix}attention.`, width),
    attentionStreamNorm: await normBehind("attention.output"),
    ...(crossAttention && { crossAttention }),
    ...(await readMlps(w, config, prefix)),
  };
}

async function readAttention(
  w: Weights,
  { width, heads }: QFormerConfig,
  prefix: string,
  keyWidth: number,
): Promise<Attention> {
  return {
    q: await w.linear(`${prefix}attention.query`, [width, width], true),
    k: await w.linear(`${prefix}attention.key`, [width, keyWidth], true),
    v: await w.linear(`${prefix}attention.value`, [width, keyWidth], true),
    o: await w.linear(`${prefix}output.dense`, [width, width], true),
    headDim: width / heads,
  };
}

/** The MLP of the queries, and where there is text another for that, each with its norm. */
async function readMlps(
  w: Weights,
  config: QFormerConfig,
  prefix: string,
): Promise<Pick<BlockParts, "mlp" | "mlpStreamNorm">> {
  const { width, mlpWidth, queries, activation: kind, text } = config;
  const read = async (suffix: string) => ({
    in: await w.linear(`${prefix}intermediate${suffix}.dense`, [mlpWidth, width], true),
    out: await w.linear(`${prefix}output${suffix}.dense`, [width, mlpWidth], true),
    norm: await readLayerNorm(w, `${prefix}output${suffix}.LayerNorm`, width, config.normEps),
  });
  const ofQueries = await read("_query");
  if (!text) return { mlp: plainMlp(ofQueries, kind), mlpStreamNorm: ofQueries.norm };
  const ofText = await read("");
  const split = (pass: Pass): SplitRows => splitRows(pass, queries);
  const linear = (pass: Pass, part: "in" | "out") => linearByRows(split(pass), ofQueries[part], ofText[part]);
  const mlp: Mlp = {
    *hidden(x, at, pass) {
      const pre = yield* at.pass("mlp_pre", linear(pass, "in").apply(x));
      return yield* at.pass("mlp_act", activation(pre, kind));
    },
    in: ofQueries.in satisfies Linear,
    out: ofQueries.out,
    outOf: (pass) => linear(pass, "out"),
  };
  return { mlp, mlpStreamNorm: (x, pass) => byRows(split(pass), x, ofQueries.norm, ofText.norm) };
}
