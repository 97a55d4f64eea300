import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { collected, sourceOf } from "../../../../src/model/checkpoint/entries/packed-source.ts";
import { readTensor } from "../../../../src/model/checkpoint/entries/tensor-entry.ts";
import { withBitsandbytes } from "../../../../src/model/checkpoint/packing/bitsandbytes.ts";
import {
  GGML_BLOCKS,
  type GgmlKind,
  ggmlPieces,
} from "../../../../src/model/checkpoint/packing/ggml-blocks.ts";
import { packing } from "../../../../src/model/checkpoint/packing/pack.ts";
import { rawBytes } from "../../../../src/model/checkpoint/packing/packed-entry.ts";
import { SafetensorsFile } from "../../../../src/model/checkpoint/safetensors/safetensors.ts";
import { memorySource } from "../../../../src/model/checkpoint/source/sources.ts";
import { decode, f16Bits, f16Value } from "../../../../src/tensor/dtype.ts";
import type { PackedFormat, PartName } from "../../../../src/tensor/packed/packed-format.ts";
import { fourBit, GGML_FORMATS } from "../../../../src/tensor/packed/packed-formats.ts";
import { packedValues } from "../../../../src/tensor/packed/packed-values.ts";
import { expectClose } from "../../../helpers/compare.ts";

// Goldens: scripts/make-packed-golden.py.
let file: SafetensorsFile;
beforeAll(async () => {
  file = await SafetensorsFile.open(memorySource(readFileSync("test/fixtures/packed/golden.safetensors")));
});

const bytesOf = async (name: string) => {
  const entry = file.entry(name);
  return (await rawBytes(entry)).subarray(0, entry.storedBytes);
};
const floatsOf = async (name: string) => {
  const entry = file.entry(name);
  return decode(
    await readTensor(entry),
    entry.dtype,
    entry.shape.reduce((a, b) => a * b, 1),
  ) as Float32Array;
};

/** The weight of which the script keeps only what was made of it. */
function long(): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: 140 * 128 }, (_, i) =>
    f16Value(f16Bits(((((i * 7919) % 2003) - 1001) / 8192) * (1 + (Math.floor(i / 640) % 5)))),
  );
}

/** All at once, or in runs of a few. */
const runsOf = (values: Float32Array<ArrayBuffer>) =>
  async function* (run: number) {
    for (let at = 0; at < values.length; at += run * 3) yield values.subarray(at, at + run * 3);
  };

async function packed(format: PackedFormat, shape: [number, number], values: Float32Array<ArrayBuffer>) {
  return await collected(packing("w", format, shape, runsOf(values)));
}

/** FP4 has two zeros; bitsandbytes' kernels for GPUs give a small negative number another than those for CPUs. */
const withoutSignOfZero = (bytes: Uint8Array) =>
  bytes
    .map((byte) => ((byte & 15) === 8 ? byte & 240 : byte))
    .map((byte) => (byte >> 4 === 8 ? byte & 15 : byte));

const swapped = (bytes: Uint8Array) => bytes.map((byte) => (byte >> 4) | (byte << 4));

describe("quantising gives the bits of bitsandbytes", () => {
  describe.each(["nf4", "fp4"] as const)("%s", (kind) => {
    it.each([
      ["even", [8, 128]],
      ["odd", [7, 50]],
    ] as const)("%s: codes and scales", async (name, [rows, width]) => {
      const weight = Float32Array.from(await floatsOf(`${name}.weight`));
      const parts = await packed(fourBit(kind, { nested: false }), [rows, width], weight);
      const codes = swapped(await bytesOf(`${name}.${kind}`));
      const zeros = kind === "fp4" ? withoutSignOfZero : (bytes: Uint8Array) => bytes;
      expect(zeros(parts.get("codes")!.subarray(0, codes.length))).toEqual(zeros(codes));
      expect(parts.get("scales")).toEqual(await bytesOf(`${name}.${kind}.absmax`));
    });

    it.each([
      ["even", [8, 128]],
      ["odd", [7, 50]],
      ["long", [140, 128]],
    ] as const)("%s: double quantisation", async (name, shape) => {
      const weight = name === "long" ? long() : Float32Array.from(await floatsOf(`${name}.weight`));
      const parts = await packed(fourBit(kind), [...shape], weight);
      const key = `${name}.${kind}.nested`;
      const absmax = await bytesOf(`${key}.absmax`);
      expect(parts.get("scales")!.subarray(0, absmax.length)).toEqual(absmax);
      const nested = new Float32Array(parts.get("nested")!.buffer);
      const state = JSON.parse(
        new TextDecoder().decode(await bytesOf(`${key}.quant_state.bitsandbytes__${kind}`)),
      );
      // PyTorch adds up in an order of its own, so that its mean may have another last bit.
      const close = { atol: 2 ** -24, rtol: 2 ** -23 };
      expectClose([nested[0]!], [state.nested_offset], close);
      expect(nested.subarray(1, 257)).toEqual(await floatsOf("even.nf4.nested.nested_quant_map"));
      expectClose(nested.subarray(257), await floatsOf(`${key}.nested_absmax`), close);
    });

    it("a checkpoint in 4 bits is read, and unpacked to what bitsandbytes unpacks", async () => {
      const key = `even.${kind}`;
      const entries = new Map(file.entries.map((entry) => [entry.name, entry]));
      entries.set(`${key}.quant_map`, await quantMap(kind));
      const read = (await withBitsandbytes(entries)).get(key)!;
      expect(read.shape).toEqual([8, 128]);
      expect(read.problem).toBeUndefined();
      expect(decode(await readTensor(read), "f32", 1024)).toEqual(await floatsOf(`${key}.dequantised`));
    });
  });
});

/** The table of a format as a tensor of a file. */
async function quantMap(kind: "nf4" | "fp4") {
  const table = Float32Array.from(fourBit(kind).table!);
  const raw = async function* () {
    yield new Uint8Array(table.slice().buffer);
  };
  const [like] = file.entries.filter(({ stored }) => stored === "F32");
  return {
    ...like!,
    name: "quant_map",
    shape: [16],
    stored: "F32",
    storedBytes: 64,
    byteLength: 64,
    stream: raw,
    raw,
  };
}

describe("ggml", () => {
  it.each(["q8_0", "q4_0", "q4_1"] as const)(
    "%s: quantising gives the bits of its reference",
    async (kind) => {
      const weight = Float32Array.from(await floatsOf("even.weight"));
      const parts = await packed(GGML_FORMATS[kind], [8, 128], weight);
      const raw = await bytesOf(`even.${kind.toUpperCase()}`);
      for (const { part, bytes } of ggmlPieces(GGML_BLOCKS[kind], raw))
        expect(parts.get(part)).toEqual(bytes);
    },
  );

  it.each<[GgmlKind, string]>([
    ["q4_k", "Q4_K"],
    ["q6_k", "Q6_K"],
  ])("%s is unpacked as in gguf-py", async (kind, name) => {
    const blocks = GGML_BLOCKS[kind];
    const pieces = ggmlPieces(blocks, await bytesOf(name));
    const parts = new Map<PartName, Uint8Array<ArrayBuffer>>(pieces.map(({ part, bytes }) => [part, bytes]));
    const source = sourceOf({ format: blocks.format, rows: 3, rowStride: 256 }, () => parts);
    const padded = new Map([...(await collected(source))]);
    expect(packedValues(blocks.format, padded, 0, 768)).toEqual(await floatsOf(`${name}.dequantised`));
  });
});
