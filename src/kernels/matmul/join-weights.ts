import type { Operand } from "../../tensor/packed/packed.ts";
import { Packed } from "../../tensor/packed/packed.ts";
import { formatKey, SUPER_BLOCK } from "../../tensor/packed/packed-format.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { joinLines } from "./matmul-layout.ts";

/**
 * Weights [N, K] one under the other, [sum of N, K], bit for bit and in the layout that all of them have; undefined where they
 * are not stored alike, or would be more than one binding together. The operands stay.
 */
export function joinWeights(weights: readonly Operand[]): Operand | undefined {
  const [first] = weights;
  if (!first || weights.some((w) => w.shape[1] !== first.shape[1])) return undefined;
  const packed = weights.filter((w) => w instanceof Packed);
  if (packed.length === weights.length) return joinPacked(packed);
  return packed.length > 0 ? undefined : joinDense(weights as readonly Tensor[]);
}

function joinDense(weights: readonly Tensor[]): Tensor | undefined {
  const [{ dtype, device, shape }] = weights as [Tensor];
  const width = shape[1]!;
  const bytes = weights.reduce((sum, w) => sum + w.bytes, 0);
  if (bytes > device.maxBindingBytes || weights.some((w) => w.dtype !== dtype)) return undefined;
  const rows = weights.reduce((sum, w) => sum + w.dim(0), 0);
  const flatten = (w: Tensor) => w.reshape([w.size]);
  return device.scope(() => {
    if (weights.every((w) => w.contiguous && w.bytes % 4 === 0)) {
      return joinLines(weights.map(flatten), 1).reshape([rows, width]);
    }
    const turned = weights.map((w) => w.transpose());
    if (!turned.every((w) => w.contiguous && (w.bytes / width) % 4 === 0)) return undefined;
    return joinLines(turned.map(flatten), width).reshape([width, rows]).transpose();
  });
}

function joinPacked(weights: readonly Packed[]): Packed | undefined {
  const [{ format, device, strides, shape }] = weights as [Packed];
  const [rowStride] = strides;
  // Nested scales have a table of their own in each matrix.
  const alike = weights.every(
    (w) =>
      formatKey(w.format) === formatKey(format) &&
      w.strides[0] === rowStride &&
      w.strides[1] === 1 &&
      w.offset === 0 &&
      // Every part then ends with a word, and with a group and what groups share.
      (w.shape[0] * rowStride) % Math.max(4 * format.group, SUPER_BLOCK) === 0,
  );
  const bytes = weights.reduce((sum, w) => sum + w.bytes, 0);
  if (!alike || format.scales === "nested" || bytes > device.maxBindingBytes) return undefined;
  const parts = new Map(
    [...weights[0]!.parts.keys()].map((name) => [
      name,
      joinLines(
        weights.map((w) => w.parts.get(name)!),
        1,
      ),
    ]),
  );
  const rows = weights.reduce((sum, w) => sum + w.shape[0], 0);
  return new Packed({ format, shape: [rows, shape[1]], strides: [rowStride, 1], offset: 0 }, parts);
}
