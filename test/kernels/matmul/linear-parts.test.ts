import { describe, expect, it } from "vitest";
import { ShapeError } from "../../../src/errors.ts";
import { gatedActivation } from "../../../src/kernels/elementwise/activation.ts";
import { joinWeights } from "../../../src/kernels/matmul/join-weights.ts";
import { linear, toPreferredLayout } from "../../../src/kernels/matmul/linear.ts";
import { gatedLinear, linearParts } from "../../../src/kernels/matmul/linear-parts.ts";
import { cast } from "../../../src/kernels/movement/copy.ts";
import type { Device } from "../../../src/tensor/device.ts";
import type { DeviceOptions } from "../../../src/tensor/open-device.ts";
import type { Operand } from "../../../src/tensor/packed/packed.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { randomArray } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";
import { checkGradients } from "../../helpers/finite-differences.ts";
import { allFormats, randomPacked } from "../../helpers/packed.ts";

const styles: [string, DeviceOptions][] = [
  ["register", { kernels: "register" }],
  ["workgroup", { kernels: "workgroup" }],
  ["workgroup without subgroups", { kernels: "workgroup", without: ["subgroups"] }],
];

type Layout = "as stored" | "preferred";

function random(device: Device, shape: readonly number[], seed: number): Tensor {
  const size = shape.reduce((product, n) => product * n, 1);
  return device.tensor(randomArray(size, seed), { shape });
}

function weightOf(
  device: Device,
  shape: readonly [number, number],
  dtype: "f32" | "f16" | "bf16",
  layout: Layout,
  seed: number,
): Tensor {
  const stored = cast(random(device, shape, seed), dtype);
  return layout === "preferred" ? toPreferredLayout(stored) : stored;
}

async function expectSameBits(device: Device, found: readonly Tensor[], expected: readonly Tensor[]) {
  const values = await device.read([...found, ...expected]);
  found.forEach((tensor, i) => {
    expect(tensor.shape).toEqual(expected[i]!.shape);
    expect(tensor.contiguous).toBe(true);
    expect(values[i], `part ${i}`).toEqual(values[found.length + i]);
  });
}

/** Whether a kernel gives a part the bits of a product of its own: single rows are shared out otherwise on GPUs where columns are few. */
describe.each(styles)("products of several layers at once, %s kernels", (_name, options) => {
  it.each([
    { rows: 1, depth: 32, sizes: [24, 8, 8] },
    { rows: 3, depth: 32, sizes: [24, 8, 12] },
    { rows: 9, depth: 20, sizes: [40, 4] },
    { rows: 37, depth: 33, sizes: [6, 5, 7] },
    { rows: 2, depth: 5, sizes: [3, 130] },
  ])("$rows rows, $sizes columns: the bits of each by itself", async ({ rows, depth, sizes }) => {
    const device = await testDevice(options);
    for (const [dtype, layout] of [
      ["f32", "as stored"],
      ["f16", "preferred"],
      ["bf16", "preferred"],
    ] as const) {
      const scope = device.openScope();
      try {
        const { found, expected } = scope.enter(() => {
          const x = random(device, [rows, depth], 1);
          const weights = sizes.map((size, i) => weightOf(device, [size, depth], dtype, layout, 2 + i));
          const biases = sizes.map((size, i) => random(device, [size], 9 + i));
          const joint = joinWeights(weights);
          const whole = biases.flatMap((_, i) => [...randomArray(sizes[i]!, 9 + i)]);
          if (!joint) return { found: [], expected: [] };
          return {
            found: [
              ...linearParts(x, joint, sizes),
              ...linearParts(x, joint, sizes, { bias: device.tensor(whole) }),
            ],
            expected: [
              ...weights.map((w) => linear(x, w)),
              ...weights.map((w, i) => linear(x, w, { bias: biases[i]! })),
            ],
          };
        });
        await expectSameBits(device, found, expected);
        // What has odd sizes in 16 bits is not stored so that it could be joined.
        expect(found.length > 0).toBe(dtype === "f32" || sizes.every((size) => (size * depth) % 2 === 0));
      } finally {
        scope.dispose();
      }
    }
  });

  it.each([
    { rows: 1, depth: 32, columns: 24 },
    { rows: 3, depth: 36, columns: 8 },
    { rows: 21, depth: 20, columns: 132 },
    { rows: 2, depth: 7, columns: 5 },
  ])("$rows rows, $columns columns: act(gate) * up", async ({ rows, depth, columns }) => {
    const device = await testDevice(options);
    const kinds = ["silu", "gelu", "gelu_tanh", "relu2"] as const;
    for (const [i, kind] of kinds.entries()) {
      const scope = device.openScope();
      try {
        const { found, expected } = scope.enter(() => {
          const x = random(device, [rows, depth], 1);
          const dtype = i % 2 === 1 ? "f32" : "f16";
          const [gate, up] = [2, 3].map((seed) =>
            weightOf(device, [columns, depth], dtype, i < 3 ? "preferred" : "as stored", seed),
          ) as [Tensor, Tensor];
          const [b, c] = [random(device, [columns], 4), random(device, [columns], 5)];
          const joint = joinWeights([gate, up]);
          const bias = device.tensor([...randomArray(columns, 4), ...randomArray(columns, 5)]);
          if (!joint) return { found: [], expected: [] };
          return {
            found: [gatedLinear(x, joint, kind), gatedLinear(x, joint, kind, { bias })],
            expected: [
              gatedActivation(linear(x, gate), linear(x, up), kind),
              gatedActivation(linear(x, gate, { bias: b }), linear(x, up, { bias: c }), kind),
            ],
          };
        });
        const values = await device.read([...found, ...expected]);
        found.forEach((_, n) => {
          // A compiler may contract the activation otherwise in another kernel.
          const [own, other] = [values[n] as Float32Array, values[2 + n] as Float32Array];
          own.forEach((value, at) => {
            expect(Math.abs(value - other[at]!), `${kind} ${at}`).toBeLessThanOrEqual(
              4 * 2 ** -23 * Math.abs(other[at]!) + 1e-30,
            );
          });
        });
        if ((columns * depth) % 2 === 0) expect(found).toHaveLength(2);
      } finally {
        scope.dispose();
      }
    }
  });
});

describe("packed weights", () => {
  it("are joined where their parts are whole, and give the bits of each by itself", async () => {
    const device = await testDevice();
    const [rows, width] = [3, 256];
    let joinedFormats = 0;
    for (const [f, format] of allFormats(width).entries()) {
      const scope = device.openScope();
      try {
        const { found, expected } = scope.enter(() => {
          const x = random(device, [rows, width], 1);
          const sizes = [16, 8];
          const weights = sizes.map(
            (size, i) => randomPacked(device, format, [size, width], 3 * f + i).packed,
          );
          const joint: Operand | undefined = joinWeights(weights);
          if (!joint) return { found: [], expected: [] };
          return { found: linearParts(x, joint, sizes), expected: weights.map((w) => linear(x, w)) };
        });
        if (found.length > 0) joinedFormats++;
        else expect(format.scales).toBe("nested");
        await expectSameBits(device, found, expected);
      } finally {
        scope.dispose();
      }
    }
    expect(joinedFormats).toBeGreaterThan(6);
  });
});

describe("gradients", () => {
  it("of parts and of a gate", async () => {
    const device = await testDevice();
    const columns = [4, 8] as const;
    const term = (x: Float64Array, w: Float64Array, [r, n, k]: number[]) => {
      let sum = 0;
      for (let d = 0; d < k!; d++) sum += x[r! * k! + d]! * w[n! * k! + d]!;
      return sum;
    };
    const [rows, k] = [3, 8];
    await checkGradients(device, {
      inputs: [{ shape: [rows, k] }, { shape: [12, k] }, { shape: [12] }],
      run(x, w, bias) {
        const [a, b] = linearParts(x!, w!, columns, { bias: bias! }) as [Tensor, Tensor];
        return linear(a, b.transpose().rows(0, 4).transpose().rows(0, 3)); // both are read
      },
      reference(x, w, bias) {
        const y = (r: number, n: number) => term(x!.data, w!.data, [r, n, k]) + bias!.data[n]!;
        return Array.from({ length: rows * 3 }, (_, i) => {
          const [r, c] = [Math.floor(i / 3), i % 3];
          let sum = 0;
          for (let d = 0; d < 4; d++) sum += y(r, d) * y(c, 4 + d);
          return sum;
        });
      },
    });
    await checkGradients(device, {
      inputs: [{ shape: [rows, k] }, { shape: [12, k] }, { shape: [12] }],
      run: (x, w, bias) => gatedLinear(x!, w!, "silu", { bias: bias! }),
      reference(x, w, bias) {
        const y = (r: number, n: number) => term(x!.data, w!.data, [r, n, k]) + bias!.data[n]!;
        return Array.from({ length: rows * 6 }, (_, i) => {
          const [gate, up] = [y(Math.floor(i / 6), i % 6), y(Math.floor(i / 6), 6 + (i % 6))];
          return (gate / (1 + Math.exp(-gate))) * up;
        });
      },
    });
  });
});

describe("errors", () => {
  it("say what does not fit", async () => {
    const device = await testDevice();
    const x = device.zeros([2, 4]);
    const w = device.zeros([6, 4]);
    expect(() => linearParts(x, w, [2, 3])).toThrow(ShapeError);
    expect(() => linearParts(x, w, [2, 3])).toThrow(/2 to 3 sizes that add up to 6, found \[2, 3\]/);
    expect(() => linearParts(x, w, [6])).toThrow(/2 to 3 sizes/);
    expect(() => linearParts(x, device.zeros([6, 5]), [2, 4])).toThrow(/\[2, 4\] and \[6, 5\]/);
    expect(() => gatedLinear(x, device.zeros([5, 4]), "silu")).toThrow(/\[2 N, K\]/);
    expect(() => gatedLinear(x, w, "silu", { bias: device.zeros([3]) })).toThrow(/bias \[6\]/);
    x.dispose();
    w.dispose();
  });
});
