import { CheckpointError } from "../../errors.ts";
import { DTYPE_BYTES, type DType, decode, isFloat } from "../../tensor/dtype.ts";
import { type Shape, showShape, sizeOf } from "../../tensor/shape.ts";
import type { Quantisation } from "./config/quantisation.ts";
import { floatBytes } from "./entries/float-chunks.ts";
import { DEFAULT_CHUNK_BYTES, readTensor, renamed, type TensorEntry } from "./entries/tensor-entry.ts";
import { isObject, type JsonObject } from "./json/config-reader.ts";
import { F8_VALUES } from "./safetensors/stored-dtype.ts";

/** By what it is called beside a weight, both are factors: `W = weight · scale`. */
const SCALES = ["weight_scale", "weight_scale_inv"];
/** What only activations and caches would be quantised by: `input_scale`, `k_scale` … */
const ACTIVATION_SCALE = /\.(input_scale|input_scale_ub|activation_scale|output_scale|[qkv]_scale)$/;

/**
 * The tensors with each 8-bit float weight and the scale beside it as one, dequantised: `weight · scale` in f32, rounded to
 * the dtype of the config (bf16 unless it names another), as transformers does. A scale is one number, one a row, or one
 * a block. Scales of activations go. What does not fit together can be listed, but not read.
 *
 * 8-bit floats without any scale are left as they are, unless the config says that they are quantised.
 */
export function dequantised(
  entries: ReadonlyMap<string, TensorEntry>,
  config: JsonObject,
  quantisation: Quantisation | undefined,
): Map<string, TensorEntry> {
  const dtype = dtypeOf(config);
  const out = new Map(entries);
  let found = false;
  for (const [name, weight] of entries) {
    if (!F8_VALUES.has(weight.stored) || !name.endsWith(".weight")) continue;
    const module = name.slice(0, -".weight".length);
    const scales = SCALES.filter((scale) => entries.has(`${module}.${scale}`));
    if (scales.length === 0) {
      if (quantisation)
        out.set(name, {
          ...renamed(weight, name),
          problem: `${name} is ${weight.stored} without a weight_scale`,
        });
      continue;
    }
    if (scales.length > 1) continue; // the second is nobody's, and refused as such
    found = true;
    const scale = entries.get(`${module}.${scales[0]}`)!;
    out.set(name, withScale(weight, scale, quantisation?.block, dtype));
    out.delete(scale.name);
  }
  if (found) for (const name of entries.keys()) if (ACTIVATION_SCALE.test(name)) out.delete(name);
  return out;
}

function dtypeOf(config: JsonObject): DType {
  const text = isObject(config["text_config"]) ? config["text_config"] : {};
  const given = config["dtype"] ?? config["torch_dtype"] ?? text["dtype"] ?? text["torch_dtype"];
  if (given === "float16") return "f16";
  return given === "float32" ? "f32" : "bf16";
}

function withScale(
  weight: TensorEntry,
  scale: TensorEntry,
  block: Quantisation["block"],
  dtype: DType,
): TensorEntry {
  const { name, shape, stored } = weight;
  const grid = gridOf(weight.shape, scale.shape, block);
  const problem = !isFloat(scale.dtype)
    ? `${scale.name} is ${scale.stored}, expected floats`
    : (scale.problem ??
      (grid
        ? undefined
        : `${scale.name} ${showShape(scale.shape)} does not fit ${name} ${showShape(shape)}` +
          (block ? ` in blocks of ${block.join(" × ")}` : ", and the config gives no weight_block_size")));
  return {
    name,
    shape,
    stored,
    storedBytes: weight.storedBytes + scale.storedBytes,
    dtype,
    byteLength: sizeOf(shape) * DTYPE_BYTES[dtype],
    ...(problem && { problem }),
    expect() {
      scale.expect?.();
      weight.expect?.();
    },
    async *stream(chunkBytes = DEFAULT_CHUNK_BYTES) {
      if (problem || !grid) throw new CheckpointError(problem ?? name);
      const bytes = await readTensor(scale);
      const scales = decode(bytes, scale.dtype, sizeOf(scale.shape));
      let at = 0;
      for await (const chunk of weight.raw!(4 * Math.max(1, Math.floor(chunkBytes / 16)))) {
        const values = scaled(chunk, F8_VALUES.get(stored)!, at, shape.at(-1) ?? 1, scales, grid);
        yield dtype === "f32" ? new Uint8Array(values.buffer) : floatBytes(values, dtype, name);
        at += values.length;
      }
    },
  };
}

/** Rows and columns that share a scale, and scales in a row of the grid. */
interface Grid {
  readonly rows: number;
  readonly columns: number;
  readonly width: number;
}

/** How a scale lies over a weight [out, in]; undefined if it does not fit. */
function gridOf(weight: Shape, scale: Shape, block: Quantisation["block"]): Grid | undefined {
  const columns = weight.at(-1) ?? 1;
  const rows = sizeOf(weight) / columns;
  if (sizeOf(scale) === 1) return { rows, columns, width: 1 };
  if (weight.length !== 2) return undefined;
  const [down, across = 1] = scale;
  if (scale.length > 2 || down === undefined) return undefined;
  if (down === rows && across === 1) return { rows: 1, columns, width: 1 };
  // Without a word of their size the last blocks of a row could be short ones, or all of another length.
  if (scale.length !== 2 || !block) return undefined;
  const fits = Math.ceil(rows / block[0]) === down && Math.ceil(columns / block[1]) === across;
  return fits ? { rows: block[0], columns: block[1], width: across } : undefined;
}

/** Elements `first`, `first + 1`, … of a matrix with so many columns, each times its scale, in f32. */
function scaled(
  bytes: Uint8Array,
  byByte: Float32Array,
  first: number,
  columns: number,
  scales: ArrayLike<number>,
  grid: Grid,
): Float32Array<ArrayBuffer> {
  const out = new Float32Array(bytes.length);
  for (let i = 0; i < out.length; ) {
    const row = Math.floor((first + i) / columns);
    const column = (first + i) % columns;
    const scale = scales[Math.floor(row / grid.rows) * grid.width + Math.floor(column / grid.columns)]!;
    const end = Math.min(i + columns - column, i + grid.columns - (column % grid.columns), out.length);
    for (; i < end; i++) out[i] = byByte[bytes[i]!]! * scale;
  }
  return out;
}
