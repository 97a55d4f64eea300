import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { collected } from "../../../../src/model/checkpoint/entries/packed-source.ts";
import { convertGguf } from "../../../../src/model/checkpoint/gguf/convert-gguf.ts";
import { openCheckpoint } from "../../../../src/model/checkpoint/open-checkpoint.ts";
import { floatRuns } from "../../../../src/model/checkpoint/packing/float-runs.ts";
import { packing } from "../../../../src/model/checkpoint/packing/pack.ts";
import {
  type TensorToWrite,
  writeSafetensors,
} from "../../../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { type Folder, localFolder, memoryFolder } from "../../../../src/model/checkpoint/source/folder.ts";
import { memorySource } from "../../../../src/model/checkpoint/source/sources.ts";
import type { Quantise } from "../../../../src/model/checkpoint/weights/quantise.ts";
import { exportModel } from "../../../../src/model/export/export.ts";
import { loadModel } from "../../../../src/patching/model.ts";
import { run } from "../../../../src/patching/run.ts";
import { fourBit } from "../../../../src/tensor/packed/packed-formats.ts";
import { collect, concat } from "../../../helpers/bytes.ts";
import { expectClose, seededNumbers } from "../../../helpers/compare.ts";
import { testDevice } from "../../../helpers/device.ts";
import { buildGguf, type Tensor, tinyLlama } from "../../../helpers/gguf-builder.ts";
import { changeJson, type Files } from "../../../helpers/nano.ts";

const IDS = [30, 41, 52, 63];
const LLAMA = "test/fixtures/llama/model";

async function logitsOf(ref: string | Folder, quantise?: Quantise, ids: readonly number[] = IDS) {
  const device = await testDevice();
  const model = await loadModel(ref, { device, ...(quantise && { quantise }) });
  const { logits } = run(model, model.promptFromIds(ids), { logits: "all" });
  const values = await logits!.read();
  const formats = new Set(
    [...model.loaded.linears.values()].map(({ layers }) => layers[0]!.layer.weight.format),
  );
  model.dispose();
  return { values, formats };
}

/** The files of a llama folder, its projections as bitsandbytes stores them. */
async function bitsandbytesFolder(): Promise<Files> {
  const files: Files = new Map();
  for (const path of ["config.json", "tokenizer.json", "tokenizer_config.json"]) {
    files.set(path, Uint8Array.from(readFileSync(join(LLAMA, path))));
  }
  changeJson(files, "config.json", {
    quantization_config: { quant_method: "bitsandbytes", load_in_4bit: true },
  });
  await using checkpoint = await openCheckpoint(LLAMA);
  const tensors: TensorToWrite[] = [];
  for (const entry of checkpoint.entries) {
    if (!entry.name.endsWith("_proj.weight")) {
      tensors.push({
        name: entry.name,
        stored: entry.stored,
        shape: entry.shape,
        data: () => entry.stream(),
      });
      continue;
    }
    const shape = entry.shape as [number, number];
    const parts = await collected(packing(entry.name, fourBit("nf4"), shape, (n) => floatRuns(entry, n)));
    const elements = shape[0] * shape[1];
    const nested = new Float32Array(parts.get("nested")!.buffer);
    const add = (part: string, stored: string, values: Uint8Array, count: number) =>
      tensors.push({ name: `${entry.name}${part}`, stored, shape: [count], data: values.slice() });
    const bytes = (values: Float32Array) => new Uint8Array(values.slice().buffer);
    const codes = parts.get("codes")!.subarray(0, elements / 2);
    add(
      "",
      "U8",
      codes.map((byte) => (byte >> 4) | (byte << 4)),
      elements / 2,
    );
    add(".absmax", "U8", parts.get("scales")!.subarray(0, elements / 64), elements / 64);
    add(".quant_map", "F32", bytes(Float32Array.from(fourBit("nf4").table!)), 16);
    add(".nested_quant_map", "F32", bytes(nested.subarray(1, 257)), 256);
    add(".nested_absmax", "F32", bytes(nested.subarray(257)), nested.length - 257);
    const state = {
      quant_type: "nf4",
      blocksize: 64,
      dtype: "float32",
      shape,
      nested_blocksize: 256,
      nested_dtype: "float32",
      nested_offset: nested[0],
    };
    const json = new TextEncoder().encode(JSON.stringify(state));
    add(".quant_state.bitsandbytes__nf4", "U8", json, json.length);
  }
  files.set("model.safetensors", await collect(writeSafetensors(tensors)));
  return files;
}

/** The files of a llama folder whose projections are in 8 bits as LLM.int8 stores them, and of one with the numbers that these stand for. */
async function int8Folders(): Promise<{ packed: Files; plain: Files }> {
  const [packed, plain]: [Files, Files] = [new Map(), new Map()];
  for (const path of ["config.json", "tokenizer.json", "tokenizer_config.json"]) {
    for (const files of [packed, plain]) files.set(path, Uint8Array.from(readFileSync(join(LLAMA, path))));
  }
  changeJson(packed, "config.json", {
    quantization_config: { quant_method: "bitsandbytes", load_in_8bit: true },
  });
  await using checkpoint = await openCheckpoint(LLAMA);
  const inPacked: TensorToWrite[] = [];
  const inPlain: TensorToWrite[] = [];
  for (const entry of checkpoint.entries) {
    const { name, shape, stored } = entry;
    if (!name.endsWith("_proj.weight")) {
      for (const tensors of [inPacked, inPlain]) {
        tensors.push({ name, stored, shape, data: () => entry.stream() });
      }
      continue;
    }
    const [rows, width] = shape as [number, number];
    const values = new Float32Array(rows * width);
    let at = 0;
    for await (const run of floatRuns(entry, width)) {
      values.set(run, at);
      at += run.length;
    }
    const largest = Float32Array.from({ length: rows }, (_, row) =>
      Math.max(...values.subarray(row * width, (row + 1) * width).map(Math.abs)),
    );
    const codes = Int8Array.from(values, (value, i) =>
      Math.round((value * 127) / largest[Math.floor(i / width)]!),
    );
    const numbers = Float32Array.from(codes, (code, i) => (code * largest[Math.floor(i / width)]!) / 127);
    const bytes = ({ buffer }: { buffer: ArrayBufferLike }) => new Uint8Array(buffer as ArrayBuffer);
    const module = name.slice(0, -".weight".length);
    inPacked.push(
      { name, stored: "I8", shape, data: bytes(codes) },
      { name: `${module}.SCB`, stored: "F32", shape: [rows], data: bytes(largest) },
      { name: `${module}.weight_format`, stored: "U8", shape: [], data: new Uint8Array(1) },
    );
    inPlain.push({ name, stored: "F32", shape, data: bytes(numbers) });
  }
  packed.set("model.safetensors", await collect(writeSafetensors(inPacked)));
  plain.set("model.safetensors", await collect(writeSafetensors(inPlain)));
  return { packed, plain };
}

describe("folders of quantised weights", () => {
  it.each<[string, Quantise]>([
    ["llama", { linear: "nf4", head: "q4_1", embedding: { format: "int8", group: 8 } }],
    ["gpt2", { linear: { format: "int4", group: 16, zeros: true } }],
  ])("%s: what is written quantised is what quantising on load gives", async (name, quantise) => {
    const path = `test/fixtures/${name}/model`;
    const files: Files = new Map();
    await using checkpoint = await openCheckpoint(path);
    const sink = {
      write: async (file: string, chunks: AsyncIterable<Uint8Array>) =>
        void files.set(file, await collect(chunks)),
    };
    await exportModel(checkpoint, await testDevice(), sink, { quantise });
    const [stored, onLoad] = [await logitsOf(memoryFolder(files)), await logitsOf(path, quantise)];
    expect(stored.formats).toEqual(onLoad.formats);
    expectClose(stored.values, onLoad.values, { atol: 1e-6, rtol: 1e-6 });
    changeJson(files, "config.json", { quantization_config: { quant_method: "xpatch", version: 2 } });
    await expect(openCheckpoint(memoryFolder(files))).rejects.toThrow("expected version 1");
  });

  it("of bitsandbytes keep their 4 bits", async () => {
    const files = await bitsandbytesFolder();
    const [stored, onLoad] = [await logitsOf(memoryFolder(files)), await logitsOf(LLAMA, "nf4")];
    expect(stored.formats).toEqual(new Set(["nf4", "f32"]));
    expectClose(stored.values, onLoad.values, { atol: 1e-6, rtol: 1e-6 });
    const device = await testDevice();
    await expect(loadModel(memoryFolder(files), { device, quantise: "int8" })).rejects.toThrow(
      "would lose twice",
    );
    await expect(loadModel(localFolder(LLAMA), { device, quantise: "int8" })).resolves.toBeDefined();
  });

  it("of LLM.int8 keep their 8 bits, a scale a row", async () => {
    const { packed, plain } = await int8Folders();
    const [stored, expected] = [await logitsOf(memoryFolder(packed)), await logitsOf(memoryFolder(plain))];
    expect(stored.formats).toEqual(new Set(["int8", "f32"]));
    expectClose(stored.values, expected.values, { atol: 1e-5, rtol: 1e-5 });
    const asStored = await logitsOf(LLAMA);
    expect(
      Math.max(...stored.values.map((value, i) => Math.abs(value - asStored.values[i]!))),
    ).toBeGreaterThan(1e-4);
  });
});

describe("GGUF files", () => {
  it("are loaded as they are: the same logits as the converted folder", async () => {
    const { metadata, tensors } = tinyLlama();
    const next = seededNumbers(1);
    // Scales are powers of two, so that the f16 of a converted folder is exact.
    const block = () =>
      Uint8Array.from({ length: 34 }, (_, i) => [0, 0x20][i] ?? Math.floor(next() * 127) & 255);
    const quantised = tensors.map(
      (tensor): Tensor =>
        tensor.shape.length === 2
          ? { ...tensor, type: 8, data: concat(...Array.from({ length: tensor.shape[0]! }, block)) }
          : tensor,
    );
    const { bytes } = buildGguf(metadata, quantised);
    const path = join(mkdtempSync(join(tmpdir(), "gguf-")), "x.gguf");
    writeFileSync(path, bytes);
    const files: Files = new Map();
    const write = async (file: string, chunks: AsyncIterable<Uint8Array>) =>
      void files.set(file, await collect(chunks));
    await convertGguf(memorySource(bytes, "x.gguf"), { write });
    const ids = [1, 2, 1];
    const [found, expected] = [
      await logitsOf(path, undefined, ids),
      await logitsOf(memoryFolder(files), undefined, ids),
    ];
    expect(found.formats).toEqual(new Set(["q8_0"]));
    expectClose(found.values, expected.values, { atol: 1e-5, rtol: 1e-5 });
  });
});
