import { aKindOf, aNumber, checkArgument } from "../../arguments.ts";
import { ShapeError } from "../../errors.ts";
import { add } from "../../kernels/elementwise/elementwise.ts";
import { matmul } from "../../kernels/matmul/matmul.ts";
import { contiguous } from "../../kernels/movement/copy.ts";
import { sum } from "../../kernels/reduction/reduce.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import { frozenNorm } from "../../model/layers/frozen-norm.ts";
import { blockPartsOf } from "../../model/layers/named-weights.ts";
import { aModel } from "../../patching/arguments.ts";
import { showShape } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { checkLayers } from "../layers.ts";

/**
 * What each head adds to the residual stream: `attn_out` split by head. z: [positions, heads · headDim] (or [heads · headDim]),
 * tapped at `z.<layer>` → [positions, heads, width] (or [heads, width]). Over the heads it sums to `attn_out` less the output
 * projection's bias; where attention's output is normed (Gemma 2), each head's part is scaled as the whole is.
 *
 * Throws SiteError for a layer that is not there, ShapeError for a z of another shape.
 */
export function headOutputs(model: LanguageModel, z: Tensor, layer: number): Tensor {
  checkArgument("headOutputs", "model", model, aModel);
  checkArgument("headOutputs", "z", z, aKindOf(Tensor, "from a tap at z"));
  checkArgument("headOutputs", "layer", layer, aNumber);
  checkLayers(model, [layer], "headOutputs");
  const { heads, headDim, width } = model.config;
  if (z.rank < 1 || z.rank > 2 || z.dim(-1) !== heads * headDim) {
    throw new ShapeError(
      `headOutputs: expected z [positions, ${heads * headDim}], found ${showShape(z.shape)}`,
    );
  }
  const { attention, attentionPostNorm } = blockPartsOf(model.network.stack, layer);
  return model.device.scope(() => {
    const rows = z.size / (heads * headDim);
    const byHead = contiguous(z).reshape([rows, heads, headDim]).permute([1, 0, 2]); // [heads, rows, headDim]
    const weights = contiguous(attention.o.dense().transpose()).reshape([heads, headDim, width]);
    let outputs = matmul(byHead, weights); // [heads, rows, width]
    if (attentionPostNorm) {
      const products = sum(outputs, 0);
      const whole = attention.o.bias ? add(products, attention.o.bias) : products;
      outputs = frozenNorm(attentionPostNorm, whole).apply(outputs);
    }
    const ordered = contiguous(outputs.permute([1, 0, 2])); // [rows, heads, width]
    return z.rank === 1 ? ordered.reshape([heads, width]) : ordered;
  });
}
