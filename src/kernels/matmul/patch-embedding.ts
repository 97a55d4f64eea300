import { ShapeError } from "../../errors.ts";
import { showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { contiguous } from "../movement/copy.ts";
import { type LinearOptions, linear } from "./linear.ts";

/**
 * Cuts pictures into square patches and projects each: a convolution whose stride is its kernel size. Patches go row by
 * row from the top left; pixels that no whole patch covers are left out, as a convolution without padding does.
 *
 * @param pixels [images, channels, height, width], f32
 * @param weight [out, channels * patch * patch], the convolution's weight flattened; any float dtype
 * @param patch side of a patch in pixels
 * @returns [images * rows * columns, out], f32
 * @throws ShapeError
 */
export function patchEmbedding(
  pixels: Tensor,
  weight: Tensor,
  patch: number,
  { bias }: Pick<LinearOptions, "bias"> = {},
): Tensor {
  const [images, channels, height, width] = pixels.shape as [number, number, number, number];
  const fits = pixels.rank === 4 && height >= patch && width >= patch;
  if (!fits || weight.rank !== 2 || weight.dim(1) !== channels * patch * patch) {
    throw new ShapeError(
      `patchEmbedding: expected pixels [images, channels, height, width] of at least one ${patch} x ${patch} patch and a ` +
        `weight [out, channels * ${patch * patch}], found ${showShape(pixels.shape)} and ${showShape(weight.shape)}`,
    );
  }
  const rows = Math.floor(height / patch);
  const columns = Math.floor(width / patch);
  return pixels.device.scope(() => {
    const whole = contiguous(pixels.slice(2, 0, rows * patch).slice(3, 0, columns * patch));
    const grid = whole.reshape([images, channels, rows, patch, columns, patch]);
    const patches = contiguous(grid.permute([0, 2, 4, 1, 3, 5])); // [images, rows, columns, channels, patch, patch]
    return linear(patches.reshape([images * rows * columns, channels * patch * patch]), weight, { bias });
  });
}
