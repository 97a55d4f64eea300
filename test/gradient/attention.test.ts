import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { grad } from "../../src/gradient/grad.ts";
import { Tape } from "../../src/gradient/tape.ts";
import { attention, causalSegments } from "../../src/kernels/attention/attention.ts";
import { maskAttention } from "../../src/kernels/attention/attention-mask.ts";
import { attentionMix, attentionScores } from "../../src/kernels/attention/attention-pattern.ts";
import { copy } from "../../src/kernels/movement/copy.ts";
import type { Device } from "../../src/tensor/device.ts";
import type { DType } from "../../src/tensor/dtype.ts";
import type { DeviceOptions } from "../../src/tensor/open-device.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, randomArray, seededNumbers } from "../helpers/compare.ts";
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

const attended = new WeakMap<Case, number[][]>();

/** The columns (prefix keys, then own ones) that a row attends to. */
function attendedColumns(c: Case, row: number): number[] {
  let rows = attended.get(c);
  if (!rows) {
    const prefixKeys = c.prefixKeys ?? 0;
    const columns = Array.from({ length: prefixKeys + c.keys }, (_, j) => j);
    rows = Array.from({ length: c.rows }, (_, r) => {
      const [from, to, ownFrom, ownTo] = c.segments.subarray(4 * r, 4 * r + 4) as unknown as number[];
      return columns.filter((j) =>
        j < prefixKeys ? j >= from! && j < to! : j - prefixKeys >= ownFrom! && j - prefixKeys < ownTo!,
      );
    });
    attended.set(c, rows);
  }
  return rows[row]!;
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

/** Of q, k and v, for a cotangent dy. */
async function gradientsOf(
  device: Device,
  c: Omit<Case, "segments">,
  x: Record<"q" | "k" | "v" | "dy", Float32Array<ArrayBuffer>> & { segments: Uint32Array<ArrayBuffer> },
): Promise<Float32Array[]> {
  const gradients = device.scope(() => {
    using tape = new Tape(device);
    const [q, dy] = [x.q, x.dy].map((data) => device.tensor(data, { shape: [c.rows, c.heads * c.headDim] }));
    const [k, v] = [x.k, x.v].map((data) => device.tensor(data, { shape: [c.keys, c.kvHeads * c.headDim] }));
    const segments = device.tensor(x.segments, { shape: [c.rows, 4] });
    const watched = [q!, k!, v!].map((t) => tape.watch(t));
    const out = tape.record(() =>
      attention({ q: q!, k: k!, v: v!, segments }, { headDim: c.headDim, scale: 1 }),
    );
    tape.backward(out, dy!);
    return device.scope(() => watched.map((each) => copy(tape.gradient(each))));
  });
  return (await device.read(gradients)) as Float32Array[];
}

const GROUPED = { rows: 7, keys: 19, prefixKeys: 9, heads: 4, kvHeads: 2, headDim: 4 };
/** What kernels are compiled for. */
const VARIANTS = [{ headDim: 4 }, { headDim: 4, softcap: 2, far: 3 }, { headDim: 6 }];

describe.each(styles)("gradients of attention, %s", (_style, options) => {
  it("for any shape and any segments", async () => {
    const device = await testDevice(options);
    const cases = fc.record({
      rows: fc.integer({ min: 1, max: 9 }),
      keys: fc.integer({ min: 1, max: 22 }),
      prefixKeys: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 9 })),
      kvHeads: fc.integer({ min: 1, max: 2 }),
      group: fc.integer({ min: 1, max: 3 }),
      variant: fc.constantFrom(...VARIANTS),
      seed: fc.integer({ min: 1, max: 1e6 }),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ group, seed, variant, ...shape }) => {
        const segments = randomSegments(shape.rows, shape.keys, shape.prefixKeys, seed);
        await check(device, { ...shape, ...variant, heads: group * shape.kvHeads, segments }, seed);
      }),
      { numRuns: 6, seed: 7, endOnFailure: true },
    );
  });

  it("causal, in windows, in ragged batches", async () => {
    const device = await testDevice(options);
    const shape = { rows: 13, keys: 13, heads: 3, kvHeads: 1, headDim: 4 };
    await check(device, { ...shape, segments: causalSegments([13]) });
    await check(device, { ...shape, segments: causalSegments([4, 1, 8], { window: 3 }) });
  });

  it("of 16-bit floats, of slices and of columns apart", async () => {
    const device = await testDevice(options);
    const segments = randomSegments(7, 19, 9, 3);
    await check(device, { ...GROUPED, dtype: "f16", layout: "sliced", segments });
    await check(device, { ...GROUPED, dtype: "bf16", layout: "transposed", segments });
  });

  it("where scores are large: sharp weights, and a soft cap that they are far beyond", async () => {
    const device = await testDevice(options);
    const segments = randomSegments(7, 19, 9, 4);
    for (const variant of VARIANTS.slice(0, 2)) {
      await check(device, { ...GROUPED, ...variant, size: 9, scale: 0.4, segments }); // scores up to 80
    }
  });

  it("of many keys in parts, and of many queries in parts", async () => {
    const device = await testDevice(options);
    const shape = { heads: 1, kvHeads: 1, headDim: 4 };
    await check(device, { ...shape, rows: 1, keys: 260, segments: Uint32Array.of(0, 0, 3, 257) });
    await check(device, { ...shape, rows: 128, keys: 2, segments: randomSegments(128, 2, 0, 6) });
  });

  it("whatever rows hold that nobody attends to, and that attend to nothing", async () => {
    const device = await testDevice(options);
    // Rows 0 and 2 attend to nothing; keys 1 and 5 are nobody's; row 1 attends to key 3, whose score is -infinity.
    const c = { rows: 4, keys: 6, heads: 2, kvHeads: 1, headDim: 4 };
    const segments = Uint32Array.of(0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 4, 2, 0, 0, 2, 3);
    const [q, k, v, dy] = [
      randomArray(32, 1),
      randomArray(24, 2),
      randomArray(24, 3),
      randomArray(32, 4),
    ] as const;
    q.fill(Number.NaN, 0, 8).fill(1, 8, 16).fill(Number.POSITIVE_INFINITY, 16, 24);
    dy.fill(Number.NaN, 0, 8).fill(Number.NEGATIVE_INFINITY, 16, 24);
    for (const t of [k, v]) t.fill(Number.NaN, 4, 8).fill(Number.POSITIVE_INFINITY, 20);
    k.fill(Number.NEGATIVE_INFINITY, 12, 16);
    const [dq, dk, dv] = await gradientsOf(device, c, { q, k, v, dy, segments });
    expect(Array.from(dq!)).toEqual(new Array(32).fill(0)); // of one key, too: its weight is 1
    expect(Array.from(dk!)).toEqual(new Array(24).fill(0));
    const expected = new Float32Array(24);
    for (let d = 0; d < 4; d++) expected[8 + d] = dy[24 + d]! + dy[28 + d]!;
    expectClose(dv!, expected, { atol: 1e-6, rtol: 0 });
  });

  it("is NaN where what is attended to is", async () => {
    const device = await testDevice(options);
    const c = { rows: 2, keys: 3, heads: 1, kvHeads: 1, headDim: 4 };
    const segments = Uint32Array.of(0, 0, 0, 2, 0, 0, 2, 3);
    for (const spoilt of ["q", "k", "dy"] as const) {
      const x = { q: randomArray(8, 1), k: randomArray(12, 2), v: randomArray(12, 3), dy: randomArray(8, 4) };
      x[spoilt][1] = Number.NaN;
      const [dq, dk, dv] = await gradientsOf(device, c, { ...x, segments });
      const [nan, fine] = [
        (t: Float32Array) => Array.from(t).every(Number.isNaN),
        (t: Float32Array) => Array.from(t).every(Number.isFinite),
      ];
      expect([nan(dq!.subarray(0, 4)), nan(dk!.subarray(0, 8)), nan(dv!.subarray(0, 8))]).toEqual([
        true,
        true,
        true,
      ]);
      expect([fine(dq!.subarray(4)), fine(dk!.subarray(8)), fine(dv!.subarray(8))]).toEqual([
        true,
        true,
        true,
      ]);
    }
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
        attentionMix(pattern!, { v: v!, prefix: { v: prefixV! } }, { headDim: 4 }),
      reference: (pattern, v, prefixV) =>
        mixReference(everything, pattern!.data, { v, prefixV } as Parts<Numbers>),
    });
  });
});

const options = { headDim: 4, scale: 0.5 };

it("gives only what is asked for", async () => {
  const device = await testDevice({ kernels: "register" });
  const c = { ...GROUPED, far: 3, segments: randomSegments(7, 19, 9, 8) };
  for (const wanted of [1, 2, 5]) {
    await checkGradients(device, {
      inputs: inputsOf(c, 1).map((input, i) => ({ ...input, gradient: i === wanted })),
      run: (...values) => attention(attentionInputs(device, c, parts(c, values)), optionsOf(c)),
      reference: (...values) => attentionReference(c, parts(c, values)),
    });
  }
});

it("takes heads of more dimensions than an invocation sums up", async () => {
  const device = await testDevice({ kernels: "register" });
  const shape = { rows: 3, keys: 5, heads: 2, kvHeads: 1, headDim: 68 };
  await check(device, { ...shape, segments: randomSegments(3, 5, 0, 3) });
});

it("works on tensors larger than a binding", async () => {
  const device = await testDevice({ kernels: "register", maxBindingBytes: 1024 });
  const shape = { rows: 10, keys: 10, heads: 8, kvHeads: 8, headDim: 4 };
  await check(device, { ...shape, segments: causalSegments([6, 4]) });
});

it("takes no rows", async () => {
  const device = await testDevice({ kernels: "register" });
  const [none, k] = [device.zeros([0, 8]), device.zeros([3, 8])];
  const segments = device.zeros([0, 4], "u32");
  const gradients = grad((q: Tensor, k: Tensor) => attention({ q, k, v: k, segments }, options))(none, k);
  expect(gradients[0].shape).toEqual([0, 8]);
  expect(Array.from(await gradients[1].read())).toEqual(new Array(24).fill(0));
});

it("what all scores have in common has no gradient", async () => {
  const device = await testDevice({ kernels: "register" });
  const c = { ...GROUPED, far: 0, segments: randomSegments(7, 19, 9, 8) };
  const values = inputsOf(c, 1).map(({ shape, values }) => device.tensor(values!, { shape }));
  using tape = new Tape(device);
  const table = tape.watch(values.at(-1)!);
  tape.backward(tape.record(() => attention(attentionInputs(device, c, parts(c, values)), optionsOf(c))));
  expectClose(await tape.gradient(table).read(), new Float32Array(4), { atol: 1e-5, rtol: 0 });
});

it("a pattern has gradients where it is 0, but for rows that nobody has written", async () => {
  const device = await testDevice({ kernels: "register" });
  const pattern = device.tensor([0.5, 0, 0, 0], { shape: [1, 1, 4] });
  const v = device.tensor([1, 2, 3, 4, Number.NaN, 5, Number.POSITIVE_INFINITY, 6], { shape: [4, 2] });
  using tape = new Tape(device);
  const [dp, dv] = [tape.watch(pattern), tape.watch(v)];
  tape.backward(tape.record(() => attentionMix(pattern, { v }, { headDim: 2 })));
  expect(Array.from(await tape.gradient(dp).read())).toEqual([3, 7, 0, 0]);
  expect(Array.from(await tape.gradient(dv).read())).toEqual([0.5, 0.5, 0, 0, 0, 0, 0, 0]);
});

it("scores have no gradient from rows that are hidden, whatever these hold", async () => {
  const device = await testDevice({ kernels: "register" });
  const q = device.tensor([1, 2, 3, Number.NaN], { shape: [4, 1] });
  const k = device.tensor([4, Number.NaN, Number.POSITIVE_INFINITY], { shape: [3, 1] });
  const segments = device.tensor(Uint32Array.of(0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 3), {
    shape: [4, 4],
  });
  using tape = new Tape(device);
  const [dq, dk] = [tape.watch(q), tape.watch(k)];
  tape.backward(tape.record(() => attentionScores({ q, k, segments }, { headDim: 1, scale: 2 })));
  expect(Array.from(await tape.gradient(dq).read())).toEqual([8, 8, 0, 0]);
  expect(Array.from(await tape.gradient(dk).read())).toEqual([6, 0, 0]);
});

it("gradients of gradients are refused by name", async () => {
  const device = await testDevice({ kernels: "register" });
  const [q, k] = [device.zeros([2, 4]), device.zeros([2, 4])];
  const segments = device.tensor(causalSegments([2]), { shape: [2, 4] });
  const twice = () => {
    const once = grad((x: Tensor) => attention({ q: x, k, v: k, segments }, options));
    return grad((x: Tensor) => once(x)[0])(q);
  };
  expect(twice).toThrow(/gradients do not go through (attentionBackward|accumulateInto)/);
});
