import { CheckpointError } from "../../../errors.ts";
import type { RopeScaling } from "../../../kernels/attention/rope.ts";
import { type LlamaConfig, readLlamaConfig } from "../../checkpoint/config/decoder-config.ts";
import { rotaryDimOf } from "../../checkpoint/config/partial-rope.ts";
import { type RopeConfig, readRope, ropeParameters } from "../../checkpoint/config/rope-config.ts";
import { ConfigReader, isObject, type JsonObject } from "../../checkpoint/json/config-reader.ts";
import { consecutive } from "../../checkpoint/weights/row-parts.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import type { Attention } from "../../layers/attention/attention-layer.ts";
import { block } from "../../layers/block.ts";
import { Decoder } from "../../layers/decoder.ts";
import { gatedMlp, type Mlp } from "../../layers/mlp.ts";
import { readRmsNorm } from "../../layers/norm.ts";
import { LongRope } from "../../layers/rope/long-rope.ts";
import { RopeTables, type Rotary } from "../../layers/rope/rope-tables.ts";
import type { Block } from "../../walk/stack.ts";
import type { TextFamily } from "../family.ts";
import { readEnds, rulesOf } from "./llama.ts";

interface Phi3Config extends LlamaConfig {
  readonly rope: RopeConfig & { readonly rotaryDim: number };
}

/** Values that Hugging Face's Phi3Config has where a config.json is silent. */
const DEFAULTS = {
  vocab_size: 32064,
  hidden_size: 3072,
  intermediate_size: 8192,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  hidden_act: "silu",
  max_position_embeddings: 4096,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
};

function readConfig(values: JsonObject, where: string): Phi3Config {
  const { rope_scaling: _, rope_parameters: __, rope_theta: ___, ...others } = values; // read by itself
  const config = readLlamaConfig(others, { defaults: DEFAULTS, window: true }, where);
  return { ...config, rope: readPhi3Rope(values, config, where) };
}

/** RoPE on the first dimensions of each head, plain or LongRoPE, which configs also call su and yarn. */
function readPhi3Rope(
  values: JsonObject,
  { headDim, context }: LlamaConfig,
  where: string,
): Phi3Config["rope"] {
  const kinds = ["default", "longrope", "su", "yarn"];
  const parameters = ropeParameters(values);
  const { theta } = readRope(
    { ...values, rope_scaling: undefined, rope_parameters: { ...parameters, rope_type: "default" } },
    context,
    where,
  );
  const type = parameters["rope_type"];
  if (!kinds.includes(type as string)) {
    throw new CheckpointError(
      `${where}: RoPE scaling (rope_type) ${JSON.stringify(type)} is not supported in Phi-3; supported are ${kinds.join(", ")}`,
    );
  }
  const r = new ConfigReader(
    { partial_rotary_factor: values["partial_rotary_factor"], ...parameters },
    where,
  );
  const rotaryDim = rotaryDimOf(headDim, r.number("partial_rotary_factor", 1), where);
  if (type === "default") return { theta, rotaryDim };
  const outer = new ConfigReader({ original_max_position_embeddings: 4096, ...values }, where);
  const tokens = outer.count("original_max_position_embeddings", undefined, 2);
  const section = isObject(values["rope_scaling"]) ? "rope_scaling" : "rope_parameters";
  const magnitude = magnitudeOf(r, context / tokens, tokens);
  const scalingBy = (key: string): RopeScaling => ({
    type: "longrope",
    factors: factorsOf(r.value(key), rotaryDim / 2, `${where}: ${section}: ${key}`),
    magnitude,
  });
  const beyond = { tokens, scaling: scalingBy("long_factor") };
  return { theta, rotaryDim, scaling: scalingBy("short_factor"), beyond };
}

/** What cosines and sines are multiplied by, unless the config says it: it grows with how far the context is stretched. */
function magnitudeOf(r: ConfigReader, stretch: number, tokens: number): number {
  if (r.has("attention_factor")) return r.number("attention_factor");
  const factor = r.number("factor", stretch);
  return factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(tokens));
}

function factorsOf(value: unknown, count: number, what: string): number[] {
  if (Array.isArray(value) && value.length === count && value.every((x) => typeof x === "number" && x > 0)) {
    return value;
  }
  throw new CheckpointError(
    `${what}: expected ${count} numbers above 0, one for each frequency, found ${JSON.stringify(value)}`,
  );
}

/**
 * Phi-3 and Phi-4 (Abdin et al. 2024, arXiv 2404.14219): Llama with one product for q, k and v and one for gate and up, and
 * LongRoPE in the models of long context.
 */
export const phi3: TextFamily<Phi3Config> = {
  modelType: "phi3",
  readConfig,
  async build(w, c, _json, { prefix = "model.", head = "lm_head" } = {}) {
    const ends = await readEnds(w, c, { prefix, head });
    const { scaling, beyond } = c.rope;
    const rope =
      scaling && beyond ? new LongRope({ ...c.rope, scaling, beyond }) : new RopeTables(w.device, c.rope);
    const rules = rulesOf(c);
    const norm = (name: string) => readRmsNorm(w, name, c.width, { eps: c.normEps });
    const blocks: Block[] = [];
    for (let i = 0; i < c.layers; i++) {
      const layer = `${prefix}layers.${i}.`;
      blocks.push(
        block({
          rule: rules[i]!,
          attentionNorm: await norm(`${layer}input_layernorm`),
          attention: await readFusedAttention(w, c, `${layer}self_attn.`, rope),
          mlpNorm: await norm(`${layer}post_attention_layernorm`),
          mlp: await readFusedMlp(w, c, `${layer}mlp.`),
        }),
      );
    }
    return new Decoder(w.device, c, {
      ...ends,
      blocks,
      finalNorm: await norm(`${prefix}norm`),
      rope: [rope],
    });
  },
};

async function readFusedAttention(
  w: Weights,
  c: Phi3Config,
  prefix: string,
  rope: Rotary,
): Promise<Attention> {
  const { width, headDim } = c;
  const [qWidth, kvWidth] = [c.heads * headDim, c.kvHeads * headDim];
  const parts = consecutive(qWidth, kvWidth, kvWidth);
  const [q, k, v] = await w.fused(`${prefix}qkv_proj`, [qWidth + 2 * kvWidth, width], parts);
  return { q, k, v, o: await w.linear(`${prefix}o_proj`, [width, qWidth]), headDim, rope };
}

async function readFusedMlp(w: Weights, c: Phi3Config, prefix: string): Promise<Mlp> {
  const { width, mlpWidth } = c;
  const parts = consecutive(mlpWidth, mlpWidth);
  const [gate, up] = await w.fused(`${prefix}gate_up_proj`, [2 * mlpWidth, width], parts);
  return gatedMlp({ gate, up, down: await w.linear(`${prefix}down_proj`, [width, mlpWidth]) }, c.activation);
}
