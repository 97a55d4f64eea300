import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DTypeError, ShapeError } from "../../../src/errors.ts";
import {
  attention,
  causalSegments,
  fullSegments,
  type KeysAndValues,
} from "../../../src/kernels/attention/attention.ts";
import {
  attentionMix,
  attentionPattern,
  attentionScores,
} from "../../../src/kernels/attention/attention-pattern.ts";
import type { Device } from "../../../src/tensor/device.ts";
import type { DeviceOptions } from "../../../src/tensor/open-device.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { expectClose, randomArray, seededNumbers } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";

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
  softcap?: number;
  /** The largest distance that has a bias of its own. */
  far?: number;
}

interface Values {
  q: Float32Array<ArrayBuffer>;
  k: Float32Array<ArrayBuffer>;
  v: Float32Array<ArrayBuffer>;
  prefixK: Float32Array<ArrayBuffer>;
  prefixV: Float32Array<ArrayBuffer>;
  segments: Uint32Array<ArrayBuffer>;
  /** [2 * far + 1, heads] and [rows, 2] */
  bias?: { table: Float32Array<ArrayBuffer>; shifts: Int32Array<ArrayBuffer> };
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
    ...(c.far !== undefined && {
      bias: {
        table: randomArray((2 * c.far + 1) * c.heads, seed + 5, 3),
        shifts: Int32Array.from(randomArray(2 * c.rows, seed + 6, 2 * (c.prefixKeys + c.keys))),
      },
    }),
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
        if (!((j < prefixKeys && j >= s[0]! && j < s[1]!) || (own >= 0 && own >= s[2]! && own < s[3]!)))
          continue;
        attended.push(j);
        const k = at(j, x.k, x.prefixK);
        let sum = 0;
        for (let d = 0; d < headDim; d++) sum += x.q[(r * heads + h) * headDim + d]! * k[d]!;
        const score = sum * scale;
        row[j] = c.softcap === undefined ? score : c.softcap * Math.tanh(score / c.softcap);
        if (x.bias) {
          const far = c.far!;
          const distance = own < 0 ? j + x.bias.shifts[2 * r]! : own + x.bias.shifts[2 * r + 1]!;
          row[j]! += x.bias.table[(Math.max(-far, Math.min(far, distance)) + far) * heads + h]!;
        }
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
    ...(prefix && { prefix }),
    ...(x.bias && {
      bias: {
        table: device.tensor(x.bias.table, { shape: [2 * c.far! + 1, c.heads] }),
        shifts: device.tensor(x.bias.shifts, { shape: [c.rows, 2], dtype: "i32" }),
      },
    }),
  };
}

async function check(device: Device, c: Case, segments: Uint32Array<ArrayBuffer>, seed = 1): Promise<void> {
  const x = randomValues(c, segments, seed);
  const scale = c.headDim ** -0.5;
  const attend = { headDim: c.headDim, scale, softcap: c.softcap };
  const expected = reference(c, x, scale);
  const results = device.scope(() => {
    const inputs = tensors(device, c, x);
    const fused = attention(inputs, attend);
    const scores = attentionScores(inputs, attend);
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
      headDim: fc.constantFrom(4, 6, 12),
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

  it.each([1, 16, 64, 80, 256])("takes heads of %i", async (headDim) => {
    const device = await testDevice(options);
    const c = { rows: 21, keys: 70, prefixKeys: 37, heads: 2, kvHeads: 1, headDim };
    await check(device, c, randomSegments(c, headDim));
  });

  it("adds a bias by head and distance, for any shifts", async () => {
    const device = await testDevice(options);
    const cases = fc.record({
      rows: fc.integer({ min: 1, max: 40 }),
      keys: fc.integer({ min: 1, max: 140 }),
      prefixKeys: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 90 })),
      kvHeads: fc.integer({ min: 1, max: 3 }),
      group: fc.integer({ min: 1, max: 4 }),
      headDim: fc.constantFrom(4, 6),
      far: fc.constantFrom(0, 1, 5, 128),
      seed: fc.integer({ min: 1, max: 1e6 }),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ group, seed, ...shape }) => {
        const c = { ...shape, heads: group * shape.kvHeads };
        await check(device, c, randomSegments(c, seed), seed);
      }),
      { numRuns: 10, seed: 8, endOnFailure: true },
    );
  });

  it("puts the parts of many keys together with their biases, which the soft cap does not bound", async () => {
    const device = await testDevice(options);
    const shape = { rows: 1, keys: 700, prefixKeys: 300, heads: 6, kvHeads: 3, headDim: 12 };
    const c = { ...shape, far: 40, softcap: 2 };
    await check(device, c, Uint32Array.of(0, 300, 3, 690));
  });

  it.each([0.5, 3, 50])("bounds scores softly by %d", async (softcap) => {
    const device = await testDevice(options);
    const c = { rows: 21, keys: 70, prefixKeys: 37, heads: 4, kvHeads: 2, headDim: 12, softcap };
    await check(device, c, randomSegments(c, 3));
  });

  it("with a soft cap infinite scores are at the cap, and NaN stays", async () => {
    const device = await testDevice(options);
    const out = device.scope(() => {
      const { POSITIVE_INFINITY: infinity, NaN: nan } = Number;
      const q = device.tensor([1, 1], { shape: [2, 1] });
      const k = device.tensor([infinity, -infinity, nan], { shape: [3, 1] });
      const v = device.tensor([1, 0, 0], { shape: [3, 1] });
      const segments = device.tensor(Uint32Array.of(0, 0, 0, 2, 0, 0, 0, 3), { shape: [2, 4] });
      return attention({ q, k, v, segments }, { headDim: 1, scale: 1, softcap: 2 });
    });
    const [bounded, spoilt] = await out.read();
    expect(bounded).toBeCloseTo(1 / (1 + Math.exp(-4)), 6);
    expect(spoilt).toBeNaN();
  });

  it("splits many keys of one row and puts the parts together", async () => {
    const device = await testDevice(options);
    const c = { rows: 1, keys: 700, prefixKeys: 300, heads: 6, kvHeads: 3, headDim: 12 };
    const before = device.counters.dispatches;
    await check(device, c, Uint32Array.of(0, 300, 3, 690));
    // Prefix, own keys and their combination; two for the scores, one each for pattern and mix.
    expect(device.counters.dispatches - before).toBe(7);
  });

  it("a ragged batch gives what each sequence gives alone", async () => {
    const device = await testDevice(options);
    const lengths = [5, 1, 33, 12];
    const rows = lengths.reduce((a, b) => a + b);
    const c = { rows, keys: rows, prefixKeys: 0, heads: 4, kvHeads: 2, headDim: 12 };
    const x = randomValues(c, causalSegments(lengths, { window: 7 }), 3);
    const { out, parts } = device.scope(() => {
      const { q, k, v, segments } = tensors(device, c, x);
      const options = { headDim: 12, scale: 0.3 };
      const out = attention({ q, k, v, segments }, options);
      let start = 0;
      const parts = lengths.map((n) => {
        const [from, to] = [start, start + n];
        start = to;
        const alone = device.tensor(causalSegments([n], { window: 7 }), { shape: [n, 4] });
        return attention(
          { q: q.rows(from, to), k: k.rows(from, to), v: v.rows(from, to), segments: alone },
          options,
        );
      });
      return { out, parts };
    });
    const [whole, ...alone] = await device.read([out, ...parts]);
    expectClose(
      whole!,
      alone.flatMap((part) => Array.from(part)),
      { atol: 1e-6, rtol: 1e-6 },
    );
    expectClose(whole!, reference(c, x, 0.3).out);
  });

  it("never looks at keys that a row does not attend to, whatever they hold", async () => {
    const device = await testDevice(options);
    // Row 1 attends to the keys that are NaN and infinite, the rows beside it do not; key 5 is nobody's.
    const c = { rows: 3, keys: 9, prefixKeys: 9, heads: 2, kvHeads: 1, headDim: 4 };
    const segments = Uint32Array.of(0, 3, 0, 3, 3, 5, 3, 5, 6, 9, 6, 9);
    const x = randomValues(c, segments, 5);
    const clean = reference(c, x, 1).out;
    for (const t of [x.k, x.v, x.prefixK, x.prefixV]) {
      t.fill(Number.NaN, 3 * 4, 4 * 4)
        .fill(Number.POSITIVE_INFINITY, 4 * 4, 5 * 4)
        .fill(Number.NaN, 5 * 4, 6 * 4);
    }
    const [fused, mixed] = await device.read(
      device.scope(() => {
        const inputs = tensors(device, c, x);
        const pattern = attentionPattern(attentionScores(inputs, { headDim: 4, scale: 1 }));
        return [attention(inputs, { headDim: 4, scale: 1 }), attentionMix(pattern, inputs, { headDim: 4 })];
      }),
    );
    for (const out of [fused!, mixed!]) {
      expectClose(out.subarray(0, 8), clean.subarray(0, 8));
      expect(Array.from(out.subarray(8, 16))).toEqual(new Array(8).fill(Number.NaN));
      expectClose(out.subarray(16), clean.subarray(16));
    }
  });

  it("scores of +infinity give NaN, of -infinity no weight, and a row without keys 0", async () => {
    const device = await testDevice(options);
    const out = device.scope(() => {
      const { POSITIVE_INFINITY: infinity } = Number;
      const q = device.tensor([1, 1, 1, 1], { shape: [4, 1] });
      const k = device.tensor([0, infinity, -infinity, 0, 0], { shape: [5, 1] });
      const v = device.tensor([9, 9, 9, 5, 6], { shape: [5, 1] });
      const segments = device.tensor(Uint32Array.of(0, 0, 0, 2, 0, 0, 2, 3, 0, 0, 1, 1, 0, 9, 2, 9), {
        shape: [4, 4],
      });
      return attention({ q, k, v, segments }, { headDim: 1, scale: 1 });
    });
    // The last row's range reaches beyond the keys, where it is cut.
    expect(Array.from(await out.read())).toEqual([Number.NaN, 0, 0, 5.5]);
  });

  it("keeps large scores apart without overflow", async () => {
    const device = await testDevice(options);
    const out = device.scope(() => {
      const q = device.tensor([1000, 0, 0, 0], { shape: [1, 4] });
      const k = device.tensor([900, 0, 0, 0, 901, 0, 0, 0, -9e30, 0, 0, 0], { shape: [3, 4] });
      const v = device.tensor([1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3], { shape: [3, 4] });
      const segments = device.tensor(fullSegments([3]).subarray(0, 4), { shape: [1, 4] });
      return attention({ q, k, v, segments }, { headDim: 4, scale: 1 });
    });
    expect(Array.from(await out.read())).toEqual([2, 2, 2, 2]);
  });

  it.each([4, 6])(
    "reads slices of fused projections and 16-bit keys in place (heads of %i)",
    async (headDim) => {
      const device = await testDevice(options);
      const c = { rows: 9, keys: 9, prefixKeys: 0, heads: 2, kvHeads: 2, headDim };
      const width = 2 * headDim;
      const fused = randomArray(10 * 3 * width, 4);
      const segments = causalSegments([4, 5]);
      const [q, k, v, out] = await device.read(
        device.scope(() => {
          const rows = device.tensor(fused, { shape: [10, 3 * width] }).rows(1);
          const halves = device.tensor(fused, { shape: [10, 3 * width], dtype: "f16" }).rows(1);
          const bfloats = device.tensor(fused, { shape: [10, 3 * width], dtype: "bf16" }).rows(1);
          const q = rows.slice(1, 0, width);
          const k = halves.slice(1, width, 2 * width);
          const v = bfloats.slice(1, 2 * width);
          const table = device.tensor(segments, { shape: [9, 4] });
          return [q, k, v, attention({ q, k, v, segments: table }, { headDim, scale: 1 })];
        }),
      );
      const none = new Float32Array(0);
      const x = { q: q!, k: k!, v: v!, prefixK: none, prefixV: none, segments } as Values;
      expectClose(out!, reference(c, x, 1).out);
    },
  );

  it("covers more heads and rows than one dispatch dimension has workgroups for", async () => {
    const device = await testDevice(options);
    const heads = 65_537;
    const v = randomArray(heads * 4, 8);
    const out = device.scope(() => {
      const t = device.tensor(v, { shape: [1, heads * 4] });
      const segments = device.tensor(Uint32Array.of(0, 0, 0, 1), { shape: [1, 4] });
      return attention({ q: t, k: t, v: t, segments }, { headDim: 4, scale: 1 });
    });
    expectClose(await out.read(), v, { atol: 1e-7 });
  });

  it("works on tensors larger than a binding", async () => {
    const device = await testDevice({ ...options, maxBindingBytes: 4096 });
    const c = { rows: 40, keys: 40, prefixKeys: 0, heads: 8, kvHeads: 8, headDim: 4 };
    const x = randomValues(c, causalSegments([25, 15]), 1);
    const out = device.scope(() => attention(tensors(device, c, x), { headDim: 4, scale: 0.5 }));
    expectClose(await out.read(), reference(c, x, 0.5).out);
  });
});

it.each([6, 64, 256])(
  "gives the same bits without subgroups, heads of %i (register kernels)",
  async (headDim) => {
    const c: Case = { rows: 13, keys: 29, prefixKeys: 11, heads: 6, kvHeads: 2, headDim };
    const x = randomValues(c, randomSegments(c, 3), 4);
    const bits: number[][] = [];
    for (const without of [[], ["subgroups"]] as const) {
      const device = await testDevice({ kernels: "register", without });
      using out = device.scope(() => attention(tensors(device, c, x), { headDim, scale: 0.3 }));
      bits.push([...(await out.read())]);
    }
    expect(bits[1]).toEqual(bits[0]);
  },
);

describe("attention arguments", () => {
  it("takes no rows", async () => {
    const device = await testDevice();
    const none = device.zeros([0, 8]);
    const segments = device.zeros([0, 4], "u32");
    const out = attention({ q: none, k: none, v: none, segments }, { headDim: 4, scale: 1 });
    expect(out.shape).toEqual([0, 8]);
    expect((await out.read()).length).toBe(0);
  });

  it("take a soft cap above 0 only", async () => {
    const device = await testDevice();
    const q = device.zeros([2, 8]);
    const segments = device.zeros([2, 4], "u32");
    for (const softcap of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => attention({ q, k: q, v: q, segments }, { headDim: 4, scale: 1, softcap })).toThrow(
        /expected a soft cap above 0/,
      );
    }
  });

  it("are checked", async () => {
    const device = await testDevice();
    const q = device.zeros([2, 12]);
    const k = device.zeros([3, 8]);
    const segments = device.zeros([2, 4], "u32");
    const options = { headDim: 4, scale: 1 };
    expect(() => attention({ q, k, v: k, segments }, options)).toThrow(ShapeError); // 3 heads, 2 key heads
    expect(() => attention({ q: k, k, v: q, segments }, options)).toThrow(ShapeError);
    expect(() => attention({ q, k: q, v: q, segments: segments.slice(1, 1) }, options)).toThrow(ShapeError);
    expect(() => attention({ q, k: q, v: q, segments, prefix: { k, v: k } }, options)).toThrow(ShapeError);
    expect(() => attention({ q, k: q, v: q, segments: device.zeros([2, 4]) }, options)).toThrow(DTypeError);
    expect(() => attentionScores({ q, k: device.zeros([3, 12], "i32"), segments }, options)).toThrow(
      DTypeError,
    );
    const shifts = device.zeros([2, 2], "i32");
    const biased = (table: Tensor, rows: Tensor) => () =>
      attention({ q, k: q, v: q, segments, bias: { table, shifts: rows } }, options);
    expect(biased(device.zeros([5, 3]), shifts)).not.toThrow();
    expect(biased(device.zeros([4, 3]), shifts)).toThrow(/table \[2 \* far \+ 1, 3\].* found \[4, 3\]/);
    expect(biased(device.zeros([5, 2]), shifts)).toThrow(ShapeError);
    expect(biased(device.zeros([5, 3]), device.zeros([3, 2], "i32"))).toThrow(ShapeError);
    expect(biased(device.zeros([5, 3]), device.zeros([2, 2], "u32"))).toThrow(DTypeError);
    expect(() => attentionMix(device.zeros([3, 2, 4]), { v: device.zeros([3, 12]) }, options)).toThrow(
      ShapeError,
    );
  });
});

describe("segments", () => {
  const own = (table: Uint32Array) =>
    Array.from({ length: table.length / 4 }, (_, r) => Array.from(table.subarray(4 * r + 2, 4 * r + 4)));

  it("causal: each row and those before it in its sequence, or the last few of them", () => {
    expect(own(causalSegments([2, 3]))).toEqual([
      [0, 1],
      [0, 2],
      [2, 3],
      [2, 4],
      [2, 5],
    ]);
    expect(own(causalSegments([1, 3], { window: 2 }))).toEqual([
      [0, 1],
      [1, 2],
      [1, 3],
      [2, 4],
    ]);
  });

  it("full: the whole sequence", () => {
    expect(own(fullSegments([1, 0, 2]))).toEqual([
      [0, 1],
      [1, 3],
      [1, 3],
    ]);
    expect(fullSegments([2]).filter((_, i) => i % 4 < 2)).toEqual(new Uint32Array(4));
  });
});
