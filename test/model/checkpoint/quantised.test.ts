import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { CheckpointError } from "../../../src/errors.ts";
import { readTensor } from "../../../src/model/checkpoint/entries/tensor-entry.ts";
import { openCheckpoint } from "../../../src/model/checkpoint/open-checkpoint.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { exportModel } from "../../../src/model/export/export.ts";
import { loadModel } from "../../../src/patching/model.ts";
import { bf16Bits, decode } from "../../../src/tensor/dtype.ts";
import { collect } from "../../helpers/bytes.ts";
import { fixtureFiles, type Tensors, tensorsOf, withTensors } from "../../helpers/checkpoints.ts";
import { expectClose } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";
import { changeJson, type Files } from "../../helpers/nano.ts";

// The checkpoint and its logits are of scripts/make-fp8-golden.py: transformers' own dequantisation, to bf16.
const golden: { ids: number[]; logits: number[] } = JSON.parse(
  readFileSync("test/fixtures/fp8/golden.json", "utf8"),
);
const Q = "model.layers.0.self_attn.q_proj";
const UP = "model.layers.0.mlp.up_proj";

let files: Files;
let tensors: Tensors;
beforeAll(async () => {
  files = fixtureFiles("fp8");
  tensors = await tensorsOf(files);
});

async function logitsOf(changed: Files): Promise<Float32Array> {
  using model = await loadModel(memoryFolder(changed, "m"), { device: await testDevice() });
  return model.run(model.promptFromIds(golden.ids)).logits!.read();
}

async function expectRefusal(changed: Files, ...messages: (string | RegExp)[]): Promise<void> {
  const load = logitsOf(changed);
  await expect(load).rejects.toThrow(CheckpointError);
  for (const message of messages) await expect(load).rejects.toThrow(message);
}

/** The fixture with tensors renamed, left out (undefined) or put in, and with another config. */
async function changed(
  rename: (name: string) => string | undefined,
  config: Readonly<Record<string, unknown>> = {},
  added: Tensors = new Map(),
): Promise<Files> {
  const kept = [...tensors.values()].flatMap((tensor) => {
    const name = rename(tensor.name);
    return name === undefined || added.has(name) ? [] : [{ ...tensor, name }];
  });
  return withTensors(files, [...kept, ...added.values()], config);
}

function tensor(
  name: string,
  stored: string,
  shape: readonly number[],
  data: ArrayBufferView<ArrayBuffer>,
): Tensors {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return new Map([[name, { name, stored, shape, data: bytes }]]);
}

const scalar = (name: string) => tensor(name, "F32", [], Float32Array.of(2));
const same = (name: string) => name;
const asWeightScale = (name: string) => name.replace("weight_scale_inv", "weight_scale");

describe("8-bit floats with scales", () => {
  test("a tensor, a row and a block each: as transformers dequantises them", async () => {
    expectClose(await logitsOf(files), golden.logits, { atol: 1e-4, rtol: 1e-4 });
  });

  /** Scales of a tensor or a row alone, which need no block size. */
  const unblocked: Tensors = new Map();
  beforeAll(() => {
    for (const { name, shape } of tensors.values()) {
      if (!/(o|gate|up|down)_proj\.weight_scale_inv$/.test(name)) continue;
      const one = Float32Array.of(2 ** -shape[0]!);
      for (const [key, value] of tensor(asWeightScale(name), "F32", [1], one)) unblocked.set(key, value);
    }
  });
  const FP8 = { quantization_config: { quant_method: "fp8", weight_block_size: null } };

  test.each<[method: string, config: Record<string, unknown>]>([
    ["fbgemm_fp8", { quant_method: "fbgemm_fp8", activation_scale_ub: 1200 }],
    ["modelopt", { quant_method: "modelopt", quant_algo: "FP8", kv_cache_scheme: { num_bits: 8 } }],
    [
      "compressed-tensors",
      {
        quant_method: "compressed-tensors",
        format: "float-quantized",
        config_groups: {
          group_0: {
            targets: ["Linear"],
            weights: { num_bits: 8, type: "float", symmetric: true, group_size: null, block_structure: null },
          },
        },
      },
    ],
  ])("of %s, whose scales of activations change nothing", async (_, quantization) => {
    const activations: Tensors = new Map([
      ...unblocked,
      ...scalar(`${Q}.input_scale`),
      ...scalar("model.layers.0.self_attn.k_scale"),
      ...scalar(`${UP}.input_scale_ub`),
    ]);
    const other = await changed(asWeightScale, { quantization_config: quantization }, activations);
    expect(await logitsOf(other)).toEqual(await logitsOf(await changed(asWeightScale, FP8, unblocked)));
  });

  test("of compressed-tensors in blocks", async () => {
    const group = { weights: { num_bits: 8, type: "float", block_structure: "16x24" } };
    const config = { quant_method: "compressed-tensors", config_groups: { group } };
    const other = await changed(asWeightScale, { quantization_config: config });
    expect(await logitsOf(other)).toEqual(await logitsOf(files));
  });

  test("without a word of it in the config, unless they are of blocks", async () => {
    const silent = { quantization_config: undefined };
    expect(await logitsOf(await changed(asWeightScale, silent, unblocked))).toEqual(
      await logitsOf(await changed(asWeightScale, FP8, unblocked)),
    );
    await expectRefusal(
      await changed(same, silent),
      /does not fit .* and the config gives no weight_block_size/,
    );
    await expectRefusal(
      await changed(same, FP8),
      /does not fit .* and the config gives no weight_block_size/,
    );
    const usual = { quantization_config: { quant_method: "fp8" } };
    await expectRefusal(await changed(same, usual), /does not fit .* in blocks of 128 × 128/);
  });

  /** What is stored as UP's weight [96, 48]: F8_E4M3, a scale for each 16 × 24. */
  async function entryOf(config: Record<string, unknown>) {
    const other = await changed(same, config);
    await using checkpoint = await openCheckpoint(memoryFolder(other));
    const entry = checkpoint.entry(`${UP}.weight`);
    expect([entry.stored, entry.shape]).toEqual(["F8_E4M3", [96, 48]]);
    expect(checkpoint.has(`${UP}.weight_scale_inv`)).toBe(false);
    return { dtype: entry.dtype, values: decode(await readTensor(entry), entry.dtype, 96 * 48) };
  }

  test("are products in f32, rounded to the config's dtype; bf16 where it names none", async () => {
    const [exact, rounded, silent, half] = [
      await entryOf({ torch_dtype: "float32" }),
      await entryOf({ torch_dtype: "bfloat16" }),
      await entryOf({ torch_dtype: undefined }),
      await entryOf({ torch_dtype: undefined, dtype: "float16" }),
    ];
    expect([exact, rounded, silent, half].map(({ dtype }) => dtype)).toEqual(["f32", "bf16", "bf16", "f16"]);
    const bytes = tensors.get(`${UP}.weight`)!.data;
    const scales = decode(tensors.get(`${UP}.weight_scale_inv`)!.data, "bf16", 12);
    const expected = Float32Array.from(bytes, (byte, i) => {
      const exponent = (byte >> 3) & 15;
      const value =
        ((byte & 7) / 8 + (exponent ? 1 : 0)) * 2 ** ((exponent || 1) - 7) * (byte & 128 ? -1 : 1);
      return value * scales[Math.floor(i / 48 / 16) * 2 + Math.floor((i % 48) / 24)]!;
    });
    expect(exact.values).toEqual(expected);
    expect(Array.from(rounded.values, bf16Bits)).toEqual(Array.from(expected, bf16Bits));
    expect(silent.values).toEqual(rounded.values);
  });

  test("blocks that do not divide the weight are cut at its edge", async () => {
    // 96 × 48 in blocks of 40 × 36: 3 × 2 of them.
    const factors = Float32Array.of(1, 2, 3, 4, 5, 6);
    const config = {
      torch_dtype: "float32",
      quantization_config: { quant_method: "fp8", weight_block_size: [40, 36] },
    };
    const grid = tensor(`${UP}.weight_scale_inv`, "F32", [3, 2], factors);
    const ones = tensor(`${UP}.weight_scale_inv`, "F32", [], Float32Array.of(1));
    const read = async (scales: Tensors) => {
      await using checkpoint = await openCheckpoint(memoryFolder(await changed(same, config, scales)));
      return decode(await readTensor(checkpoint.entry(`${UP}.weight`)), "f32", 96 * 48);
    };
    const plain = await read(ones);
    const scaled = await read(grid);
    const factor = (i: number) => factors[Math.floor(i / 48 / 40) * 2 + Math.floor((i % 48) / 36)]!;
    expect(scaled).toEqual(plain.map((value, i) => value * factor(i)));
  });

  test("scales that are powers of two (F8_E8M0)", async () => {
    const config = { torch_dtype: "float32" };
    const powers = tensor(`${UP}.weight_scale_inv`, "F8_E8M0", [1], Uint8Array.of(130));
    const eight = tensor(`${UP}.weight_scale_inv`, "F32", [1], Float32Array.of(8));
    expect(await logitsOf(await changed(same, config, powers))).toEqual(
      await logitsOf(await changed(same, config, eight)),
    );
  });

  test("exported, they are plain weights", async () => {
    const written: Files = new Map();
    const sink = {
      async write(name: string, chunks: AsyncIterable<Uint8Array>) {
        written.set(name, await collect(chunks));
      },
    };
    await using checkpoint = await openCheckpoint(memoryFolder(files));
    await exportModel(checkpoint, await testDevice(), sink);
    const config = JSON.parse(new TextDecoder().decode(written.get("config.json")));
    expect(config).not.toHaveProperty("quantization_config");
    expect([...(await tensorsOf(written)).values()].every(({ stored }) => stored === "BF16")).toBe(true);
    expect(await logitsOf(written)).toEqual(await logitsOf(files));
  });

  test.each<[problem: string, change: () => Promise<Files>, message: RegExp]>([
    [
      "no scale",
      () => changed((n) => (n === `${Q}.weight_scale_inv` ? undefined : n)),
      /q_proj\.weight is F8_E4M3 without a weight_scale/,
    ],
    ["two scales", () => changed(same, {}, scalar(`${Q}.weight_scale`)), /q_proj\.weight_scale/],
    [
      "a grid that does not fit",
      () => changed(same, {}, tensor(`${UP}.weight_scale_inv`, "F32", [5, 2], new Float32Array(10))),
      /weight_scale_inv \[5, 2\] does not fit .* \[96, 48\] in blocks of 16 × 24/,
    ],
    [
      "a scale of whole numbers",
      () => changed(same, {}, tensor(`${UP}.weight_scale_inv`, "U8", [1], Uint8Array.of(1))),
      /weight_scale_inv is U8, expected floats/,
    ],
    [
      "values beyond f16",
      () =>
        changed(
          same,
          { torch_dtype: "float16" },
          tensor(`${UP}.weight_scale_inv`, "F32", [1], Float32Array.of(1e6)),
        ),
      /up_proj\.weight has .* not a finite f16/,
    ],
  ])("are refused with %s", async (_, change, message) => {
    await expectRefusal(await change(), message);
  });
});

describe("other ways of quantising are refused by name", () => {
  test.each<[name: string, config: Record<string, unknown>]>([
    ...[
      "gptq",
      "awq",
      "hqq",
      "torchao",
      "quanto",
      "aqlm",
      "eetq",
      "mxfp4",
      "nvfp4",
      "bitnet",
      "something-new",
    ].map(
      (name) => [name, { quantization_config: { quant_method: name } }] as [string, Record<string, unknown>],
    ),
    ["modelopt", { quantization_config: { quant_method: "modelopt", quant_algo: "NVFP4" } }],
    ["without a name", { quantization_config: { bits: 4 } }],
    [
      "group_0 (4 bits, int)",
      {
        quantization_config: {
          quant_method: "compressed-tensors",
          config_groups: { group_0: { weights: { num_bits: 4, type: "int" } } },
        },
      },
    ],
    [
      "asymmetric",
      {
        quantization_config: {
          quant_method: "compressed-tensors",
          config_groups: { group_0: { weights: { num_bits: 8, type: "float", symmetric: false } } },
        },
      },
    ],
    ["sparse-24-bitmask", { compression_config: { sparsity_config: { format: "sparse-24-bitmask" } } }],
    [
      "transform_config",
      { quantization_config: { quant_method: "compressed-tensors", transform_config: { a: {} } } },
    ],
    ["text_config.quantization_config", { text_config: { quantization_config: { quant_method: "gptq" } } }],
  ])("%s", async (name, config) => {
    const other = new Map(files);
    changeJson(other, "config.json", config);
    await expectRefusal(other, name, "are not read");
  });

  test.each<Record<string, unknown>>([
    { load_in_8bit: true },
    { quant_method: "bitsandbytes", load_in_4bit: true },
  ])("bitsandbytes without quantised tensors: %o", async (quantization_config) => {
    const other = new Map(files);
    changeJson(other, "config.json", { quantization_config });
    await expectRefusal(other, "quantised by bitsandbytes, but none of the tensors is");
  });
});
