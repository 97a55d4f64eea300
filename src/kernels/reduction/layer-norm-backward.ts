import { defineKernel, type Variant } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { contiguous } from "../movement/copy.ts";
import type { LayerNormOptions } from "./layer-norm.ts";
import { rowLoop } from "./row-loop.ts";

interface Attributes extends LayerNormOptions {
  /** Inputs are x, dy, weight and, where there is one, what the gradient is added to; or x and dy. */
  of: "x" | "weight";
}

/**
 * The gradient of {@link layerNorm} by x, f32 [..., width], from x, weight and the cotangent dy [..., width], plus `add` of the
 * same shape: with n = (x - mean) / deviation and g = dy * weight, (g - mean(g) - n * mean(g * n)) / deviation.
 */
export function layerNormBackward(
  x: Tensor,
  weight: Tensor,
  dy: Tensor,
  { eps, add }: LayerNormOptions & { add?: Tensor | undefined },
): Tensor {
  return apply(operation, add ? [x, dy, weight, add] : [x, dy, weight], { eps, of: "x" });
}

/** dy * (x - mean) / deviation, f32 [..., width]: its sum over all rows is the gradient of {@link layerNorm} by the weight. */
export function layerNormWeightTerms(x: Tensor, dy: Tensor, { eps }: LayerNormOptions): Tensor {
  return apply(operation, [x, dy], { eps, of: "weight" });
}

const operation: Operation<Attributes> = {
  name: "layerNormBackward",
  run(inputs, { eps, of }, device) {
    const tensors = inputs.map((t) => contiguous(t));
    const [x, dy, weight, add] = tensors as [Tensor, Tensor, Tensor | undefined, Tensor | undefined];
    const out = device.empty(x.shape, "f32", "layerNormBackward");
    const width = x.dim(-1);
    const rows = x.shape.slice(0, -1).reduce((product, n) => product * n, 1);
    const byFour = width % 4 === 0 && tensors.every((t) => t.offset % 4 === 0);
    (byFour ? vectorKernel : scalarKernel).launch({
      tensors: { x, dy, weight, add, out },
      params: { rows, width, eps },
      constants: { of },
      workgroups: rowLoop(device).workgroups(rows),
    });
    return out;
  },
};

const scalarKernel = layerNormBackwardKernel(1);
const vectorKernel = layerNormBackwardKernel(4);

function layerNormBackwardKernel(lanes: 1 | 4) {
  const [n, type] = lanes === 4 ? ["4", "vec4f"] : ["", "f32"];
  const inner = (a: string, b: string) => (lanes === 4 ? `dot(${a}, ${b})` : `${a} * ${b}`);
  const sum = (v: string) => (lanes === 4 ? `dot(${v}, vec4f(1.0))` : v);
  const bindings = {
    x: lanes === 4 ? "read4" : "read",
    dy: lanes === 4 ? "read4" : "read",
    weight: lanes === 4 ? "read4?" : "read?",
    add: lanes === 4 ? "read4?" : "read?",
    out: lanes === 4 ? "write4" : "write",
  } as const;
  return defineKernel({
    name: `layerNormBackward by ${lanes}`,
    bindings,
    params: { rows: "u32", width: "u32", eps: "f32" },
    code({ device, has, constants }: Variant<keyof typeof bindings, Pick<Attributes, "of">>) {
      const ofX = constants.of === "x";
      const loop = rowLoop(device);
      return `
${loop.reduction("row_sum", "a + b")}
${loop.reduction("row_squares", "a + b")}
${
  ofX
    ? `
${loop.reduction("row_g", "a + b")}
${loop.reduction("row_along", "a + b")}
fn g_at(at: u32, i: u32) -> ${type} { return dy_at${n}(at) * weight_at${n}(i); }`
    : ""
}
@compute @workgroup_size(${loop.size})
fn main(${loop.builtins}) {
  ${loop.head}
  let groups_per_row = params.width / ${lanes}u;
  let start = row * groups_per_row;
  let width = f32(params.width);
  var sum = 0.0;
  for (var i = first; i < groups_per_row; i += step) {
    let v = x_at${n}(start + i);
    sum += ${sum("v")};
  }
  let mean = row_sum(local, sum) / width;
  // Sums over x - mean, as forward: differences of sums over x would cancel where the mean is large.
  var squares = 0.0;
  ${ofX ? "var g_sum = 0.0;\n  var along = 0.0; // g . (x - mean)" : ""}
  for (var i = first; i < groups_per_row; i += step) {
    let v = x_at${n}(start + i) - mean;
    squares += ${inner("v", "v")};
    ${ofX ? `let g = g_at(start + i, i);\n    g_sum += ${sum("g")};\n    along += ${inner("g", "v")};` : ""}
  }
  let factor = 1.0 / sqrt(row_squares(local, squares) / width + params.eps);
  ${
    ofX
      ? `
  let mean_g = row_g(local, g_sum) / width;
  let mean_along = row_along(local, along) * factor / width;`
      : ""
  }
  for (var i = first; i < groups_per_row; i += step) {
    let v = (x_at${n}(start + i) - mean) * factor;
    ${
      ofX
        ? `let dx = (g_at(start + i, i) - mean_g - v * mean_along) * factor;
    out_set${n}(start + i, dx${has("add") ? ` + add_at${n}(start + i)` : ""});`
        : `out_set${n}(start + i, dy_at${n}(start + i) * v);`
    }
  }
}`;
    },
  });
}
