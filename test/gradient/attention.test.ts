import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Tape } from "../../src/gradient/tape.ts";
import { attention, causalSegments } from "../../src/kernels/attention/attention.ts";
import { maskAttention } from "../../src/kernels/attention/attention-mask.ts";
import { attentionMix, attentionScores } from "../../src/kernels/attention/attention-pattern.ts";
import type { Device, DeviceOptions } from "../../src/tensor/device.ts";
import type { DType } from "../../src/tensor/dtype.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, largest, randomArray, seededNumbers } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { checkGradients, type Numbers, type TestInput } from "../helpers/finite-differences.ts";

const styles: [string, DeviceOptions][] = [
  ["register kernels", { kernels: "register" }],
  ["workgroup kernels", { kernels: "workgroup" }],
  ["no subgroups", { kernels: "register", without: ["subgroups"] }],
  ["SwiftShader", { adapter: "swiftshader" }],
];

interface Case {
  rows: number;
  keys: number;
  prefixKeys?: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  scale?: number;
  softcap?: number;
  far?: number;
  dtype?: DType;
  layout?: TestInput["layout"];
  /** Of q and k. */
  size?: number;
  segments: Uint32Array;
}

/** Rows of segments that begin and end anywhere, some of them empty. */
function randomSegments(rows: number, keys: number, prefixKeys: number, seed: number) {
  const next = seededNumbers(seed);
  const range = (n: number) => {
    const bounds = [0, 0].map(() => Math.floor(((next() + 1) / 2) * (n + 1)));
    return next() < -0.7 ? bounds : bounds.sort((a, b) => a - b);
  };
  return Uint32Array.from(Array.from({ length: rows }, () => [...range(prefixKeys), ...range(keys)]).flat());
}

/** The columns (prefix keys, then own ones) that a row attends to. */
function attendedColumns(c: Case, row: number): number[] {
  const [prefixKeys, s] = [c.prefixKeys ?? 0, c.segments.subarray(4 * row)];
  return Array.from({ length: prefixKeys + c.keys }, (_, j) => j).filter((j) =>
    j < prefixKeys ? j >= s[0]! && j < s[1]! : j - prefixKeys >= s[2]! && j - prefixKeys < s[3]!,
  );
}

/** What the tensors of a case are called; those of absent parts are left out. */
interface Parts<T> {
  q: T;
  k: T;
  v: T;
  prefixK?: T;
  prefixV?: T;
  table?: T;
}

function namesOf(c: Case): (keyof Parts<unknown>)[] {
  return [
    "q",
    "k",
    "v",
    ...(c.prefixKeys ? (["prefixK", "prefixV"] as const) : []),
    ...(c.far === undefined ? [] : (["table"] as const)),
  ];
}

function parts<T>(c: Case, values: readonly T[]): Parts<T> {
  return Object.fromEntries(namesOf(c).map((name, i) => [name, values[i]!])) as unknown as Parts<T>;
}

function inputsOf(c: Case, seed: number): TestInput[] {
  const [wide, narrow] = [c.heads * c.headDim, c.kvHeads * c.headDim];
  const shapes: Record<keyof Parts<unknown>, [number, number]> = {
    q: [c.rows, wide],
    k: [c.keys, narrow],
    v: [c.keys, narrow],
    prefixK: [c.prefixKeys ?? 0, narrow],
    prefixV: [c.prefixKeys ?? 0, narrow],
    table: [2 * (c.far ?? 0) + 1, c.heads],
  };
  return namesOf(c).map((name, i) => {
    const shape = shapes[name];
    const size = name === "q" || name === "k" || name === "prefixK" ? (c.size ?? 2) : 1;
    const values = randomArray(shape[0] * shape[1], seed + i, size);
    return name === "table" ? { shape, values } : { shape, values, dtype: c.dtype, layout: c.layout };
  });
}

function shiftsOf(c: Case): Int32Array<ArrayBuffer> {
  return Int32Array.from(randomArray(2 * c.rows, 6, (c.prefixKeys ?? 0) + c.keys));
}

function attentionInputs(device: Device, c: Case, { q, k, v, prefixK, prefixV, table }: Parts<Tensor>) {
  return {
    ...{ q, k, v, segments: device.tensor(c.segments, { shape: [c.rows, 4] }) },
    ...(prefixK && prefixV && { prefix: { k: prefixK, v: prefixV } }),
    ...(table && {
      bias: { table, shifts: device.tensor(shiftsOf(c), { shape: [c.rows, 2], dtype: "i32" }) },
    }),
  };
}

function optionsOf({ headDim, scale = headDim ** -0.5, softcap }: Case) {
  return { headDim, scale, ...(softcap !== undefined && { softcap }) };
}

/** What is at a column, of the prefix or of the own keys. */
function at(c: Case, column: number, head: number, own: Numbers, prefix: Numbers | undefined): Float64Array {
  const prefixKeys = c.prefixKeys ?? 0;
  const start = Math.floor(head / (c.heads / c.kvHeads)) * c.headDim;
  const width = c.kvHeads * c.headDim;
  return column < prefixKeys
    ? prefix!.data.subarray(column * width + start)
    : own.data.subarray((column - prefixKeys) * width + start);
}

/** [heads, rows, prefixKeys + keys], 0 where a row does not attend. */
function scoresReference(c: Case, { q, k, prefixK, table }: Parts<Numbers>): Float64Array {
  const prefixKeys = c.prefixKeys ?? 0;
  const columns = prefixKeys + c.keys;
  const scores = new Float64Array(c.heads * c.rows * columns);
  const shifts = shiftsOf(c);
  const { scale } = optionsOf(c);
  for (let h = 0; h < c.heads; h++) {
    for (let r = 0; r < c.rows; r++) {
      for (const j of attendedColumns(c, r)) {
        const key = at(c, j, h, k, prefixK);
        let score = 0;
        for (let d = 0; d < c.headDim; d++) score += q.data[(r * c.heads + h) * c.headDim + d]! * key[d]!;
        score *= scale;
        if (c.softcap) score = c.softcap * Math.tanh(score / c.softcap);
        if (table) {
          const far = c.far!;
          const distance = j < prefixKeys ? j + shifts[2 * r]! : j - prefixKeys + shifts[2 * r + 1]!;
          score += table.data[(Math.max(-far, Math.min(far, distance)) + far) * c.heads + h]!;
        }
        scores[(h * c.rows + r) * columns + j] = score;
      }
    }
  }
  return scores;
}

function mixReference(c: Case, pattern: ArrayLike<number>, { v, prefixV }: Parts<Numbers>): Float64Array {
  const columns = (c.prefixKeys ?? 0) + c.keys;
  const out = new Float64Array(c.rows * c.heads * c.headDim);
  for (let h = 0; h < c.heads; h++) {
    for (let r = 0; r < c.rows; r++) {
      for (const j of attendedColumns(c, r)) {
        const value = at(c, j, h, v, prefixV);
        const weight = pattern[(h * c.rows + r) * columns + j]!;
        for (let d = 0; d < c.headDim; d++) out[(r * c.heads + h) * c.headDim + d]! += weight * value[d]!;
      }
    }
  }
  return out;
}

function attentionReference(c: Case, x: Parts<Numbers>): Float64Array {
  const columns = (c.prefixKeys ?? 0) + c.keys;
  const pattern = scoresReference(c, x);
  for (let h = 0; h < c.heads; h++) {
    for (let r = 0; r < c.rows; r++) {
      const row = pattern.subarray((h * c.rows + r) * columns, (h * c.rows + r + 1) * columns);
      const attended = attendedColumns(c, r);
      const highest = Math.max(...attended.map((j) => row[j]!));
      const total = attended.reduce((sum, j) => sum + Math.exp(row[j]! - highest), 0);
      for (const j of attended) row[j] = Math.exp(row[j]! - highest) / total;
    }
  }
  return mixReference(c, pattern, x);
}

function check(device: Device, c: Case, seed = 1): Promise<void> {
  return checkGradients(device, {
    inputs: inputsOf(c, seed),
    run: (...values) => attention(attentionInputs(device, c, parts(c, values)), optionsOf(c)),
    reference: (...values) => attentionReference(c, parts(c, values)),
    seed,
  });
}

const GROUPED = { rows: 7, keys: 19, prefixKeys: 9, heads: 4, kvHeads: 2, headDim: 8 };

describe.each(styles)("gradients of attention, %s", (_style, options) => {
  it("for any shape and any segments", async () => {
    const device = await testDevice(options);
    const cases = fc.record({
      rows: fc.integer({ min: 1, max: 9 }),
      keys: fc.integer({ min: 1, max: 22 }),
      prefixKeys: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 9 })),
      kvHeads: fc.integer({ min: 1, max: 2 }),
      group: fc.integer({ min: 1, max: 3 }),
      headDim: fc.constantFrom(4, 6),
      far: fc.constantFrom(undefined, 1, 3),
      softcap: fc.constantFrom(undefined, 2),
      seed: fc.integer({ min: 1, max: 1e6 }),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ group, seed, ...shape }) => {
        const segments = randomSegments(shape.rows, shape.keys, shape.prefixKeys, seed);
        await check(device, { ...shape, heads: group * shape.kvHeads, segments }, seed);
      }),
      { numRuns: 8, seed: 7, endOnFailure: true },
    );
  });

  it("causal, in windows, in ragged batches", async () => {
    const device = await testDevice(options);
    const shape = { rows: 21, keys: 21, heads: 3, kvHeads: 1, headDim: 4 };
    await check(device, { ...shape, segments: causalSegments([21]) });
    await check(device, { ...shape, segments: causalSegments([4, 1, 16], { window: 3 }) });
  });

  it.each(["f16", "bf16"] as const)("of %s, of slices and of columns apart", async (dtype) => {
    const device = await testDevice(options);
    const segments = randomSegments(7, 19, 9, 3);
    await check(device, { ...GROUPED, dtype, layout: "sliced", segments });
    await check(device, { ...GROUPED, dtype, layout: "transposed", segments });
  });

  it("where scores are large: sharp weights, and a soft cap that they are far beyond", async () => {
    const device = await testDevice(options);
    const segments = randomSegments(7, 19, 9, 4);
    await check(device, { ...GROUPED, size: 9, scale: 1, segments });
    await check(device, { ...GROUPED, size: 9, scale: 1, softcap: 20, segments });
  });

  it("of scores, and of a mix of values by a pattern", async () => {
    const device = await testDevice(options);
    const c = { ...GROUPED, segments: randomSegments(7, 19, 9, 5) };
    const columns = c.prefixKeys + c.keys;
    for (const each of [c, { ...c, softcap: 2, far: 3 }, { ...c, prefixKeys: 0, far: 2 }]) {
      await checkGradients(device, {
        inputs: inputsOf(each, 1),
        // Hidden ones as 0, by the gradient of the mask.
        run: (...values) => {
          const inputs = attentionInputs(device, each, parts(each, values));
          const { prefixKeys } = each;
          return maskAttention(attentionScores(inputs, optionsOf(each)), inputs.segments, {
            prefixKeys,
            hidden: 0,
          });
        },
        reference: (...values) => scoresReference(each, parts(each, values)),
      });
    }
    const everything = { ...c, segments: new Uint32Array(28).map((_, i) => [0, 9, 0, 19][i % 4]!) };
    const [, , v, , prefixV] = inputsOf(c, 1) as [TestInput, TestInput, TestInput, TestInput, TestInput];
    const values = randomArray(4 * 7 * columns, 9).map((x) => (x < 0 ? 0 : x));
    await checkGradients(device, {
      inputs: [{ shape: [4, 7, columns], values }, v, prefixV],
      run: (pattern, v, prefixV) =>
        attentionMix(pattern!, { v: v!, prefix: { v: prefixV! } }, { headDim: 8 }),
      reference: (pattern, v, prefixV) =>
        mixReference(everything, pattern!.data, { v, prefixV } as Parts<Numbers>),
    });
  });
});
