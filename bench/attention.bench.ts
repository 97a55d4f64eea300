import { Tape } from "#src/gradient/tape";
import { attention, causalSegments } from "#src/kernels/attention/attention";
import { attentionMix, attentionPattern, attentionScores } from "#src/kernels/attention/attention-pattern";
import { rope, ropeTable } from "#src/kernels/attention/rope";
import type { Device } from "#src/tensor/device";
import type { Tensor } from "#src/tensor/tensor";
import type { BenchCase, Suite } from "./harness.ts";

interface Heads {
  heads: number;
  kvHeads: number;
  headDim: number;
}

const SMOLLM2: Heads = { heads: 9, kvHeads: 3, headDim: 64 };
const LLAMA_7B: Heads = { heads: 32, kvHeads: 32, headDim: 128 };

/** Attention and rotary embedding, with the shapes of SmolLM2, or on GPUs of a 7B model. */
export const attentionKernels: Suite = function* (device) {
  const { fallback } = device.info;
  const shape = fallback ? SMOLLM2 : LLAMA_7B;
  for (const rows of fallback ? [128] : [128, 3000]) yield prefill(device, rows, shape);
  yield byPattern(device, 128, shape);
  yield backward(device, 128, shape);
  for (const keys of [32, 128, 512, 2048]) yield decode(device, keys, shape);
  for (const rows of [1, 128]) yield rotate(device, rows, shape);
};

/** Every key is the same, so that the output has to be the mean of the values: here, of 0 to keys - 1. */
function inputs(device: Device, rows: number, keys: number, { heads, kvHeads, headDim }: Heads) {
  const width = kvHeads * headDim;
  return {
    q: device.tensor(new Float32Array(rows * heads * headDim).fill(0.1), { shape: [rows, heads * headDim] }),
    k: device.tensor(new Float32Array(keys * width).fill(0.1), { shape: [keys, width] }),
    v: device.tensor(
      Float32Array.from({ length: keys * width }, (_, i) => Math.floor(i / width)),
      { shape: [keys, width] },
    ),
  };
}

async function checkLastRow(out: Tensor, keys: number): Promise<void> {
  using last = out.rows(-1);
  const expected = (keys - 1) / 2;
  for (const value of (await last.read()) as Float32Array) {
    if (Math.abs(value - expected) > 1e-4 * keys) throw new Error(`found ${value}, expected ${expected}`);
  }
}

function prefill(device: Device, rows: number, shape: Heads): BenchCase {
  const { q, k, v } = inputs(device, rows, rows, shape);
  const segments = device.tensor(causalSegments([rows]), { shape: [rows, 4] });
  return {
    name: "attention, causal prefill",
    dtype: "f32",
    shapes: { q: q.shape, k: k.shape },
    // Half of the square, each key costing headDim multiply-adds for its score and as many for its value.
    flops: 2 * rows * (rows + 1) * shape.heads * shape.headDim,
    run: () => attention({ q, k, v, segments }, { headDim: shape.headDim, scale: 1 }),
    check: (out) => checkLastRow(out, rows),
  };
}

/** What a tap or an edit of scores or pattern takes in place of the fused kernel. */
function byPattern(device: Device, rows: number, shape: Heads): BenchCase {
  const fused = prefill(device, rows, shape);
  const { q, k, v } = inputs(device, rows, rows, shape);
  const segments = device.tensor(causalSegments([rows]), { shape: [rows, 4] });
  const { headDim } = shape;
  return {
    ...fused,
    name: "attention, by scores and pattern",
    run() {
      const scores = attentionScores({ q, k, segments }, { headDim, scale: 1 });
      return attentionMix(attentionPattern(scores), { v }, { headDim });
    },
  };
}

/** Forward and back to q, k and v. */
function backward(device: Device, rows: number, shape: Heads): BenchCase {
  const { q, k, v } = inputs(device, rows, rows, shape);
  const segments = device.tensor(causalSegments([rows]), { shape: [rows, 4] });
  const options = { headDim: shape.headDim, scale: 1 };
  return {
    name: "attention, forward and backward",
    dtype: "f32",
    shapes: { q: q.shape, k: k.shape },
    // Two products forward, seven back.
    flops: 9 * rows * (rows + 1) * shape.heads * shape.headDim,
    run() {
      using tape = new Tape(device);
      const watched = [q, k, v].map((tensor) => tape.watch(tensor));
      tape.backward(tape.record(() => attention({ q, k, v, segments }, options)));
      return tape.gradient(watched[0]!);
    },
  };
}

function decode(device: Device, keys: number, shape: Heads): BenchCase {
  const { q, k, v } = inputs(device, 1, keys, shape);
  const segments = device.tensor(Uint32Array.of(0, 0, 0, keys), { shape: [1, 4] });
  return {
    name: "attention, decode",
    dtype: "f32",
    shapes: { q: q.shape, k: k.shape },
    bytes: k.bytes + v.bytes,
    run: () => attention({ q, k, v, segments }, { headDim: shape.headDim, scale: 1 }),
    check: (out) => checkLastRow(out, keys),
  };
}

function rotate(device: Device, rows: number, { heads, headDim }: Heads): BenchCase {
  const x = device.zeros([rows, heads * headDim]);
  const { cosSin } = ropeTable({ rotaryDim: headDim, theta: 10_000, length: rows });
  const table = device.tensor(cosSin, { shape: [rows, headDim] });
  const positions = device.tensor(Uint32Array.from({ length: rows }, (_, i) => i));
  return {
    name: "rope",
    dtype: "f32",
    shapes: { x: x.shape },
    bytes: 2 * x.bytes,
    run: () => rope(x, positions, table, { headDim }),
  };
}
