import { readFile } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CheckpointError } from "../../../../src/errors.ts";
import { readTensor } from "../../../../src/model/checkpoint/entries/tensor-entry.ts";
import { SafetensorsFile } from "../../../../src/model/checkpoint/safetensors/safetensors.ts";
import {
  type TensorToWrite,
  writeSafetensors,
} from "../../../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { STORED_DTYPES } from "../../../../src/model/checkpoint/safetensors/stored-dtype.ts";
import { memorySource } from "../../../../src/model/checkpoint/source/sources.ts";
import { decode } from "../../../../src/tensor/dtype.ts";
import { sizeOf } from "../../../../src/tensor/shape.ts";
import { collect, concat, oddSource, utf8, watchedSource } from "../../../helpers/bytes.ts";

/** A file with this header text and data, whatever they say. */
function fileOf(header: string | Uint8Array, data: Uint8Array = new Uint8Array(0)): Uint8Array<ArrayBuffer> {
  const text = typeof header === "string" ? utf8(header) : header;
  const prefix = new Uint8Array(8);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(text.length), true);
  return concat(prefix, text, data);
}

function open(header: string | Uint8Array, dataBytes = 0): Promise<SafetensorsFile> {
  return SafetensorsFile.open(memorySource(fileOf(header, new Uint8Array(dataBytes)), "x.safetensors"));
}

async function rewrite(
  tensors: TensorToWrite[],
  metadata?: Record<string, string>,
): Promise<SafetensorsFile> {
  return SafetensorsFile.open(memorySource(await collect(writeSafetensors(tensors, metadata))));
}

async function valuesOf(stored: string, data: Uint8Array): Promise<{ dtype: string; values: number[] }> {
  const shape = [data.length / STORED_DTYPES.get(stored)!.bytes];
  const file = await rewrite([{ name: "t", stored, shape, data }]);
  const entry = file.entry("t");
  return { dtype: entry.dtype, values: [...decode(await readTensor(entry), entry.dtype, shape[0]!)] };
}

function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

const entry = (fields: string) => `{"t":{${fields}}}`;
const f32x2 = '"dtype":"F32","shape":[2],"data_offsets":[0,8]';

describe("header", () => {
  test("a file that Python wrote", async () => {
    const path = new URL("../../../fixtures/llama-gqa-tied/model/model.safetensors", import.meta.url);
    const bytes = await readFile(path);
    const file = await SafetensorsFile.open(memorySource(bytes));
    expect(file.metadata.get("format")).toBe("pt");
    const { stored, shape, dtype, byteLength } = file.entry("model.embed_tokens.weight");
    expect({ stored, shape, dtype, byteLength }).toEqual({
      stored: "F32",
      shape: [448, 48],
      dtype: "f32",
      byteLength: 448 * 48 * 4,
    });
    const norm = decode(await readTensor(file.entry("model.norm.weight")), "f32", 48);
    expect(norm.every((v) => Number.isFinite(v) && v !== 0)).toBe(true);
    expect(file.entries.reduce((sum, e) => sum + e.storedBytes, 0)).toBeLessThan(bytes.length);
  });

  test("accepts what the format allows", async () => {
    expect((await open("{}")).names).toEqual([]);
    expect((await open('{"__metadata__":{}}  ')).names).toEqual([]);
    expect((await open(entry(f32x2), 8)).names).toEqual(["t"]);
    const scalarAndEmpty =
      '{"e":{"dtype":"I8","shape":[3,0],"data_offsets":[1,1]},"s":{"data_offsets":[0,1],"shape":[],"dtype":"U8"}}';
    expect((await open(scalarAndEmpty, 1)).names.sort()).toEqual(["e", "s"]);
    expect((await open('{"\\u00e4\\n":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')).names).toEqual([
      "ä\n",
    ]);
  });

  test("accepts what the reference implementation passes over: fields that it does not know", async () => {
    const more = `${f32x2},"x":{"dtype":"F16","y":[1,-2.5e3,null]},"shape_":[3]`;
    const [found] = (await open(entry(more), 8)).entries;
    expect(found).toMatchObject({ name: "t", stored: "F32", shape: [2], storedBytes: 8 });
    const withoutMetadata = `{"__metadata__":null,"t":{${f32x2}}}`;
    expect((await open(withoutMetadata, 8)).metadata.size).toBe(0);
  });

  test("accepts empty tensors of any shape, beside which others are read", async () => {
    for (const shape of [
      "0,9223372036854775808",
      "9223372036854775808,0",
      "0,4611686018427387904,4611686018427387904",
    ]) {
      const empty = `"e":{"dtype":"F32","shape":[${shape}],"data_offsets":[0,0]}`;
      const file = await open(`{${empty},"t":{${f32x2}}}`, 8);
      expect(await readTensor(file.entry("t"))).toEqual(new Uint8Array(8));
      const { problem, storedBytes } = file.entry("e");
      expect(storedBytes).toBe(0);
      expect(problem).toContain(`x.safetensors: e is F32 [${shape.replaceAll(",", ", ")}]`);
      await expect(readTensor(file.entry("e"))).rejects.toThrow(/has sizes beyond 2\^53/);
    }
    const [exact] = (await open(entry('"dtype":"F32","shape":[0,9007199254740991],"data_offsets":[0,0]')))
      .entries;
    expect(exact!.problem).toBeUndefined();
    expect(exact!.shape).toEqual([0, 9007199254740991]);
    expect(await readTensor(exact!)).toEqual(new Uint8Array(0));
  });

  test.each<[problem: string, header: string | Uint8Array, dataBytes: number, message: RegExp]>([
    ["not JSON", "{nonsense", 0, /expected ", found "n" at character 1/],
    ["not an object", "[]", 0, /does not begin with \{/],
    ["leading space", " {}", 0, /does not begin with \{/],
    ["text after the object", "{}{}", 0, /expected the end/],
    ["not UTF-8", concat(utf8('{"'), Uint8Array.of(0xff), utf8('":{}}')), 0, /not UTF-8/],
    ["duplicate tensor", `{"t":{${f32x2}},"\\u0074":{${f32x2}}}`, 8, /duplicate key "t"/],
    ["duplicate field", entry(`"dtype":"F32",${f32x2}`), 8, /duplicate key "dtype"/],
    ["duplicate metadata", '{"__metadata__":{},"__metadata__":{}}', 0, /duplicate key "__metadata__"/],
    ["metadata not text", '{"__metadata__":{"a":1}}', 0, /expected "/],
    ["name that is no Unicode", `{"a\\ud800":{${f32x2}}}`, 8, /lone surrogate/],
    ["duplicate unknown field", entry(`${f32x2},"x":1,"x":2`), 8, /duplicate key "x"/],
    ["unknown field that is no JSON", entry(`${f32x2},"x":nonsense`), 8, /expected a value, found "n"/],
    ["no dtype", entry('"shape":[2],"data_offsets":[0,8]'), 8, /lacks dtype/],
    [
      "unknown dtype",
      entry('"dtype":"F5","shape":[2],"data_offsets":[0,1]'),
      1,
      /dtype F5; supported are F32/,
    ],
    ["negative size", entry('"dtype":"F32","shape":[-2],"data_offsets":[0,8]'), 8, /whole number, found "-"/],
    ["fraction", entry('"dtype":"F32","shape":[2.0],"data_offsets":[0,8]'), 8, /whole number/],
    ["exponent", entry('"dtype":"F32","shape":[2e0],"data_offsets":[0,8]'), 8, /whole number/],
    ["leading zero", entry('"dtype":"F32","shape":[02],"data_offsets":[0,8]'), 8, /whole number/],
    [
      "beyond 2^53",
      entry('"dtype":"U8","shape":[9007199254740993],"data_offsets":[0,8]'),
      8,
      /U8 \[9007199254740993\], 9007199254740993 bytes, but has 8/,
    ],
    [
      "offsets beyond 2^53",
      entry('"dtype":"U8","shape":[0],"data_offsets":[9007199254740993,9007199254740993]'),
      0,
      /9007199254740993 is too large/,
    ],
    ["2^64", entry('"dtype":"U8","shape":[0,18446744073709551616],"data_offsets":[0,0]'), 0, /too large/],
    [
      "bits beyond 2^64",
      entry('"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]'),
      0,
      /impossible shape \[4611686018427387904\]/,
    ],
    ["part of a byte", entry('"dtype":"F4","shape":[3],"data_offsets":[0,1]'), 1, /F4 \[3\], 1\.5 bytes/],
    [
      "overflow",
      entry('"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]'),
      0,
      /impossible/,
    ],
    ["wrong size", entry('"dtype":"F32","shape":[3],"data_offsets":[0,8]'), 8, /12 bytes, but has 8/],
    ["reversed offsets", entry('"dtype":"F32","shape":[0],"data_offsets":[8,0]'), 8, /data_offsets \[8, 0\]/],
    [
      "three offsets",
      entry('"dtype":"F32","shape":[2],"data_offsets":[0,8,8]'),
      8,
      /data_offsets \[0, 8, 8\]/,
    ],
    ["hole at the start", entry('"dtype":"F32","shape":[2],"data_offsets":[8,16]'), 16, /leaves a gap/],
    ["rest at the end", entry(f32x2), 9, /end at byte \d+, the file at \d+/],
    ["truncated data", entry(f32x2), 7, /end at byte/],
    ["overlap", `{"a":{${f32x2}},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}`, 8, /overlaps/],
    ["same bytes twice", `{"a":{${f32x2}},"b":{${f32x2}}}`, 8, /overlaps/],
    ["deep nesting", `{"t":${"[".repeat(100_000)}`, 0, /expected \{/],
    ["unterminated name", '{"t', 0, /unterminated string/],
    ["bad escape", '{"\\x":{}}', 0, /bad escape/],
  ])("refuses: %s", async (_, header, dataBytes, message) => {
    const failure = open(header, dataBytes);
    await expect(failure).rejects.toThrow(CheckpointError);
    await expect(failure).rejects.toThrow(message);
    await expect(failure).rejects.toThrow(/x\.safetensors/);
  });

  test("refuses lengths that the file cannot have, without reading them", async () => {
    for (const [length, message] of [
      [100_000_001n, /over the limit/],
      [2n ** 64n - 1n, /over the limit/],
      [3n, /header of 3 bytes in a file of 10/],
    ] as const) {
      const bytes = concat(new Uint8Array(8), utf8("{}"));
      new DataView(bytes.buffer).setBigUint64(0, length, true);
      const source = watchedSource(bytes);
      await expect(SafetensorsFile.open(source)).rejects.toThrow(message);
      expect(source.reads).toEqual([8]);
    }
    await expect(SafetensorsFile.open(memorySource(new Uint8Array(7)))).rejects.toThrow(
      /7 bytes are too few/,
    );
  });

  test("says what a file is that is none", async () => {
    const page = "<!DOCTYPE html><html><head><title>Sign in</title></head></html>";
    for (const [text, message] of [
      [
        page,
        'it is text that begins with "<!DOCTYPE html><html><head><title>Sign i…": perhaps what a server said',
      ],
      ['{"error":"not found"}', 'begins with "{\\"error\\":\\"not found\\"}": perhaps what a server said'],
      ["Entry not found", 'begins with "Entry not found"'],
      ["PK\x03\x04archive/data.pkl", "it is a zip archive, as PyTorch's pickles are"],
    ] as const) {
      const failure = SafetensorsFile.open(memorySource(utf8(text), "x.safetensors"));
      await expect(failure).rejects.toThrow(`x.safetensors: not a valid safetensors file: `);
      await expect(failure).rejects.toThrow(message);
    }
  });

  test("names that an object would trip over are names like others", async () => {
    const names = ["__proto__", "constructor", "toString", "hasOwnProperty"];
    const tensors = names.map((name) => ({ name, stored: "U8", shape: [1], data: Uint8Array.of(1) }));
    const file = await rewrite(tensors);
    expect(file.names).toEqual([...names].sort());
    expect(file.has("valueOf")).toBe(false);
    expect((await open('{"__metadata__":{"__proto__":"x"}}')).metadata.get("__proto__")).toBe("x");
  });

  test("a missing tensor comes with the nearest name", async () => {
    const file = await open('{"model.norm.weight":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}');
    expect(() => file.entry("norm.weight")).toThrow(
      "x.safetensors has no tensor norm.weight; the nearest is model.norm.weight",
    );
  });
});

describe("dtypes", () => {
  const edges = [0, -0, 1, -1.5, 65504, 1e-8, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];

  test("five are read as stored", async () => {
    const halves = Uint16Array.of(0x3c00, 0x8000, 0x7bff, 0x0001);
    for (const [stored, dtype, array] of [
      ["F32", "f32", Float32Array.from([...edges, Number.NaN])],
      ["I32", "i32", Int32Array.of(-(2 ** 31), -1, 2 ** 31 - 1)],
      ["U32", "u32", Uint32Array.of(0, 2 ** 32 - 1)],
      ["F16", "f16", halves],
      ["BF16", "bf16", halves],
    ] as const) {
      const file = await rewrite([{ name: "t", stored, shape: [array.length], data: bytesOf(array) }]);
      expect(file.entry("t").dtype).toBe(dtype);
      expect(await readTensor(file.entry("t"))).toEqual(bytesOf(array));
    }
  });

  test("the others are widened", async () => {
    const f64 = Float64Array.of(...edges, 0.1, 1e300);
    expect(await valuesOf("F64", bytesOf(f64))).toEqual({ dtype: "f32", values: [...f64].map(Math.fround) });
    const i64 = BigInt64Array.of(0n, -1n, 2n ** 31n - 1n, -(2n ** 31n));
    expect(await valuesOf("I64", bytesOf(i64))).toEqual({ dtype: "i32", values: [...i64].map(Number) });
    const u64 = BigUint64Array.of(0n, 2n ** 31n, 2n ** 32n - 1n);
    expect(await valuesOf("U64", bytesOf(u64))).toEqual({ dtype: "u32", values: [...u64].map(Number) });
    const i16 = Int16Array.of(-32768, -1, 32767);
    expect(await valuesOf("I16", bytesOf(i16))).toEqual({ dtype: "i32", values: [...i16] });
    expect(await valuesOf("I8", Uint8Array.of(128, 255, 127))).toEqual({
      dtype: "i32",
      values: [-128, -1, 127],
    });
    const u16 = Uint16Array.of(0, 65535);
    expect(await valuesOf("U16", bytesOf(u16))).toEqual({ dtype: "u32", values: [...u16] });
    expect(await valuesOf("U8", Uint8Array.of(0, 255))).toEqual({ dtype: "u32", values: [0, 255] });
    expect(await valuesOf("BOOL", Uint8Array.of(0, 1))).toEqual({ dtype: "u32", values: [0, 1] });
  });

  test("8-bit floats", async () => {
    // 1, largest, smallest, −2, NaN (OCP 8-bit floating point specification, table 1)
    const e4m3 = await valuesOf("F8_E4M3", Uint8Array.of(0x38, 0x7e, 0x01, 0xc0, 0x7f));
    expect(e4m3).toEqual({ dtype: "f16", values: [1, 448, 2 ** -9, -2, Number.NaN] });
    const e5m2 = await valuesOf("F8_E5M2", Uint8Array.of(0x3c, 0x7b, 0x01, 0xc0, 0x7c));
    expect(e5m2).toEqual({ dtype: "f16", values: [1, 57344, 2 ** -16, -2, Number.POSITIVE_INFINITY] });
  });

  test("64-bit integers that do not fit are an error that names the tensor", async () => {
    for (const value of [2n ** 31n, -(2n ** 31n) - 1n]) {
      await expect(valuesOf("I64", bytesOf(BigInt64Array.of(1n, value)))).rejects.toThrow(/memory: t: .*fit/);
    }
    await expect(valuesOf("U64", bytesOf(BigUint64Array.of(2n ** 32n)))).rejects.toThrow(CheckpointError);
  });
});

describe("stream", () => {
  test("bounded chunks of whole words, in order, for every dtype and length", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...STORED_DTYPES.keys()),
        fc.integer({ min: 0, max: 100 }),
        fc.integer({ min: 64, max: 200 }),
        async (stored, count, chunkBytes) => {
          const { bytes } = STORED_DTYPES.get(stored)!;
          const data = new Uint8Array(count * bytes);
          for (let i = 0; i < data.length; i += bytes) data[i] = i / bytes;
          const file = await rewrite([{ name: "t", stored, shape: [count], data }]);
          const whole = await readTensor(file.entry("t"));
          const chunks: Uint8Array[] = [];
          for await (const chunk of file.entry("t").stream(chunkBytes)) {
            expect(chunk.length).toBeLessThanOrEqual(chunkBytes);
            expect(chunk.byteOffset % 4).toBe(0);
            chunks.push(chunk);
          }
          expect(chunks.slice(0, -1).every((chunk) => chunk.length % 4 === 0)).toBe(true);
          expect(concat(...chunks)).toEqual(whole);
          expect(whole.length).toBe(file.entry("t").byteLength);
        },
      ),
    );
  });

  test("reads no more than a chunk at a time", async () => {
    const data = new Uint8Array(1_000_000);
    const source = watchedSource(
      await collect(writeSafetensors([{ name: "t", stored: "F16", shape: [500_000], data }])),
    );
    const file = await SafetensorsFile.open(source);
    source.reads.length = 0;
    for await (const _ of file.entry("t").stream(65536))
      expect(source.reads.at(-1)).toBeLessThanOrEqual(65536);
    expect(source.reads.length).toBe(Math.ceil(1_000_000 / 65536));
    await file.close();
    expect(source.closed).toBe(true);
  });

  test("a source that hands out unaligned views is no problem", async () => {
    const bytes = await collect(
      writeSafetensors([{ name: "t", stored: "F64", shape: [2], data: bytesOf(Float64Array.of(1, 2)) }]),
    );
    const file = await SafetensorsFile.open(oddSource(bytes));
    expect([...decode(await readTensor(file.entry("t")), "f32", 2)]).toEqual([1, 2]);
  });
});

describe("writer", () => {
  const tensor = fc
    .record({
      name: fc.string({ unit: "grapheme", minLength: 1, maxLength: 12 }),
      stored: fc.constantFrom("F32", "F16", "BF16", "I32", "U32"),
      shape: fc.array(fc.nat(4), { maxLength: 4 }),
      seed: fc.nat(255),
    })
    .filter(({ name }) => name !== "__metadata__");

  test("what is written is read back, and does not depend on the order", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(tensor, { selector: (t) => t.name, maxLength: 6 }),
        fc.dictionary(fc.string(), fc.string()),
        async (specs, metadata) => {
          const tensors = specs.map(({ name, stored, shape, seed }) => ({
            name,
            stored,
            shape,
            data: new Uint8Array(sizeOf(shape) * STORED_DTYPES.get(stored)!.bytes).fill(seed),
          }));
          const bytes = await collect(writeSafetensors(tensors, metadata));
          expect(await collect(writeSafetensors([...tensors].reverse(), metadata))).toEqual(bytes);
          expect(new DataView(bytes.buffer).getBigUint64(0, true) % 8n).toBe(0n);
          const file = await SafetensorsFile.open(memorySource(bytes));
          expect([...file.metadata].sort()).toEqual(Object.entries(metadata).sort());
          expect(file.names.sort()).toEqual(specs.map((t) => t.name).sort());
          for (const { name, stored, shape, data } of tensors) {
            const read = file.entry(name);
            expect({ stored: read.stored, shape: read.shape }).toEqual({ stored, shape });
            expect(await readTensor(read)).toEqual(data);
          }
        },
      ),
    );
  });

  test("streams data when its turn comes, and aligns it", async () => {
    const order: string[] = [];
    const lazy = (name: string, stored: string, bytes: number): TensorToWrite => ({
      name,
      stored,
      shape: [bytes / STORED_DTYPES.get(stored)!.bytes],
      data: async function* () {
        order.push(name);
        yield new Uint8Array(bytes).fill(1);
      },
    });
    const file = writeSafetensors([
      lazy("a", "I8", 3),
      lazy("b", "F16", 6),
      lazy("z", "F32", 4),
      lazy("c", "F32", 8),
    ]);
    expect((await file.next()).value!.length % 8).toBe(0);
    expect(order).toEqual([]);
    await collect(file);
    expect(order).toEqual(["c", "z", "b", "a"]);
  });

  test("refuses what would make a bad file", async () => {
    const t = { name: "t", stored: "F32", shape: [2], data: new Uint8Array(8) };
    for (const [tensors, message] of [
      [[t, t], /"t" is taken/],
      [[{ ...t, name: "__metadata__" }], /taken or reserved/],
      [[{ ...t, stored: "F4" }], /dtype F4/],
      [[{ ...t, shape: [0, 2 ** 63], data: new Uint8Array(0) }], /t cannot be written with the shape \[0, /],
      [[{ ...t, shape: [-1, -2] }], /shape \[-1, -2\]/],
      [[{ ...t, shape: [3] }], /F32 \[3\], 12 bytes, but its data has 8/],
      [[{ ...t, shape: [1] }], /4 bytes, but its data has 8/],
    ] as const) {
      const failure = collect(writeSafetensors(tensors));
      await expect(failure).rejects.toThrow(CheckpointError);
      await expect(failure).rejects.toThrow(message);
    }
  });
});
