import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { CheckpointError, ImageError } from "../../../src/errors.ts";
import { decodeImage } from "../../../src/images/files/decode.ts";
import { readLlamaConfig } from "../../../src/model/checkpoint/config/decoder-config.ts";
import { readTensor } from "../../../src/model/checkpoint/entries/tensor-entry.ts";
import { parsePythonJson } from "../../../src/model/checkpoint/json/python-json.ts";
import { openCheckpoint } from "../../../src/model/checkpoint/open-checkpoint.ts";
import { SafetensorsFile } from "../../../src/model/checkpoint/safetensors/safetensors.ts";
import {
  type TensorToWrite,
  writeSafetensors,
} from "../../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { memorySource } from "../../../src/model/checkpoint/source/sources.ts";
import { exportModel } from "../../../src/model/export/export.ts";
import { loadDualEncoder } from "../../../src/patching/dual-encoder.ts";
import { loadModel } from "../../../src/patching/model.ts";
import { collect, concat, utf8 } from "../../helpers/bytes.ts";
import { fixtureFiles, tensorsOf, withTensors } from "../../helpers/checkpoints.ts";
import { testDevice } from "../../helpers/device.ts";
import { changeJson, type Files } from "../../helpers/nano.ts";

async function logitsOf(files: Files): Promise<Float32Array> {
  using model = await loadModel(memoryFolder(files, "m"), { device: await testDevice() });
  return model.run(model.promptFromIds([20, 31, 42, 53])).logits!.read();
}

const text = (files: Files, path: string) => new TextDecoder().decode(files.get(path)!);

describe("JSON as Python writes it", () => {
  test("has Infinity, -Infinity and NaN, but not in strings", () => {
    const json = parsePythonJson(
      '{"a":Infinity,"b":[-Infinity,NaN],"c":"NaN, Infinity \\" -Infinity","d":1e5}',
    );
    expect(json).toEqual({
      a: Number.POSITIVE_INFINITY,
      b: [Number.NEGATIVE_INFINITY, Number.NaN],
      c: 'NaN, Infinity " -Infinity',
      d: 1e5,
    });
    for (const bad of [
      "{a: NaN}",
      "[1Infinity]",
      "[Infinity1]",
      "[NaNs]",
      "[+Infinity]",
      "[- Infinity]",
      "[nan]",
    ]) {
      expect(() => parsePythonJson(bad), bad).toThrow(SyntaxError);
    }
  });

  test("a config with it loads; a field that is read is refused by name", async () => {
    const files = fixtureFiles("llama");
    const plain = await logitsOf(files);
    const config = text(files, "config.json");
    const more = '{"max_score": Infinity, "least": -Infinity, "x": [NaN], ';
    files.set("config.json", utf8(config.replace("{", more)));
    expect(await logitsOf(files)).toEqual(plain);
    files.set("config.json", utf8(config.replace(/"rms_norm_eps": [^,]*/, '"rms_norm_eps": Infinity')));
    await expect(logitsOf(files)).rejects.toThrow(/expected rms_norm_eps to be a number/);
    files.set("config.json", utf8(config.replace("{", "{Infinity")));
    await expect(logitsOf(files)).rejects.toThrow(/config\.json: not valid JSON/);
  });

  test("exported, they stay what they are", async () => {
    const files = fixtureFiles("llama");
    files.set(
      "config.json",
      utf8(text(files, "config.json").replace("{", '{"max_score": -Infinity, "x": [NaN, 2.0], ')),
    );
    const written = await exported(files);
    expect(text(written, "config.json")).toMatch(/"max_score": -Infinity,\s+"x": \[\s*NaN,\s+2\.0\s*\]/);
    expect(await logitsOf(written)).toEqual(await logitsOf(files));
  });
});

/** A file with one more tensor, of a dtype that nothing here writes. */
async function withForeignTensor(files: Files, name: string, dtype: string, shape: number[], bytes: number) {
  const whole = files.get("model.safetensors")!;
  const length = Number(new DataView(whole.buffer, whole.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(whole.subarray(8, 8 + length)));
  const end = whole.length - 8 - length;
  header[name] = { dtype, shape, data_offsets: [end, end + bytes] };
  const head = utf8(JSON.stringify(header));
  const prefix = new Uint8Array(8);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(head.length), true);
  const more = new Uint8Array(bytes);
  return new Map([...files, ["model.safetensors", concat(prefix, head, whole.subarray(8 + length), more)]]);
}

describe("a tensor of a dtype that is not read", () => {
  test.each([
    ["C64", [3], 24],
    ["F4", [6], 3],
    ["F6_E2M3", [4], 3],
    ["F6_E3M2", [4], 3],
    ["F8_E4M3FNUZ", [3], 3],
    ["F8_E5M2FNUZ", [3], 3],
  ])("%s stops nothing unless it is needed", async (dtype, shape, bytes) => {
    const plain = fixtureFiles("llama");
    const unneeded = await withForeignTensor(plain, "score.weight", dtype, shape, bytes);
    expect(await logitsOf(unneeded)).toEqual(await logitsOf(plain));
    await using checkpoint = await openCheckpoint(memoryFolder(unneeded));
    expect(checkpoint.entry("score.weight")).toMatchObject({ stored: dtype, shape, storedBytes: bytes });
    await expect(readTensor(checkpoint.entry("score.weight"))).rejects.toThrow(
      `has dtype ${dtype}; supported are`,
    );
    expect([...(await tensorsOf(await exported(unneeded))).keys()]).not.toContain("score.weight");

    const tensors = await tensorsOf(plain);
    tensors.delete("model.norm.weight");
    const without = await withTensors(plain, tensors.values());
    const needed = logitsOf(await withForeignTensor(without, "model.norm.weight", dtype, shape, bytes));
    await expect(needed).rejects.toThrow(CheckpointError);
    await expect(needed).rejects.toThrow(`model.norm.weight has dtype ${dtype}; supported are`);
  });

  test("still has to have its size", async () => {
    const files = await withForeignTensor(fixtureFiles("llama"), "score.weight", "C64", [3], 23);
    await expect(openCheckpoint(memoryFolder(files))).rejects.toThrow(/is C64 \[3\], 24 bytes, but has 23/);
  });
});

describe("a Git LFS pointer is called one", () => {
  const POINTER = utf8(
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n",
  );
  const SAYS =
    /this is a Git LFS pointer, not the file of 12345 bytes that it stands for; run "git lfs install" and then "git lfs pull"/;

  test.each([
    ...[
      "model.safetensors",
      "config.json",
      "tokenizer.json",
      "tokenizer_config.json",
      "generation_config.json",
    ],
    ...["model.safetensors.index.json", "chat_template.jinja", "assembly.json"],
  ])("%s", async (path) => {
    const files = fixtureFiles("llama");
    if (path.endsWith("index.json")) files.delete("model.safetensors");
    files.set(path, POINTER);
    const load = logitsOf(files);
    await expect(load).rejects.toThrow(CheckpointError);
    await expect(load).rejects.toThrow(`m/${path}: `);
    await expect(load).rejects.toThrow(SAYS);
  });

  test("a shard, an adapter, a lone file, a picture", async () => {
    const files = fixtureFiles("llava-f16-sharded");
    const shard = [...files.keys()].find((path) => path.endsWith(".safetensors"))!;
    files.set(shard, POINTER);
    await expect(logitsOf(files)).rejects.toThrow(SAYS);

    const config = { peft_type: "LORA", r: 1, target_modules: ["q_proj"] };
    const adapter = memoryFolder(
      new Map([
        ["adapter_config.json", utf8(JSON.stringify(config))],
        ["adapter_model.safetensors", POINTER],
      ]),
    );
    const device = await testDevice();
    const tuned = loadModel("test/fixtures/llama/model", { device, adapters: [adapter] });
    await expect(tuned).rejects.toThrow(SAYS);

    const folder = await mkdtemp(join(tmpdir(), "xpatch-lfs-"));
    try {
      for (const name of ["x.safetensors", "x.gguf"]) {
        await writeFile(join(folder, name), POINTER);
        await expect(openCheckpoint(join(folder, name))).rejects.toThrow(SAYS);
      }
    } finally {
      await rm(folder, { recursive: true });
    }
    await expect(decodeImage(POINTER)).rejects.toThrow(ImageError);
    await expect(decodeImage(POINTER)).rejects.toThrow(SAYS);
  });

  test("other damage is not", async () => {
    const damaged = utf8("version https://example.org/spec/v1\n");
    await expect(SafetensorsFile.open(memorySource(damaged))).rejects.toThrow(/not a valid safetensors file/);
  });
});

async function exported(files: Files): Promise<Files> {
  const written: Files = new Map();
  const sink = {
    async write(name: string, chunks: AsyncIterable<Uint8Array>) {
      written.set(name, await collect(chunks));
    },
  };
  await using checkpoint = await openCheckpoint(memoryFolder(files, "m"));
  await exportModel(checkpoint, await testDevice(), sink);
  return written;
}

// Python's side of it is scripts/compare-versions.py: transformers 4.46.3 and 5.24.0 give the same logits to the last bit.
describe("exported for transformers 4.46 and 5", () => {
  const LLAMA3 = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
  const FIELDS = { defaults: { rms_norm_eps: 1e-6, hidden_act: "silu" } };

  test.each<[name: string, given: Record<string, unknown>, rope: Record<string, unknown>, scaling: unknown]>([
    ["the spelling of 4.x", { rope_theta: 500.5, rope_scaling: null }, { theta: 500.5 }, null],
    ["that of 5", { rope_parameters: { rope_type: "default", rope_theta: 500.5 } }, { theta: 500.5 }, null],
    ["neither", {}, { theta: 10000 }, null],
    [
      "linear, as 4.x had it first",
      { rope_theta: 500.5, rope_scaling: { type: "linear", factor: 4 } },
      { theta: 500.5, scaling: { type: "linear", factor: 4 } },
      { type: "linear", rope_type: "linear", factor: 4 },
    ],
    [
      "llama3 whose context is that of the model",
      { max_position_embeddings: 64, rope_parameters: { ...LLAMA3, rope_theta: 500.5 } },
      {
        theta: 500.5,
        scaling: { type: "llama3", factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalContext: 64 },
      },
      { ...LLAMA3, original_max_position_embeddings: 64 },
    ],
  ])("RoPE in both spellings, from %s", async (_, given, rope, scaling) => {
    for (const fixture of ["llama", "llava"]) {
      const files = fixtureFiles(fixture);
      const config = JSON.parse(text(files, "config.json"));
      const inner = fixture === "llama" ? config : config.text_config;
      for (const key of ["rope_theta", "rope_scaling", "rope_parameters"]) delete inner[key];
      Object.assign(inner, given);
      files.set("config.json", utf8(JSON.stringify(config)));
      const written = JSON.parse(text(await exported(files), "config.json"));
      const section = fixture === "llama" ? written : written.text_config;
      expect([section.rope_theta, section.rope_scaling]).toEqual([rope["theta"], scaling]);
      const { rope_theta: _theta, rope_scaling: _scaling, ...as5 } = section;
      const { rope_parameters: _parameters, ...as4 } = section;
      for (const reading of [section, as4, as5]) {
        expect(readLlamaConfig(reading, FIELDS, "config").rope).toEqual(rope);
      }
    }
  });

  test.each([
    "mistral",
    "gemma",
    "opt",
    "gpt2",
    "gpt_neox",
    "gpt_neox-sequential",
    "persimmon",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "olmo2",
    "phi3",
    "phi3-longrope",
  ])("%s under its own names, to the same logits", async (fixture) => {
    const files = fixtureFiles(fixture);
    const written = await exported(files);
    const names = async (files: Files) => [...(await tensorsOf(files)).keys()].sort();
    expect(await names(written)).toEqual(await names(files));
    expect(await logitsOf(written)).toEqual(await logitsOf(files));
    const again = await exported(written);
    expect(JSON.parse(text(again, "config.json"))).toEqual(JSON.parse(text(written, "config.json")));
  });

  test("GPT-NeoX's base and share of RoPE under its names, from either spelling; GPT-2 without any", async () => {
    for (const given of [
      { rotary_pct: 0.5, rotary_emb_base: 500.5 },
      { rope_parameters: { rope_type: "default", rope_theta: 500.5, partial_rotary_factor: 0.5 } },
    ]) {
      const files = fixtureFiles("gpt_neox");
      const { rotary_pct, rotary_emb_base, ...rest } = JSON.parse(text(files, "config.json"));
      files.set("config.json", utf8(JSON.stringify({ ...rest, ...given })));
      const written = await exported(files);
      expect(JSON.parse(text(written, "config.json"))).toMatchObject({
        rotary_pct: 0.5,
        rotary_emb_base: 500.5,
        rope_scaling: null,
        rope_parameters: { rope_type: "default", rope_theta: 500.5, partial_rotary_factor: 0.5 },
      });
      expect(await logitsOf(written)).toEqual(await logitsOf(files));
      expect(await logitsOf(written)).not.toEqual(await logitsOf(fixtureFiles("gpt_neox")));
    }
    const config = JSON.parse(text(await exported(fixtureFiles("gpt2")), "config.json"));
    expect(Object.keys(config).filter((key) => key.startsWith("rope"))).toEqual([]);
  });

  test.each([
    ["gpt2", "transformer.wte.weight", "lm_head.weight"],
    ["gpt_neox-sequential", "gpt_neox.embed_in.weight", "embed_out.weight"],
    ["gpt_neox-sequential", "gpt_neox.embed_in.weight", "lm_head.weight"],
  ])("%s: the head that a tied file has as well", async (fixture, embedding, head) => {
    const files = fixtureFiles(fixture);
    const tensors = await tensorsOf(files);
    const copied = { ...tensors.get(embedding)!, name: head };
    const changedData = (copied.data as Uint8Array).slice();
    changedData[0]! ^= 1;
    for (const [data, tied] of [
      [copied.data, true],
      [changedData, false],
    ] as const) {
      const both = await withTensors(files, [...tensors.values(), { ...copied, data: data as never }]);
      const written = await exported(both);
      expect([...(await tensorsOf(written)).keys()]).toEqual(expect.arrayContaining([embedding, head]));
      expect(JSON.parse(text(written, "config.json")).tie_word_embeddings).toBe(tied);
      expect(await logitsOf(written)).toEqual(await logitsOf(both));
      const plain = await logitsOf(files);
      if (tied) expect(await logitsOf(both)).toEqual(plain);
      else expect(await logitsOf(both)).not.toEqual(plain);
    }
  });

  test("a LLaVA under the names, with the ids and the ties of published ones", async () => {
    for (const fixture of ["llava-as-saved", "llava-bf16-module-names", "llava"]) {
      const files = fixtureFiles(fixture);
      const config = JSON.parse(text(files, "config.json"));
      const { image_token_index: _, ...rest } = config;
      files.set("config.json", utf8(JSON.stringify({ ...rest, image_token_id: 431, image_seq_length: 576 })));
      const written = await exported(files);
      const names = [...(await tensorsOf(written)).keys()];
      const published =
        /^(language_model\.(model|lm_head)|vision_tower\.vision_model|multi_modal_projector)\./;
      expect(names.filter((name) => !published.test(name))).toEqual([]);
      const json = JSON.parse(text(written, "config.json"));
      expect(json).toMatchObject({
        image_token_index: 431,
        image_seq_length: 16,
        tie_word_embeddings: false,
      });
      expect(json).not.toHaveProperty("image_token_id");
      expect(json.text_config.tie_word_embeddings).toBe(false);
      expect(await logitsOf(written)).toEqual(await logitsOf(files));
    }
  });

  test("a tied config whose file has a matrix of its own is not tied there", async () => {
    const files = fixtureFiles("llava");
    const tied = new Map(files);
    changeJson(tied, "config.json", { tie_word_embeddings: true });
    const written = await exported(tied);
    const json = JSON.parse(text(written, "config.json"));
    expect([json.tie_word_embeddings, json.text_config.tie_word_embeddings]).toEqual([false, false]);
    expect(await logitsOf(written)).toEqual(await logitsOf(files));
  });

  test("a tied model whose one matrix is called the head has it as the embedding there", async () => {
    for (const [fixture, tie] of [
      ["llama-gqa-tied", {}],
      ["llava", { tie_word_embeddings: true }],
    ] as const) {
      const files = fixtureFiles(fixture);
      const tensors = await tensorsOf(files);
      const embedding = [...tensors.keys()].find((name) => name.endsWith("embed_tokens.weight"))!;
      const head = fixture === "llava" ? "language_model.lm_head.weight" : "lm_head.weight";
      const bare = [...tensors.values()].filter(({ name }) => name !== embedding && name !== head);
      const moved = await withTensors(files, [...bare, { ...tensors.get(embedding)!, name: head }], tie);
      const written = await exported(moved);
      const names = [...(await tensorsOf(written)).keys()];
      expect([names.includes(embedding), names.includes(head)]).toEqual([true, false]);
      expect(await logitsOf(written)).toEqual(await logitsOf(moved));
    }
  });

  test("processor and chat template where 4.46 looks for them, special tokens as it has them", async () => {
    const files = fixtureFiles("llava");
    const preprocessor = JSON.parse(text(files, "preprocessor_config.json"));
    const inner = { ...preprocessor, image_processor_type: "CLIPImageProcessorFast" };
    files.delete("preprocessor_config.json");
    changeJson(files, "processor_config.json", { image_processor: inner });
    changeJson(files, "tokenizer_config.json", {
      extra_special_tokens: ["<image>"],
      tokenizer_class: "TokenizersBackend",
    });
    files.set("chat_template.jinja", utf8("{{ messages }}"));
    const written = await exported(files);
    expect(JSON.parse(text(written, "preprocessor_config.json"))).toEqual({
      ...preprocessor,
      image_processor_type: "CLIPImageProcessor",
    });
    const tokenizer = JSON.parse(text(written, "tokenizer_config.json"));
    expect(tokenizer).toMatchObject({
      additional_special_tokens: ["<image>"],
      chat_template: "{{ messages }}",
      tokenizer_class: "PreTrainedTokenizerFast",
    });
    expect(tokenizer).not.toHaveProperty("extra_special_tokens");
  });
});

test("SigLIP pads its texts with the tokenizer's token, whatever pad_token_id says", async () => {
  const files = fixtureFiles("siglip");
  const config = JSON.parse(text(files, "config.json"));
  changeJson(files, "config.json", { text_config: { ...config.text_config, pad_token_id: 5 } });
  using model = await loadDualEncoder(memoryFolder(files), { device: await testDevice() });
  expect(model.prompt("a").ids.slice(-3)).toEqual([1, 1, 1]);
});

test("ends of answers that are no ids are refused, not passed over", async () => {
  for (const [value, found] of [
    ["2", '"2"'],
    [[2, "</s>"], '[2,"</s>"]'],
    [2.5, "2.5"],
  ] as const) {
    const files = fixtureFiles("llama");
    files.set("generation_config.json", utf8(JSON.stringify({ eos_token_id: value })));
    await expect(logitsOf(files)).rejects.toThrow(
      `m: expected eos_token_id to be an id or a list of them, found ${found}`,
    );
  }
});

describe("tensors that the index of shards does not mention", () => {
  /** The tensors of a fixture in two shards, each also with those of `more`; `without` is left out of the index. */
  async function sharded(
    name: string,
    without: string,
    more: (shard: number) => TensorToWrite[],
  ): Promise<Files> {
    const files = fixtureFiles(name);
    const tensors = [...(await tensorsOf(files)).values()];
    files.delete("model.safetensors");
    const half = Math.ceil(tensors.length / 2);
    const weight_map: Record<string, string> = {};
    for (const [shard, part] of [tensors.slice(0, half), tensors.slice(half)].entries()) {
      files.set(`${shard}.safetensors`, await collect(writeSafetensors([...part, ...more(shard)])));
      for (const tensor of part)
        if (tensor.name !== without) weight_map[tensor.name] = `${shard}.safetensors`;
    }
    files.set("model.safetensors.index.json", utf8(JSON.stringify({ weight_map })));
    return files;
  }

  // As transformers 5.24 does: it reads all that is in the shards.
  test("count", async () => {
    const plain = await logitsOf(fixtureFiles("llama"));
    expect(await logitsOf(await sharded("llama", "model.norm.weight", () => []))).toEqual(plain);
  });

  test("are refused where they would make another model", async () => {
    const name = "model.layers.0.self_attn.q_proj.weight_scale";
    const scale = { name, stored: "F32", shape: [1], data: new Uint8Array(Float32Array.of(2).buffer) };
    await expect(
      logitsOf(await sharded("llama", "", (shard) => (shard === 1 ? [scale] : []))),
    ).rejects.toThrow(name);
  });

  test("do not stand for those that it gives to another shard", async () => {
    const plain = await logitsOf(fixtureFiles("llama"));
    const norm = (await tensorsOf(fixtureFiles("llama"))).get("model.norm.weight")!;
    const files = await sharded("llama", "", () => []);
    const index = JSON.parse(text(files, "model.safetensors.index.json"));
    const shard = index.weight_map["model.norm.weight"] as string;
    const other = shard === "0.safetensors" ? "1.safetensors" : "0.safetensors";
    const inOther = [...(await tensorsOf(new Map([["model.safetensors", files.get(other)!]]))).values()];
    const zeros = { ...norm, data: new Uint8Array(norm.data.length) };
    files.set(other, await collect(writeSafetensors([...inOther, zeros])));
    expect(await logitsOf(files)).toEqual(plain);
  });
});
