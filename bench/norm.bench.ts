import { gatedActivation } from "../src/kernels/activation.ts";
import { layerNorm } from "../src/kernels/layer-norm.ts";
import { rmsNorm } from "../src/kernels/rms-norm.ts";
import { softmax } from "../src/kernels/softmax.ts";
import { type Device, openDevice } from "../src/tensor/device.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { type BenchCase, report } from "./harness.ts";

/** Row-wise kernels over [rows, width]: what bounds them is reading the input once and writing the output. */
function cases(device: Device, rows: number, width: number): BenchCase[] {
  const shape = [rows, width];
  const x = device.tensor(
    Float32Array.from({ length: rows * width }, (_, i) => (i % 2 ? -3 : 3)),
    { shape },
  );
  const weight = device.tensor(new Float32Array(width).fill(1));
  const row = (name: string, run: () => Tensor, expected: number): BenchCase => ({
    name,
    dtype: "f32",
    shapes: { x: shape },
    bytes: 2 * x.bytes,
    run,
    check: async (out) => {
      const value = ((await out.read()) as Float32Array)[0]!;
      if (Math.abs(value - expected) > 1e-5) throw new Error(`found ${value}, expected ${expected}`);
    },
  });
  return [
    row("rmsNorm", () => rmsNorm(x, weight, { eps: 1e-6 }), 1),
    row("layerNorm", () => layerNorm(x, weight, weight, { eps: 1e-6 }), 2),
    row("softmax", () => softmax(x), (2 / width) * (1 / (1 + Math.exp(-6)))),
    row("gatedActivation silu", () => gatedActivation(x, x, "silu"), 9 / (1 + Math.exp(-3))),
  ];
}

await using device = await openDevice();
const width = device.info.fallback ? 576 : 4096;
await report(device, [...cases(device, 128, width), ...cases(device, 1, width)]);
