import { beforeAll, describe, test } from "vitest";
import { linear } from "../../src/kernels/matmul/linear.ts";
import { matmul } from "../../src/kernels/matmul/matmul.ts";
import type { Device } from "../../src/tensor/device.ts";
import { testDevice } from "../helpers/device.ts";
import { checkGradients, type Numbers } from "../helpers/finite-differences.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

/** [..., M, K] @ [..., K, N], the batch dimensions of b repeated. */
function product(a: Numbers, b: Numbers): number[] {
  const [m, k] = a.shape.slice(-2) as [number, number];
  const n = b.shape.at(-1)!;
  const batches = Math.max(a.data.length / (m * k), b.data.length / (k * n));
  const out: number[] = [];
  for (let batch = 0; batch < batches; batch++) {
    const [a0, b0] = [(batch * m * k) % a.data.length, (batch * k * n) % b.data.length];
    for (let r = 0; r < m; r++) {
      for (let c = 0; c < n; c++) {
        let sum = 0;
        for (let d = 0; d < k; d++) sum += a.data[a0 + r * k + d]! * b.data[b0 + d * n + c]!;
        out.push(sum);
      }
    }
  }
  return out;
}

function transposed({ shape: [rows, columns], data }: Numbers): Numbers {
  const moved = Float64Array.from(data, (_, i) => data[(i % rows!) * columns! + Math.floor(i / rows!)]!);
  return { shape: [columns!, rows!], data: moved };
}

describe("linear", () => {
  test.each([
    { rows: 5, n: 12, k: 8 },
    { rows: 1, n: 7, k: 3 },
    { rows: 9, n: 12, k: 20 },
  ])("$rows rows, weight [$n, $k]: bias, add, layouts, dtypes", async ({ rows, n, k }) => {
    for (const layout of [undefined, "transposed", "sliced"] as const) {
      for (const dtype of ["f32", "f16", "bf16"] as const) {
        await checkGradients(device, {
          inputs: [
            { shape: [rows, k], layout: layout === "sliced" ? "sliced" : undefined },
            { shape: [n, k], layout, dtype },
            { shape: [n], dtype },
            { shape: [rows, n] },
          ],
          run: (x, w, bias, add) => linear(x!, w!, { bias: bias!, add: add! }),
          reference: (x, w, bias, add) =>
            product(x!, transposed(w!)).map((y, i) => y + bias!.data[i % n]! + add!.data[i]!),
        });
      }
    }
  });

  test("what is read twice", async () => {
    await checkGradients(device, {
      inputs: [{ shape: [6, 6] }],
      run: (x) => linear(linear(x!, x!), x!, { add: x! }),
      reference: (x) => {
        const once = { shape: x!.shape, data: Float64Array.from(product(x!, transposed(x!))) };
        return product(once, transposed(x!)).map((y, i) => y + x!.data[i]!);
      },
    });
  });
});

describe("matmul", () => {
  test.each([
    { a: [4, 6], b: [6, 3] },
    { a: [3, 4, 6], b: [3, 6, 5] },
    { a: [3, 4, 6], b: [6, 5] },
    { a: [4, 8], b: [2, 8, 4] },
  ])("$a @ $b", async ({ a, b }) => {
    for (const layout of [undefined, "transposed"] as const) {
      await checkGradients(device, {
        inputs: [
          { shape: a, layout },
          { shape: b, layout },
        ],
        run: (x, y) => matmul(x!, y!),
        reference: (x, y) => product(x!, y!),
      });
    }
  });
});
