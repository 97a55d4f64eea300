import { activation, gatedActivation } from "#src/kernels/elementwise/activation";
import { layerNorm } from "#src/kernels/reduction/layer-norm";
import { rmsNorm } from "#src/kernels/reduction/rms-norm";
import { logSoftmax, softmax } from "#src/kernels/reduction/softmax";
import type { Device } from "#src/tensor/device";
import type { Tensor } from "#src/tensor/tensor";
import type { BenchCase, Suite } from "./harness.ts";

/** Norms, softmax and activations, as wide as SmolLM2, or on GPUs as a 7B model. */
export const rowWise: Suite = (device) => {
  const width = device.info.fallback ? 576 : 4096;
  return [...cases(device, 128, width), ...cases(device, 1, width)];
};

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
    row("logSoftmax", () => logSoftmax(x), Math.log((2 / width) * (1 / (1 + Math.exp(-6))))),
    row("gatedActivation silu", () => gatedActivation(x, x, "silu"), 9 / (1 + Math.exp(-3))),
    row("activation gelu", () => activation(x, "gelu"), 2.9959503),
    row("activation gelu_tanh", () => activation(x, "gelu_tanh"), 2.9963626),
  ];
}
