import { linear, toPreferredLayout } from "#src/kernels/matmul/linear";
import { matmul } from "#src/kernels/matmul/matmul";
import type { Device } from "#src/tensor/device";
import { DTYPE_BYTES } from "#src/tensor/dtype";
import type { Tensor } from "#src/tensor/tensor";
import type { BenchCase, Suite } from "./harness.ts";

type FloatDType = "f32" | "f16" | "bf16";

/** Matrix products and linear layers, with the shapes of SmolLM2. Large squares only where they take no minutes. */
export const matrix: Suite = function* (device) {
  for (const dtype of ["f32", "f16"] as const) yield square(device, 512, dtype);
  yield square(device, 1024, "f32");
  if (!device.info.fallback) for (const dtype of ["f32", "f16"] as const) yield square(device, 4096, dtype);
  for (const dtype of ["f32", "f16", "bf16"] as const) yield layer(device, 1, [1536, 576], dtype);
  for (const rows of [1, 2, 8]) yield layer(device, rows, [49_152, 576], "f16");
  for (const shape of [
    [576, 576],
    [192, 576],
    [1536, 576],
    [576, 1536],
  ] as [number, number][]) {
    yield layer(device, 128, shape, "f16");
  }
  for (const rows of [1, 128]) yield smolLM2(device, rows, "f16");
};

/** Small whole numbers: exact in every dtype, and so are their short sums. */
function numbers(count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => ((i * 7) % 13) - 6);
}

function square(device: Device, n: number, dtype: FloatDType): BenchCase {
  const a = device.tensor(numbers(n * n), { shape: [n, n] });
  const b = device.tensor(numbers(n * n), { shape: [n, n], dtype });
  return {
    name: "matmul",
    dtype,
    shapes: { a: a.shape, b: b.shape },
    flops: 2 * n ** 3,
    run: () => matmul(a, b),
    check: (out) => checkRow(out, a, b.transpose(), n - 1),
  };
}

function layer(
  device: Device,
  rows: number,
  [columns, depth]: [number, number],
  dtype: FloatDType,
): BenchCase {
  const x = device.tensor(numbers(rows * depth), { shape: [rows, depth] });
  const stored = device.tensor(numbers(columns * depth), { shape: [columns, depth], dtype });
  const weight = toPreferredLayout(stored);
  stored.dispose();
  return {
    name: "linear",
    dtype,
    shapes: { x: x.shape, weight: weight.shape },
    ...(rows <= 8 ? { bytes: columns * depth * DTYPE_BYTES[dtype] } : { flops: 2 * rows * depth * columns }),
    run: () => linear(x, weight),
    check: (out) => checkRow(out, x, weight, rows - 1),
  };
}

/** All linear layers of SmolLM2-135M, each with weights of its own, the head on the last row only. */
function smolLM2(device: Device, rows: number, dtype: FloatDType): BenchCase {
  const [width, inner, keys, vocabulary, layers] = [576, 1536, 192, 49_152, 30];
  const weight = (columns: number, depth: number) => {
    const stored = device.zeros([columns, depth], dtype);
    const preferred = toPreferredLayout(stored);
    stored.dispose();
    return preferred;
  };
  const blocks = Array.from({ length: layers }, () => ({
    toWidth: [weight(width, width), weight(width, width)],
    toKeys: [weight(keys, width), weight(keys, width)],
    toInner: [weight(inner, width), weight(inner, width)],
    fromInner: weight(width, inner),
  }));
  const head = weight(vocabulary, width);
  const x = device.zeros([rows, width]);
  const h = device.zeros([rows, inner]);
  const perLayer = 2 * width * width + 2 * keys * width + 3 * inner * width;
  return {
    name: `SmolLM2-135M linear layers, ${rows === 1 ? "decode" : "prefill"}`,
    dtype,
    shapes: { x: x.shape },
    ...(rows <= 8
      ? { bytes: (layers * perLayer + vocabulary * width) * DTYPE_BYTES[dtype] }
      : { flops: 2 * (rows * layers * perLayer + vocabulary * width) }),
    run() {
      for (const { toWidth, toKeys, toInner, fromInner } of blocks) {
        for (const w of [...toWidth, ...toKeys, ...toInner]) linear(x, w).dispose();
        linear(h, fromInner, { add: x }).dispose();
      }
      return linear(x.rows(rows - 1), head);
    },
  };
}

/** Compares one row of x @ weight^T, weight [N, K], with sums in f64. */
async function checkRow(out: Tensor, x: Tensor, weight: Tensor, row: number): Promise<void> {
  const device = out.device;
  const [found, xRow, w] = await device.read([out.rows(row, row + 1), x.rows(row, row + 1), weight]);
  for (let n = 0; n < found.length; n++) {
    let sum = 0;
    for (let k = 0; k < xRow.length; k++) sum += xRow[k]! * w[n * xRow.length + k]!;
    if (found[n] !== sum) throw new Error(`row ${row}, column ${n}: found ${found[n]}, expected ${sum}`);
  }
}
