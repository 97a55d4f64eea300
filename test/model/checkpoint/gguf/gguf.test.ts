import { describe, expect, test } from "vitest";
import { CheckpointError } from "../../../../src/errors.ts";
import { readTensor } from "../../../../src/model/checkpoint/entries/tensor-entry.ts";
import { convertGguf } from "../../../../src/model/checkpoint/gguf/convert-gguf.ts";
import { GgufFile } from "../../../../src/model/checkpoint/gguf/gguf.ts";
import { SafetensorsFile } from "../../../../src/model/checkpoint/safetensors/safetensors.ts";
import { joinedReads } from "../../../../src/model/checkpoint/source/joined-reads.ts";
import { memorySource } from "../../../../src/model/checkpoint/source/sources.ts";
import type { ByteSource } from "../../../../src/platform/platform.ts";
import { decode, f16Bits, f16Value } from "../../../../src/tensor/dtype.ts";
import { sizeOf } from "../../../../src/tensor/shape.ts";
import { collect, concat, oddSource, randomInt, watchedSource } from "../../../helpers/bytes.ts";
import {
  buildGguf,
  f32,
  ints,
  type Tensor,
  text,
  texts,
  tinyLlama,
  u32,
  type Value,
} from "../../../helpers/gguf-builder.ts";

function open(bytes: Uint8Array): Promise<GgufFile> {
  return GgufFile.open(memorySource(bytes, "x.gguf"));
}

/** Numbers that differ wherever an index or a nibble is mixed up; scales are ordinary f16 numbers. */
function randomBlocks(blockBytes: number, scales: number, blocks: number): Uint8Array<ArrayBuffer> {
  const random = randomInt(blockBytes);
  const out = Uint8Array.from({ length: blockBytes * blocks }, () => random(256));
  const view = new DataView(out.buffer);
  for (let block = 0; block < blocks; block++) {
    for (let s = 0; s < scales; s++) {
      view.setUint16(block * blockBytes + 2 * s, f16Bits((random(2001) - 1000) / 4096), true);
    }
  }
  return out;
}

/** Element by element, from the description of the block formats in ggml-common.h. */
const REFERENCE: Record<string, (block: DataView, i: number) => number> = {
  Q4_0: (b, i) => (nibble(b, 2, i) - 8) * half(b, 0),
  Q4_1: (b, i) => nibble(b, 4, i) * half(b, 0) + half(b, 2),
  Q8_0: (b, i) => b.getInt8(2 + i) * half(b, 0),
};
const half = (b: DataView, at: number) => f16Value(b.getUint16(at, true));
const nibble = (b: DataView, at: number, i: number) => (b.getUint8(at + (i % 16)) / (i < 16 ? 1 : 16)) & 15;

describe("reading", () => {
  test("metadata of every type", async () => {
    const all: Record<string, Value> = {
      u8: { type: 0, value: 255 },
      i8: { type: 1, value: -1 },
      u16: { type: 2, value: 65535 },
      i16: { type: 3, value: -2 },
      u32: u32(2 ** 32 - 1),
      i32: { type: 5, value: -3 },
      f32: f32(0.1),
      bool: { type: 7, value: 1 },
      string: text("ä\n"),
      u64: { type: 10, value: 2n ** 64n - 1n },
      i64: { type: 11, value: -(2n ** 40n) },
      f64: { type: 12, value: 0.1 },
      strings: texts(["a", ""]),
      ints: ints([1, -1]),
      ["__proto__"]: text("x"),
    };
    const { metadata } = await open(buildGguf(all, []).bytes);
    expect([...metadata]).toEqual(
      Object.entries({
        u8: 255,
        i8: -1,
        u16: 65535,
        i16: -2,
        u32: 2 ** 32 - 1,
        i32: -3,
        f32: Math.fround(0.1),
        bool: true,
        string: "ä\n",
        u64: 2n ** 64n - 1n,
        i64: -(2 ** 40),
        f64: 0.1,
        strings: ["a", ""],
        ints: Int32Array.of(1, -1),
        ["__proto__"]: "x",
      }),
    );
  });

  test.each([
    ["Q4_0", 2, 18, 1],
    ["Q4_1", 3, 20, 2],
    ["Q8_0", 8, 34, 1],
  ] as const)(
    "%s is dequantised like the reference, in chunks of any size",
    async (name, type, blockBytes, scales) => {
      const shape = [21, 64];
      const data = randomBlocks(blockBytes, scales, 42);
      const [entry] = (await open(buildGguf({}, [{ name: "t", type, shape, data }]).bytes)).entries;
      expect({ stored: entry!.stored, shape: entry!.shape, dtype: entry!.dtype }).toEqual({
        stored: name,
        shape,
        dtype: "f32",
      });
      const expected = Float32Array.from({ length: sizeOf(shape) }, (_, i) =>
        REFERENCE[name]!(new DataView(data.buffer, Math.floor(i / 32) * blockBytes, blockBytes), i % 32),
      );
      for (const chunkBytes of [1, 1024, 3000, 1e6]) {
        const chunks = await collect(entry!.stream(chunkBytes));
        expect(new Float32Array(chunks.buffer)).toEqual(expected);
      }
      expect(new Float32Array((await collect(entry!.streamRows(2))).buffer)).toEqual(expected);
    },
  );

  test("F32, F16 and BF16 are read as stored; other types are listed only", async () => {
    const data = Uint8Array.from({ length: 84 * 4 }, (_, i) => i);
    const tensors: Tensor[] = [
      { name: "a", type: 0, shape: [3], data: data.subarray(0, 12) },
      { name: "b", type: 1, shape: [5, 3], data: data.subarray(0, 30) },
      { name: "c", type: 30, shape: [1], data: data.subarray(0, 2) },
      { name: "d", type: 10, shape: [4, 256], data },
    ];
    const file = await open(buildGguf({}, tensors).bytes);
    expect(file.entries.map((e) => [e.name, e.stored, e.dtype, e.storedBytes])).toEqual([
      ["a", "F32", "f32", 12],
      ["b", "F16", "f16", 30],
      ["c", "BF16", "bf16", 2],
      ["d", "Q2_K", "f32", 336],
    ]);
    for (const i of [0, 1, 2])
      expect(await readTensor(file.entries[i]!)).toEqual(Uint8Array.from(tensors[i]!.data));
    await expect(readTensor(file.entries[3]!)).rejects.toThrow(/x\.gguf: d is Q2_K; supported are F32, F16/);
  });

  test("a source that hands out unaligned views is no problem", async () => {
    const { metadata, tensors } = tinyLlama();
    const { bytes } = buildGguf(metadata, tensors);
    const odd = await GgufFile.open(oddSource(bytes));
    for (const [i, entry] of (await open(bytes)).entries.entries()) {
      const read: Uint8Array[] = [];
      for await (const chunk of odd.entries[i]!.stream()) {
        expect(chunk.byteOffset % 4).toBe(0);
        read.push(chunk);
      }
      expect(concat(...read)).toEqual(await readTensor(entry));
    }
  });

  test("a header longer than the first read", async () => {
    const words = Array.from({ length: 60_000 }, (_, i) => `${i}`.padStart(80, "."));
    const { bytes, headerBytes } = buildGguf({ words: texts(words) }, []);
    expect(headerBytes).toBeGreaterThan(4 * 2 ** 20);
    expect((await open(bytes)).metadata.get("words")).toEqual(words);
  });
});

describe("refusing", () => {
  const one: Tensor = { name: "t", type: 0, shape: [8], data: new Uint8Array(32) };
  const change = (bytes: Uint8Array, at: number, value: bigint) => {
    new DataView(bytes.buffer).setBigUint64(at, value, true);
    return bytes;
  };
  const built = (metadata: Record<string, Value> = {}, tensors: Tensor[] = [one]) =>
    buildGguf(metadata, tensors);

  test.each<[problem: string, bytes: () => Uint8Array, message: RegExp]>([
    ["no bytes", () => new Uint8Array(0), /4 bytes expected at byte 0 of 0/],
    ["another kind of file", () => Uint8Array.from({ length: 64 }, () => 1), /does not begin with GGUF/],
    ["version 1", () => built().bytes.fill(1, 4, 5), /version 1; supported are 2 and 3/],
    ["big-endian", () => built().bytes.fill(0, 4, 7).fill(3, 7, 8), /little-endian/],
    [
      "more tensors than there is room for",
      () => change(built().bytes, 8, 2n ** 50n),
      /bytes expected at byte/,
    ],
    [
      "a count beyond 2^53",
      () => change(built().bytes, 16, 2n ** 63n),
      /9223372036854775808 at byte 16 is too large/,
    ],
    [
      "a string that runs out of the file",
      () => change(built({ k: u32(1) }).bytes, 24, 2n ** 40n),
      /1099511627776 bytes/,
    ],
    [
      "an array that does",
      () => change(built({ k: ints([1]) }).bytes, 41, 2n ** 50n),
      /bytes expected at byte 49/,
    ],
    ["an array of arrays", () => built({ k: ints([1]) }).bytes.fill(9, 37, 38), /unknown value type 9/],
    ["an unknown value type", () => built({ k: u32(1) }).bytes.fill(13, 33, 34), /unknown value type 13/],
    [
      "text that is not UTF-8",
      () => built({ k: text("x") }).bytes.fill(0xff, 45, 46),
      /string at byte 45 is not UTF-8/,
    ],
    ["odd alignment", () => built({ "general.alignment": u32(24) }).bytes, /general\.alignment is 24/],
    [
      "a tensor off the alignment",
      () => built({ "general.alignment": u32(64) }, [one, { ...one, name: "u" }]).bytes,
      /not a multiple of 64/,
    ],
    ["a tensor twice", () => built({}, [one, one]).bytes, /duplicate tensor "t"/],
    ["an unknown tensor type", () => built({}, [{ ...one, type: 99 }]).bytes, /t has the unknown type 99/],
    ["five dimensions", () => built({}, [{ ...one, shape: [1, 1, 1, 1, 8] }]).bytes, /5 dimensions/],
    [
      "rows that are not whole blocks",
      () => built({}, [{ ...one, type: 8, shape: [2, 16] }]).bytes,
      /impossible shape \[2, 16\]/,
    ],
    [
      "a size that overflows",
      () => built({}, [{ ...one, shape: [2 ** 40, 2 ** 40] }]).bytes,
      /impossible shape/,
    ],
    ["data cut off", () => built().bytes.slice(0, -1), /t at \[\d+, \d+\) in a file of \d+ bytes/],
  ])("%s", async (_, bytes, message) => {
    const source = watchedSource(bytes());
    const failure = GgufFile.open(source);
    await expect(failure).rejects.toThrow(CheckpointError);
    await expect(failure).rejects.toThrow(message);
  });

  test("overlapping tensors and duplicate keys", async () => {
    const { bytes, headerBytes } = built({}, [one, { ...one, name: "u" }]);
    await expect(open(change(bytes, headerBytes - 8, 0n))).rejects.toThrow(/u overlaps t|t overlaps u/);
    const twice = concat(built({ ab: u32(1), ac: u32(2) }).bytes);
    twice[24 + 18 + 9] = 0x62;
    await expect(open(twice)).rejects.toThrow(/duplicate key "ab"/);
  });
});

describe("converting", () => {
  async function convert(
    metadata: Record<string, Value>,
    tensors: readonly Tensor[],
    sourceOf: (bytes: Uint8Array) => ByteSource = (bytes) => memorySource(bytes, "x.gguf"),
  ) {
    const files = new Map<string, Uint8Array<ArrayBuffer>>();
    await convertGguf(sourceOf(buildGguf(metadata, tensors).bytes), {
      write: async (name, chunks) => void files.set(name, await collect(chunks)),
    });
    const json = (name: string) => JSON.parse(new TextDecoder().decode(files.get(name)!));
    return {
      files,
      json,
      weights: await SafetensorsFile.open(memorySource(files.get("model.safetensors")!)),
    };
  }

  async function halves(weights: SafetensorsFile, name: string): Promise<Float32Array> {
    const entry = weights.entry(name);
    expect(entry.stored).toBe("F16");
    return decode(await readTensor(entry), "f16", sizeOf(entry.shape));
  }

  test("with few reads where each is a request", async () => {
    const { metadata, tensors } = tinyLlama();
    const { files } = await convert(metadata, tensors);
    let watched: ReturnType<typeof watchedSource>;
    const joined = await convert(metadata, tensors, (bytes) => {
      watched = watchedSource(bytes);
      return joinedReads(watched);
    });
    expect(joined.files).toEqual(files);
    expect(watched!.reads.length).toBeLessThanOrEqual(1 + tensors.length / 4);
  });

  test("a Hugging Face folder, the same bytes every time", async () => {
    const { metadata, tensors } = tinyLlama();
    const { files, json, weights } = await convert(metadata, tensors);
    expect([...files.keys()]).toEqual([
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
      "config.json",
    ]);
    expect(json("config.json")).toEqual({
      architectures: ["LlamaForCausalLM"],
      model_type: "llama",
      attention_bias: false,
      bos_token_id: 0,
      eos_token_id: 0,
      head_dim: 16,
      hidden_act: "silu",
      hidden_size: 32,
      intermediate_size: 32,
      max_position_embeddings: 64,
      mlp_bias: false,
      num_attention_heads: 2,
      num_hidden_layers: 1,
      num_key_value_heads: 1,
      pad_token_id: null,
      rms_norm_eps: 1e-5,
      rope_scaling: null,
      rope_theta: 100000,
      tie_word_embeddings: true,
      torch_dtype: "float16",
      vocab_size: 3,
    });
    expect(weights.names.sort()).toEqual(
      [
        ...["input_layernorm", "post_attention_layernorm", "mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"],
        ...["self_attn.k_proj", "self_attn.o_proj", "self_attn.q_proj", "self_attn.v_proj"],
      ]
        .map((name) => `model.layers.0.${name}.weight`)
        .concat("model.embed_tokens.weight", "model.norm.weight")
        .sort(),
    );
    const norm = await halves(weights, "model.norm.weight");
    expect([...norm]).toEqual(Array.from({ length: 32 }, (_, i) => 1 + i / 64));
    const again = await convert(metadata, [...tensors].reverse());
    expect(again.files).toEqual(files);
  });

  test("rows of q and k go back to the order of rotate-half RoPE, those of v stay", async () => {
    const { metadata, tensors } = tinyLlama();
    const { weights } = await convert(metadata, tensors);
    // The first column of row r was r. Of the pair (2i, 2i + 1) that GGUF rotates, i and i + 8 are the halves.
    const head = [0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15];
    const firstColumn = async (name: string) => {
      const values = await halves(weights, `model.layers.0.self_attn.${name}.weight`);
      return [...values].filter((_, i) => i % 32 === 0);
    };
    expect(await firstColumn("q_proj")).toEqual([...head, ...head.map((r) => 16 + r)]);
    expect(await firstColumn("k_proj")).toEqual(head);
    expect(await firstColumn("v_proj")).toEqual(Array.from({ length: 16 }, (_, r) => r));
  });

  test("rounds to the nearest f16, ties to even, and refuses what overflows", async () => {
    const { metadata, tensors } = tinyLlama();
    const withNorm = (values: Float32Array) =>
      tensors.map((t) =>
        t.name === "output_norm.weight" ? { ...t, data: new Uint8Array(values.buffer) } : t,
      );
    const values = new Float32Array(32);
    // Steps of f16 above 1 are 2^-10: a tie below an even step, one below an odd one, and just above a tie.
    values.set([1 + 2 ** -11, 1 + 3 * 2 ** -11, 1 + 2 ** -11 + 2 ** -20, 2 ** -25, 65519]);
    const norm = await halves((await convert(metadata, withNorm(values))).weights, "model.norm.weight");
    expect([...norm.slice(0, 5)]).toEqual([1, 1 + 2 ** -9, 1 + 2 ** -10, 0, 65504]);
    values[0] = 65520;
    const failure = convert(metadata, withNorm(values));
    await expect(failure).rejects.toThrow(/x\.gguf: model\.norm\.weight has 65520, not a finite f16/);
  });

  test("an output matrix of its own, linear RoPE scaling", async () => {
    const { metadata, tensors } = tinyLlama();
    const output = { ...tensors[0]!, name: "output.weight" };
    const scaling = { "llama.rope.scaling.type": text("linear"), "llama.rope.scaling.factor": f32(4) };
    const { json, weights } = await convert({ ...metadata, ...scaling }, [...tensors, output]);
    expect(json("config.json")).toMatchObject({
      tie_word_embeddings: false,
      rope_scaling: { rope_type: "linear", factor: 4 },
    });
    expect(weights.entry("lm_head.weight").shape).toEqual([3, 32]);
  });

  test("tokenizer", async () => {
    const { metadata, tensors } = tinyLlama();
    const { json } = await convert(metadata, tensors);
    const tokenizer = json("tokenizer.json");
    expect(tokenizer.model).toMatchObject({
      type: "BPE",
      vocab: { "<|end|>": 0, a: 1, aa: 2 },
      merges: [["a", "a"]],
    });
    expect(tokenizer.added_tokens).toEqual([
      {
        id: 0,
        content: "<|end|>",
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      },
    ]);
    expect(tokenizer.pre_tokenizer.pretokenizers).toMatchObject([
      { type: "Digits", individual_digits: true },
      { type: "ByteLevel", add_prefix_space: false, use_regex: true },
    ]);
    expect(tokenizer.post_processor).toBe(null);
    expect(json("tokenizer_config.json")).toMatchObject({
      bos_token: "<|end|>",
      eos_token: "<|end|>",
      pad_token: null,
      chat_template: "{{ messages }}",
      model_max_length: 64,
    });
  });

  test.each<[problem: string, metadata: Record<string, Value>, message: RegExp]>([
    ["architecture", { "general.architecture": text("gpt2") }, /architecture gpt2; supported is llama/],
    ["experts", { "llama.expert_count": u32(8) }, /llama\.expert_count = 8 is not supported/],
    ["partial rotation", { "llama.rope.dimension_count": u32(8) }, /heads of 16 with 8 rotated/],
    ["heads", { "llama.attention.head_count": u32(3) }, /key_length: expected a whole number/],
    [
      "shapes",
      { "llama.feed_forward_length": u32(64) },
      /ffn_gate\.weight has shape \[32, 32\], expected \[64, 32\]/,
    ],
    ["layers", { "llama.block_count": u32(2 ** 31) }, /there is no tensor blk\.1\.attn_norm\.weight/],
    ["RoPE", { "llama.rope.scaling.type": text("yarn") }, /RoPE scaling yarn/],
    ["value type", { "llama.block_count": text("1") }, /block_count: expected a number, found 1/],
    ["tokenizer", { "tokenizer.ggml.pre": text("llama-bpe") }, /gpt2 with pre-tokenizer llama-bpe/],
    ["BOS", { "tokenizer.ggml.add_bos_token": { type: 7, value: 1 } }, /add_bos_token is not supported/],
    ["token types", { "tokenizer.ggml.token_type": ints([1]) }, /3 tokens, but 1 token types/],
    ["tokens", { "tokenizer.ggml.tokens": texts(["a", "a", "b"]) }, /same token occurs twice/],
    ["merges", { "tokenizer.ggml.merges": texts(["aa"]) }, /"aa" is not a merge/],
  ])("refuses what it cannot express: %s", async (_, changed, message) => {
    const { metadata, tensors } = tinyLlama();
    const failure = convert({ ...metadata, ...changed }, tensors);
    await expect(failure).rejects.toThrow(CheckpointError);
    await expect(failure).rejects.toThrow(message);
  });

  test("refuses tensors that it has no use for", async () => {
    const { metadata, tensors } = tinyLlama();
    const failure = convert(metadata, [...tensors, { ...tensors[1]!, name: "rope_freqs.weight" }]);
    await expect(failure).rejects.toThrow(/tensors of unknown use: rope_freqs\.weight/);
  });
});
