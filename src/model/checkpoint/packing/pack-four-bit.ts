import { CheckpointError } from "../../../errors.ts";
import { NESTED_BLOCK, NESTED_START, type PackedFormat } from "../../../tensor/packed/packed-format.ts";
import type { PackedPiece } from "../entries/packed-source.ts";
import { DYNAMIC_MAP, dynamicCode } from "./dynamic-map.ts";
import { bytesOf } from "./piece-writer.ts";

const f = Math.fround;

/** Between neighbours of NF4: a number beyond the n-th gets a code above n (bitsandbytes, `dQuantizeNF4`). */
const NF4_BOUNDS = Float32Array.from([
  ...[-0.8480964004993439, -0.6106329262256622, -0.4599952697753906, -0.33967943489551544],
  ...[-0.23460740596055984, -0.13791173323988914, -0.045525018125772476, 0.03979014977812767],
  ...[0.1202552504837513, 0.2035212516784668, 0.2920137718319893, 0.3893125355243683],
  ...[0.5016634166240692, 0.6427869200706482, 0.8614784181118011],
]);
/** The same between magnitudes of FP4, and their codes in the order of their size (`dQuantizeFP4`). */
const FP4_BOUNDS = Float32Array.from([
  ...[0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333],
]);
const FP4_CODES = [0, 1, 6, 7, 4, 5, 2, 3];

/**
 * Packs numbers as bitsandbytes does (Dettmers et al. 2023, arXiv 2305.14314), to the same bits: each step is in f32. The
 * mean that double quantisation takes off the scales is that of their sum in f64, which PyTorch's may miss by a last bit.
 */
export class FourBitCoder {
  readonly #name: string;
  readonly #format: PackedFormat;
  readonly #largest: Float32Array<ArrayBuffer>;
  #groups = 0;

  constructor(name: string, format: PackedFormat, elements: number) {
    this.#name = name;
    this.#format = format;
    this.#largest = new Float32Array(Math.ceil(elements / format.group));
  }

  /** The codes of some groups, the first of each pair in the low half; whole words. */
  code(values: Float32Array): Uint8Array<ArrayBuffer> {
    const { group, kind } = this.#format;
    const fill = kind === "nf4" ? nf4Codes : fp4Codes;
    const bytes = new Uint8Array(Math.ceil(values.length / 8) * 4);
    for (let start = 0; start < values.length; start += group) {
      const end = Math.min(start + group, values.length);
      let largest = 0;
      let finite = 0; // 0 times what is not finite is NaN
      for (let i = start; i < end; i++) {
        const size = Math.abs(values[i]!);
        finite += 0 * size;
        if (size > largest) largest = size;
      }
      if (finite !== 0) {
        const bad = values.subarray(start, end).find((value) => !Number.isFinite(value));
        throw new CheckpointError(`${this.#name} has ${bad}, which ${kind} cannot hold`);
      }
      this.#largest[this.#groups++] = largest;
      fill(values, start, end, f(1 / Math.max(largest, f(1e-38))), bytes);
    }
    return bytes;
  }

  /** When all has been coded. */
  *scales(): Generator<PackedPiece, void, undefined> {
    if (this.#format.scales === "f32") {
      yield { part: "scales", bytes: bytesOf(this.#largest) };
      return;
    }
    const { codes, nested } = nest(this.#largest);
    yield { part: "scales", bytes: codes };
    yield { part: "nested", bytes: bytesOf(nested) };
  }
}

/** Double quantisation of scales: a byte each (in whole words), and what the bytes stand for. */
function nest(scales: Float32Array): { codes: Uint8Array<ArrayBuffer>; nested: Float32Array<ArrayBuffer> } {
  const mean = f(scales.reduce((sum, scale) => sum + scale, 0) / scales.length);
  const codes = new Uint8Array(Math.ceil(scales.length / 4) * 4);
  const nested = new Float32Array(NESTED_START + Math.ceil(scales.length / NESTED_BLOCK));
  nested[0] = mean;
  nested.set(DYNAMIC_MAP, 1);
  for (let start = 0; start < scales.length; start += NESTED_BLOCK) {
    const block = scales.subarray(start, start + NESTED_BLOCK).map((scale) => scale - mean);
    let largest = 0;
    for (const value of block) largest = Math.max(largest, Math.abs(value));
    nested[NESTED_START + start / NESTED_BLOCK] = largest;
    const inverse = f(1 / Math.max(largest, f(1e-38)));
    block.forEach((value, i) => {
      codes[start + i] = dynamicCode(f(value * inverse));
    });
  }
  return { codes, nested };
}

/** Intervals of a table of ranks, in a length of 1: so short that none has two bounds in it. */
const STEPS = 128;

/** How many bounds lie at or below the start of each interval from `from` to 1. */
function ranks(bounds: Float32Array, from: number): Uint8Array {
  const startOf = (i: number) => from + i / STEPS;
  return Uint8Array.from({ length: (1 - from) * STEPS + 1 }, (_, i) => {
    const rank = bounds.findIndex((bound) => !(startOf(i) > bound));
    return rank < 0 ? bounds.length : rank;
  });
}

/** With a bound that nothing is beyond. */
const endless = (bounds: Float32Array) => Float32Array.of(...bounds, Number.POSITIVE_INFINITY);

const NF4_RANKS = ranks(NF4_BOUNDS, -1);
const NF4_ENDS = endless(NF4_BOUNDS);
const FP4_RANKS = ranks(FP4_BOUNDS, 0);
const FP4_ENDS = endless(FP4_BOUNDS);

/** Puts the codes of a group, times `inverse` from -1 to 1, in `bytes`, which holds 0 there. */
type FillCodes = (
  values: Float32Array,
  start: number,
  end: number,
  inverse: number,
  bytes: Uint8Array,
) => void;

const nf4Codes: FillCodes = (values, start, end, inverse, bytes) => {
  let i = start;
  for (; i + 1 < end; i += 2) {
    bytes[i >> 1] = nf4Code(f(values[i]! * inverse)) | (nf4Code(f(values[i + 1]! * inverse)) << 4);
  }
  if (i < end) bytes[i >> 1] = nf4Code(f(values[i]! * inverse));
};

function nf4Code(x: number): number {
  const rank = NF4_RANKS[((x + 1) * STEPS) | 0]!;
  return x > NF4_ENDS[rank]! ? rank + 1 : rank;
}

const fp4Codes: FillCodes = (values, start, end, inverse, bytes) => {
  for (let i = start; i < end; i++) {
    const x = f(values[i]! * inverse);
    const size = Math.abs(x);
    const rank = FP4_RANKS[(size * STEPS) | 0]!;
    const code = FP4_CODES[size > FP4_ENDS[rank]! ? rank + 1 : rank]! + (x < 0 ? 8 : 0);
    bytes[i >> 1]! |= code << ((i & 1) * 4);
  }
};
