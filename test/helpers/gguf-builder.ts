import { concat, utf8 } from "./bytes.ts";

const SCALAR_BYTES: Record<number, number> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8,
};

/** A value with the number that GGUF gives its type. */
export type Value =
  | { type: 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 10 | 11 | 12; value: number | bigint }
  | { type: 8; value: string }
  | { type: 9; of: number; value: readonly (number | string)[] };

export const u32 = (value: number): Value => ({ type: 4, value });
export const f32 = (value: number): Value => ({ type: 6, value });
export const text = (value: string): Value => ({ type: 8, value });
export const texts = (value: readonly string[]): Value => ({ type: 9, of: 8, value });
export const ints = (value: readonly number[]): Value => ({ type: 9, of: 5, value });

export interface Tensor {
  name: string;
  /** GGML's number: 0 F32, 1 F16, 2 Q4_0, 3 Q4_1, 8 Q8_0… */
  type: number;
  /** Outermost first. */
  shape: readonly number[];
  data: Uint8Array;
}

function integer(bytes: number, value: number | bigint): Uint8Array {
  const out = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i++)
    out[i] = Number((BigInt.asUintN(64, BigInt(value)) >> BigInt(8 * i)) & 255n);
  return out;
}

function string(value: string): Uint8Array {
  const bytes = utf8(value);
  return concat(integer(8, bytes.length), bytes);
}

function scalar(type: number, value: number | bigint): Uint8Array {
  if (type === 6) return new Uint8Array(Float32Array.of(Number(value)).buffer);
  if (type === 12) return new Uint8Array(Float64Array.of(Number(value)).buffer);
  return integer(SCALAR_BYTES[type]!, value);
}

function valueBytes(value: Value): Uint8Array {
  if (value.type === 8) return string(value.value);
  if (value.type !== 9) return scalar(value.type, value.value);
  const items = value.value.map((item) => (typeof item === "string" ? string(item) : scalar(value.of, item)));
  return concat(integer(4, value.of), integer(8, items.length), ...items);
}

/** A GGUF file, version 3. */
export function buildGguf(
  metadata: Readonly<Record<string, Value>>,
  tensors: readonly Tensor[],
  alignment = 32,
): { bytes: Uint8Array<ArrayBuffer>; headerBytes: number } {
  const padding = (n: number) => new Uint8Array((alignment - (n % alignment)) % alignment);
  const entries = Object.entries(metadata);
  const parts = [utf8("GGUF"), integer(4, 3), integer(8, tensors.length), integer(8, entries.length)];
  for (const [key, value] of entries) parts.push(string(key), integer(4, value.type), valueBytes(value));
  let offset = 0;
  const data: Uint8Array[] = [];
  for (const tensor of tensors) {
    parts.push(string(tensor.name), integer(4, tensor.shape.length));
    for (const n of [...tensor.shape].reverse()) parts.push(integer(8, n));
    parts.push(integer(4, tensor.type), integer(8, offset));
    const pad = padding(tensor.data.length);
    data.push(tensor.data, pad);
    offset += tensor.data.length + pad.length;
  }
  const header = concat(...parts);
  return { bytes: concat(header, padding(header.length), ...data), headerBytes: header.length };
}

/** A Llama with one layer, width 32, two heads of 16, one of keys and values, and a three-token vocabulary. */
export function tinyLlama(): { metadata: Record<string, Value>; tensors: Tensor[] } {
  const metadata: Record<string, Value> = {
    "general.architecture": text("llama"),
    "general.name": text("tiny"),
    "llama.block_count": u32(1),
    "llama.context_length": u32(64),
    "llama.embedding_length": u32(32),
    "llama.feed_forward_length": u32(32),
    "llama.attention.head_count": u32(2),
    "llama.attention.head_count_kv": u32(1),
    "llama.rope.freq_base": f32(100000),
    "llama.rope.dimension_count": u32(16),
    "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
    "tokenizer.ggml.model": text("gpt2"),
    "tokenizer.ggml.pre": text("smollm"),
    "tokenizer.ggml.tokens": texts(["<|end|>", "a", "aa"]),
    "tokenizer.ggml.token_type": ints([3, 1, 1]),
    "tokenizer.ggml.merges": texts(["a a"]),
    "tokenizer.ggml.bos_token_id": u32(0),
    "tokenizer.ggml.eos_token_id": u32(0),
    "tokenizer.ggml.add_bos_token": { type: 7, value: 0 },
    "tokenizer.chat_template": text("{{ messages }}"),
  };
  const norm = (name: string): Tensor => ({
    name,
    type: 0,
    shape: [32],
    data: new Uint8Array(Float32Array.from({ length: 32 }, (_, i) => 1 + i / 64).buffer),
  });
  /** Q8_0 with scale 1; element i of row r is r for even i, else i − 64. */
  const matrix = (name: string, rows: number): Tensor => {
    const data = new Uint8Array(rows * 34);
    for (let r = 0; r < rows; r++) {
      data.set([0, 0x3c], r * 34);
      for (let i = 0; i < 32; i++) data[r * 34 + 2 + i] = i % 2 ? i - 64 : r;
    }
    return { name, type: 8, shape: [rows, 32], data };
  };
  const tensors = [
    matrix("token_embd.weight", 3),
    norm("output_norm.weight"),
    norm("blk.0.attn_norm.weight"),
    matrix("blk.0.attn_q.weight", 32),
    matrix("blk.0.attn_k.weight", 16),
    matrix("blk.0.attn_v.weight", 16),
    matrix("blk.0.attn_output.weight", 32),
    norm("blk.0.ffn_norm.weight"),
    matrix("blk.0.ffn_gate.weight", 32),
    matrix("blk.0.ffn_up.weight", 32),
    matrix("blk.0.ffn_down.weight", 32),
  ];
  return { metadata, tensors };
}
