import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { attention, causalSegments, fullSegments, type KeysAndValues } from "../src/kernels/attention.ts";
import { attentionMix, attentionPattern, attentionScores } from "../src/kernels/attention-pattern.ts";
import type { Device, DeviceOptions } from "../src/tensor/device.ts";
import { DTypeError, ShapeError } from "../src/tensor/errors.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { expectClose, randomArray, seededNumbers } from "./helpers/compare.ts";
import { testDevice } from "./helpers/device.ts";

const styles: [string, DeviceOptions][] = [
  ["register", { kernels: "register" }],
  ["workgroup", { kernels: "workgroup" }],
];

interface Case {
  rows: number;
  keys: number;
  prefixKeys: number;
  heads: number;
  kvHeads: number;
  headDim: number;
}

interface Values {
  q: Float32Array<ArrayBuffer>;
  k: Float32Array<ArrayBuffer>;
  v: Float32Array<ArrayBuffer>;
  prefixK: Float32Array<ArrayBuffer>;
  prefixV: Float32Array<ArrayBuffer>;
  segments: Uint32Array<ArrayBuffer>;
}

function randomValues(c: Case, segments: Uint32Array<ArrayBuffer>, seed: number): Values {
  const width = c.kvHeads * c.headDim;
  return {
    q: randomArray(c.rows * c.heads * c.headDim, seed, 2),
    k: randomArray(c.keys * width, seed + 1, 2),
    v: randomArray(c.keys * width, seed + 2),
    prefixK: randomArray(c.prefixKeys * width, seed + 3, 2),
    prefixV: randomArray(c.prefixKeys * width, seed + 4),
    segments,
  };
}

/** Rows of segments that begin and end anywhere, some of them empty. */
function randomSegments({ rows, keys, prefixKeys }: Case, seed: number): Uint32Array<ArrayBuffer> {
  const next = seededNumbers(seed);
  const range = (n: number) => {
    const bounds = [0, 0].map(() => Math.floor(((next() + 1) / 2) * (n + 1)));
    return next() < -0.7 ? bounds : bounds.sort((a, b) => a - b);
  };
  return Uint32Array.from(Array.from({ length: rows }, () => [...range(prefixKeys), ...range(keys)]).flat());
}

/** Scores [heads][rows][prefix keys, then own keys] and the output [rows, heads * headDim], in f64. */
function reference(c: Case, x: Values, scale: number): { out: Float64Array; scores: Float64Array } {
  const { rows, keys, prefixKeys, heads, kvHeads, headDim } = c;
  const columns = prefixKeys + keys;
  const width = kvHeads * headDim;
  const scores = new Float64Array(heads * rows * columns).fill(Number.NEGATIVE_INFINITY);
  const out = new Float64Array(rows * heads * headDim);
  for (let h = 0; h < heads; h++) {
    const kv = Math.floor(h / (heads / kvHeads)) * headDim;
    for (let r = 0; r < rows; r++) {
      const s = x.segments.subarray(4 * r, 4 * r + 4);
      const row = scores.subarray((h * rows + r) * columns, (h * rows + r + 1) * columns);
      const at = (j: number, own: Float32Array, prefix: Float32Array) =>
        j < prefixKeys ? prefix.subarray(j * width + kv) : own.subarray((j - prefixKeys) * width + kv);
      const attended: number[] = [];
      for (let j = 0; j < columns; j++) {
        const own = j - prefixKeys;
        if (!((j < prefixKeys && j >= s[0]! && j < s[1]!) || (own >= 0 && own >= s[2]! && own < s[3]!))) continue;
        attended.push(j);
        const k = at(j, x.k, x.prefixK);
        let sum = 0;
        for (let d = 0; d < headDim; d++) sum += x.q[(r * heads + h) * headDim + d]! * k[d]!;
        row[j] = sum * scale;
      }
      const highest = Math.max(...attended.map((j) => row[j]!));
      const weights = attended.map((j) => Math.exp(row[j]! - highest));
      const total = weights.reduce((sum, w) => sum + w, 0);
      attended.forEach((j, n) => {
        const v = at(j, x.v, x.prefixV);
        for (let d = 0; d < headDim; d++) {
          out[(r * heads + h) * headDim + d]! += (weights[n]! / total) * v[d]!;
        }
      });
    }
  }
  return { out, scores };
}

function tensors(device: Device, c: Case, x: Values) {
  const width = c.kvHeads * c.headDim;
  const prefix: KeysAndValues | undefined =
    c.prefixKeys > 0
      ? {
          k: device.tensor(x.prefixK, { shape: [c.prefixKeys, width] }),
          v: device.tensor(x.prefixV, { shape: [c.prefixKeys, width] }),
        }
      : undefined;
  return {
    q: device.tensor(x.q, { shape: [c.rows, c.heads * c.headDim] }),
    k: device.tensor(x.k, { shape: [c.keys, width] }),
    v: device.tensor(x.v, { shape: [c.keys, width] }),
    segments: device.tensor(x.segments, { shape: [c.rows, 4] }),
    prefix,
  };
}

async function check(device: Device, c: Case, segments: Uint32Array<ArrayBuffer>, seed = 1): Promise<void> {
  const x = randomValues(c, segments, seed);
  const scale = c.headDim ** -0.5;
  const expected = reference(c, x, scale);
  const results = device.scope(() => {
    const inputs = tensors(device, c, x);
    const fused = attention(inputs, { headDim: c.headDim, scale });
    const scores = attentionScores(inputs, { headDim: c.headDim, scale });
    const mixed = attentionMix(attentionPattern(scores), inputs, { headDim: c.headDim });
    return [fused, scores, mixed] as const;
  });
  const [fused, scores, mixed] = await device.read(results);
  for (const t of results) t.dispose();
  const label = JSON.stringify(c);
  expectClose(scores, expected.scores, { label: `scores of ${label}` });
  expectClose(mixed, expected.out, { label: `mix of ${label}` });
  expectClose(fused, expected.out, { label: `attention of ${label}` });
  expectClose(fused, mixed, { label: `attention against mix of ${label}` });
}

describe.each(styles)("attention, %s kernels", (_style, options) => {
  it("agrees with an f64 reference for any shape and any segments, step by step and fused", async () => {
    const device = await testDevice(options);
    const cases = fc.record({
      rows: fc.integer({ min: 1, max: 40 }),
      keys: fc.integer({ min: 1, max: 140 }),
      prefixKeys: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 90 })),
      kvHeads: fc.integer({ min: 1, max: 3 }),
      group: fc.integer({ min: 1, max: 4 }),
      headDim: fc.constantFrom(1, 4, 6, 12, 16, 20),
      seed: fc.integer({ min: 1, max: 1e6 }),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ group, seed, ...shape }) => {
        const c = { ...shape, heads: group * shape.kvHeads };
        await check(device, c, randomSegments(c, seed), seed);
      }),
      { numRuns: 25, seed: 7, endOnFailure: true },
    );
  });

  it.each([64, 80, 128, 256])("takes heads of %i", async (headDim) => {
    const device = await testDevice(options);
    const c = { rows: 21, keys: 70, prefixKeys: 37, heads: 2, kvHeads: 1, headDim };
    await check(device, c, randomSegments(c, headDim));
  });
});
