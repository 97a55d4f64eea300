import { sameShape, showShape } from "../../../tensor/shape.ts";
import type { PackedSource } from "../entries/packed-source.ts";
import type { TensorEntry } from "../entries/tensor-entry.ts";
import { reordered } from "../packing/reorder-rows.ts";
import type { GgufEntry, GgufFile } from "./gguf.ts";
import { GgufValues } from "./gguf-values.ts";

/** The contents of a Llama's config.json. */
export interface LlamaConfigFile {
  readonly architectures: readonly ["LlamaForCausalLM"];
  readonly model_type: "llama";
  readonly attention_bias: false;
  readonly bos_token_id: number | null;
  readonly eos_token_id: number | null;
  readonly head_dim: number;
  readonly hidden_act: "silu";
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly max_position_embeddings: number;
  readonly mlp_bias: false;
  readonly num_attention_heads: number;
  readonly num_hidden_layers: number;
  readonly num_key_value_heads: number;
  readonly pad_token_id: number | null;
  readonly rms_norm_eps: number;
  readonly rope_scaling: { readonly rope_type: "linear"; readonly factor: number } | null;
  readonly rope_theta: number;
  readonly tie_word_embeddings: boolean;
  readonly torch_dtype: "float16";
  readonly vocab_size: number;
}

/** Metadata that changes the computation beyond what LlamaConfigFile can say; only the neutral value is taken. */
const NEUTRAL: readonly (readonly [key: string, neutral: number])[] = [
  ["llama.expert_count", 0],
  ["llama.attention.sliding_window", 0],
  ["llama.attention.scale", 0],
  ["llama.logit_scale", 0],
];

/** The config of a GGUF file of architecture `llama`. Throws CheckpointError for what it cannot express. */
export function llamaConfig(file: GgufFile): LlamaConfigFile {
  const values = new GgufValues(file);
  const architecture = values.string("general.architecture");
  if (architecture !== "llama") throw values.error(`architecture ${architecture}; supported is llama`);
  for (const [key, neutral] of NEUTRAL) {
    const value = values.number(key, neutral);
    if (value !== neutral) throw values.error(`${key} = ${value} is not supported`);
  }
  const width = values.size("llama.embedding_length");
  const heads = values.size("llama.attention.head_count");
  const headDim = values.size("llama.attention.key_length", width / heads);
  const rotary = values.size("llama.rope.dimension_count", headDim);
  const valueDim = values.size("llama.attention.value_length", headDim);
  if (headDim % 2 || rotary !== headDim || valueDim !== headDim) {
    throw values.error(
      `heads of ${headDim} with ${rotary} rotated and values of ${valueDim} are not supported`,
    );
  }
  const embedding = file.entries.find((entry) => entry.name === "token_embd.weight");
  if (!embedding) throw values.error("there is no tensor token_embd.weight");
  const id = (key: string) => (values.has(key) ? values.number(key) : null);
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    attention_bias: false,
    bos_token_id: id("tokenizer.ggml.bos_token_id"),
    eos_token_id: id("tokenizer.ggml.eos_token_id"),
    head_dim: headDim,
    hidden_act: "silu",
    hidden_size: width,
    intermediate_size: values.size("llama.feed_forward_length"),
    max_position_embeddings: values.size("llama.context_length"),
    mlp_bias: false,
    num_attention_heads: heads,
    num_hidden_layers: values.size("llama.block_count"),
    num_key_value_heads: values.size("llama.attention.head_count_kv", heads),
    pad_token_id: id("tokenizer.ggml.padding_token_id"),
    rms_norm_eps: shortest(values.number("llama.attention.layer_norm_rms_epsilon")),
    rope_scaling: ropeScaling(values),
    rope_theta: shortest(values.number("llama.rope.freq_base", 10000)),
    tie_word_embeddings: !file.entries.some((entry) => entry.name === "output.weight"),
    torch_dtype: "float16",
    vocab_size: embedding.shape[0] ?? 0,
  };
}

function ropeScaling(values: GgufValues): LlamaConfigFile["rope_scaling"] {
  const type = values.string("llama.rope.scaling.type", "none");
  if (type === "none") return null;
  if (type !== "linear") throw values.error(`RoPE scaling ${type}; supported are none and linear`);
  return { rope_type: "linear", factor: shortest(values.number("llama.rope.scaling.factor")) };
}

/** The shortest decimal that is the same f32: metadata holds 1e-5 as 0.000009999999747378752. */
function shortest(value: number): number {
  for (let digits = 1; digits < 10; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === Math.fround(value)) return rounded;
  }
  return value;
}

/**
 * The tensors of a GGUF Llama under Hugging Face's names, in Hugging Face's row order. GGUF has the rows of q and k
 * permuted within each head for interleaved RoPE; here they are put back for the rotate-half form. Throws
 * CheckpointError when a tensor is missing, of another shape, or of no known use.
 */
export function llamaTensors(file: GgufFile, config: LlamaConfigFile): TensorEntry[] {
  const values = new GgufValues(file);
  const left = new Map(file.entries.map((entry) => [entry.name, entry]));
  const take = (name: string, shape: readonly number[]): GgufEntry => {
    const entry = left.get(name);
    if (!entry) throw values.error(`there is no tensor ${name}`);
    if (!sameShape(entry.shape, shape)) {
      throw values.error(`${name} has shape ${showShape(entry.shape)}, expected ${showShape(shape)}`);
    }
    left.delete(name);
    return entry;
  };

  const width = config.hidden_size;
  const inner = config.intermediate_size;
  const queries = config.num_attention_heads * config.head_dim;
  const keys = config.num_key_value_heads * config.head_dim;
  const out: TensorEntry[] = [];
  const plain = (to: string, from: string, shape: readonly number[]) => {
    const entry = take(from, shape);
    out.push(entryAs(to, entry, (chunkBytes) => entry.stream(chunkBytes), entry.packed));
  };
  const rotated = (to: string, from: string, shape: readonly number[]) => {
    const entry = take(from, shape);
    const packed = entry.packed && reordered(to, entry.packed, headOrder(shape[0]!, config.head_dim));
    out.push(entryAs(to, entry, () => unpermuted(entry, config.head_dim), packed));
  };
  plain("model.embed_tokens.weight", "token_embd.weight", [config.vocab_size, width]);
  for (let i = 0; i < config.num_hidden_layers; i++) {
    const [to, from] = [`model.layers.${i}`, `blk.${i}`];
    plain(`${to}.input_layernorm.weight`, `${from}.attn_norm.weight`, [width]);
    rotated(`${to}.self_attn.q_proj.weight`, `${from}.attn_q.weight`, [queries, width]);
    rotated(`${to}.self_attn.k_proj.weight`, `${from}.attn_k.weight`, [keys, width]);
    plain(`${to}.self_attn.v_proj.weight`, `${from}.attn_v.weight`, [keys, width]);
    plain(`${to}.self_attn.o_proj.weight`, `${from}.attn_output.weight`, [width, queries]);
    plain(`${to}.post_attention_layernorm.weight`, `${from}.ffn_norm.weight`, [width]);
    plain(`${to}.mlp.gate_proj.weight`, `${from}.ffn_gate.weight`, [inner, width]);
    plain(`${to}.mlp.up_proj.weight`, `${from}.ffn_up.weight`, [inner, width]);
    plain(`${to}.mlp.down_proj.weight`, `${from}.ffn_down.weight`, [width, inner]);
  }
  plain("model.norm.weight", "output_norm.weight", [width]);
  if (!config.tie_word_embeddings) plain("lm_head.weight", "output.weight", [config.vocab_size, width]);
  if (left.size > 0) throw values.error(`tensors of unknown use: ${[...left.keys()].join(", ")}`);
  return out;
}

function entryAs(
  name: string,
  entry: GgufEntry,
  stream: TensorEntry["stream"],
  packed: PackedSource | undefined,
): TensorEntry {
  const { shape, stored, storedBytes, dtype, byteLength } = entry;
  const expect = () => entry.expect();
  return { name, shape, stored, storedBytes, dtype, byteLength, stream, expect, ...(packed && { packed }) };
}

/** Which row of the file each row is. */
function headOrder(rows: number, headDim: number): number[] {
  return Array.from({ length: rows }, (_, row) => {
    const at = row % headDim;
    const [half, i] = [Math.floor(at / (headDim / 2)), at % (headDim / 2)];
    return row - at + 2 * i + half;
  });
}

/** One head at a time: row 2i + j of a head goes to row j · headDim / 2 + i, for j = 0, 1. */
async function* unpermuted(entry: GgufEntry, headDim: number) {
  for await (const head of entry.streamRows(headDim)) {
    const rowBytes = head.length / headDim;
    const out = new Uint8Array(head.length);
    for (let row = 0; row < headDim; row++) {
      const to = (row % 2) * (headDim / 2) + Math.floor(row / 2);
      out.set(head.subarray(row * rowBytes, (row + 1) * rowBytes), to * rowBytes);
    }
    yield out;
  }
}
