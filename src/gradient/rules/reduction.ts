import { equal, select } from "../../kernels/elementwise/compare.ts";
import { div, mul } from "../../kernels/elementwise/elementwise.ts";
import { type LayerNormOptions, layerNormOperation } from "../../kernels/reduction/layer-norm.ts";
import { layerNormBackward, layerNormWeightTerms } from "../../kernels/reduction/layer-norm-backward.ts";
import { productBackward } from "../../kernels/reduction/product-backward.ts";
import { type ReduceAttributes, reduceOperation, sum } from "../../kernels/reduction/reduce.ts";
import { type RmsNormOptions, rmsNormOperation } from "../../kernels/reduction/rms-norm.ts";
import { rmsNormBackward, rmsNormWeightTerms } from "../../kernels/reduction/rms-norm-backward.ts";
import { softmaxOperation } from "../../kernels/reduction/softmax.ts";
import { softmaxBackward } from "../../kernels/reduction/softmax-backward.ts";
import { topKOperation } from "../../kernels/reduction/top-k.ts";
import { sizeOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { constantRule, type Rule, rule } from "../rule.ts";
import { sumTo } from "./sum-to.ts";

/** out = a reduction of x along axes. Indices (argmax, argmin) are integers, which have no gradient. */
const reduceRule = rule<ReduceAttributes>({
  operation: reduceOperation,
  needs({ kind }) {
    if (kind === "product") return { inputs: [0] };
    return kind === "max" || kind === "min" ? { inputs: [0], output: true } : {};
  },
  backward(call) {
    const { cotangent: dy, attributes } = call;
    const { kind, axes } = attributes;
    const { shape } = call.inputs[0]!;
    if (kind === "product") return [productBackward(call.value(0), dy, axes)];
    const share = reducedAs(dy, shape, attributes);
    if (kind === "sum") return [share.broadcastTo(shape)];
    if (kind === "mean") return [div(share, sizeOf(axes.map((axis) => shape[axis]!))).broadcastTo(shape)];
    // Equal extremes share evenly, as in torch.amax. NaN equals nothing: 0 of them share, which makes the gradient NaN.
    const hits = select(equal(call.value(0), reducedAs(call.output(), shape, attributes)), 1, 0);
    return [mul(hits, div(share, sum(hits, axes, { keepDims: true })))];
  },
});

/** A reduced tensor with size 1 in each reduced dimension of `shape`. */
function reducedAs(x: Tensor, shape: readonly number[], { axes, keepDims }: ReduceAttributes): Tensor {
  if (keepDims) return x;
  const strides = [...x.strides];
  for (const axis of axes) strides.splice(axis, 0, 0);
  const ones = shape.map((n, axis) => (axes.includes(axis) ? 1 : n));
  return x.view(ones, strides, x.offset);
}

const softmaxRule = rule({
  operation: softmaxOperation,
  needs: () => ({ output: true }),
  backward: (call) => [softmaxBackward(call.output(), call.cotangent, call.attributes.axis, call.attributes)],
});

/** x is read for both gradients; the weight only for that of x. */
function normNeeds(_: unknown, wanted: (input: number) => boolean) {
  if (wanted(0)) return { inputs: [0, 1] };
  return wanted(1) ? { inputs: [0] } : {};
}

/** out = x / rms * (offset + weight). */
const rmsNormRule = rule<Required<RmsNormOptions>>({
  operation: rmsNormOperation,
  needs: normNeeds,
  backward(call) {
    const { attributes, cotangent: dy, inputs } = call;
    const dx = () =>
      rmsNormBackward(call.value(0), call.value(1), dy, { ...attributes, add: call.takeSum(0) });
    const dw = () => sumTo(rmsNormWeightTerms(call.value(0), dy, attributes), inputs[1]!.shape);
    return [call.wanted(0) ? dx() : undefined, call.wanted(1) ? dw() : undefined];
  },
});

/** out = (x - mean) / deviation * weight + bias. */
const layerNormRule = rule<LayerNormOptions>({
  operation: layerNormOperation,
  needs: normNeeds,
  backward(call) {
    const { attributes, cotangent: dy, inputs } = call;
    const dx = () =>
      layerNormBackward(call.value(0), call.value(1), dy, { ...attributes, add: call.takeSum(0) });
    const dw = () => sumTo(layerNormWeightTerms(call.value(0), dy, attributes), inputs[1]!.shape);
    const gradients = [call.wanted(0) ? dx() : undefined, call.wanted(1) ? dw() : undefined];
    if (call.wanted(2)) gradients.push(sumTo(dy, inputs[2]!.shape));
    return gradients;
  },
});

export const REDUCTION_RULES: readonly Rule[] = [
  reduceRule,
  softmaxRule,
  rmsNormRule,
  layerNormRule,
  constantRule(topKOperation),
];
