import { defineKernel, type Variant } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { contiguous } from "../movement/copy.ts";
import type { RmsNormOptions } from "./rms-norm.ts";
import { rowLoop } from "./row-loop.ts";

interface Attributes extends Required<RmsNormOptions> {
  /** Inputs are x, dy, weight and, where there is one, what the gradient is added to; or x and dy. */
  of: "x" | "weight";
}

/**
 * The gradient of {@link rmsNorm} by x, f32 [..., width], from x, weight and the cotangent dy [..., width], plus `add` of the same
 * shape: with n = x / rms and g = dy * (offset + weight), (g - n * mean(g * n)) / rms.
 */
export function rmsNormBackward(
  x: Tensor,
  weight: Tensor,
  dy: Tensor,
  { eps, offset = 0, add }: RmsNormOptions & { add?: Tensor | undefined },
): Tensor {
  return apply(operation, add ? [x, dy, weight, add] : [x, dy, weight], { eps, offset, of: "x" });
}

/** dy * x / rms, f32 [..., width]: its sum over all rows is the gradient of {@link rmsNorm} by the weight. */
export function rmsNormWeightTerms(x: Tensor, dy: Tensor, { eps }: { eps: number }): Tensor {
  return apply(operation, [x, dy], { eps, offset: 0, of: "weight" });
}

const operation: Operation<Attributes> = {
  name: "rmsNormBackward",
  run(inputs, { eps, offset, of }, device) {
    const tensors = inputs.map((t) => contiguous(t));
    const [x, dy, weight, add] = tensors as [Tensor, Tensor, Tensor | undefined, Tensor | undefined];
    const out = device.empty(x.shape, "f32", "rmsNormBackward");
    const width = x.dim(-1);
    const rows = x.shape.slice(0, -1).reduce((product, n) => product * n, 1);
    const byFour = width % 4 === 0 && tensors.every((t) => t.offset % 4 === 0);
    (byFour ? vectorKernel : scalarKernel).launch({
      tensors: { x, dy, weight, add, out },
      params: { rows, width, eps, offset },
      constants: { of },
      workgroups: rowLoop(device).workgroups(rows),
    });
    return out;
  },
};

const scalarKernel = rmsNormBackwardKernel(1);
const vectorKernel = rmsNormBackwardKernel(4);

function rmsNormBackwardKernel(lanes: 1 | 4) {
  const [n, type] = lanes === 4 ? ["4", "vec4f"] : ["", "f32"];
  const inner = (a: string, b: string) => (lanes === 4 ? `dot(${a}, ${b})` : `${a} * ${b}`);
  const bindings = {
    x: lanes === 4 ? "read4" : "read",
    dy: lanes === 4 ? "read4" : "read",
    weight: lanes === 4 ? "read4?" : "read?",
    add: lanes === 4 ? "read4?" : "read?",
    out: lanes === 4 ? "write4" : "write",
  } as const;
  return defineKernel({
    name: `rmsNormBackward by ${lanes}`,
    bindings,
    params: { rows: "u32", width: "u32", eps: "f32", offset: "f32" },
    code({ device, has, constants }: Variant<keyof typeof bindings, Pick<Attributes, "of">>) {
      const ofX = constants.of === "x";
      const loop = rowLoop(device);
      return `
${loop.reduction("row_squares", "a + b")}
${ofX ? loop.reduction("row_sum", "a + b") : ""}
${ofX ? `fn g_at(at: u32, i: u32) -> ${type} { return dy_at${n}(at) * (${type}(params.offset) + weight_at${n}(i)); }` : ""}
@compute @workgroup_size(${loop.size})
fn main(${loop.builtins}) {
  ${loop.head}
  let groups_per_row = params.width / ${lanes}u;
  let start = row * groups_per_row;
  var squares = 0.0;
  ${ofX ? "var along = 0.0; // g . x" : ""}
  for (var i = first; i < groups_per_row; i += step) {
    let v = x_at${n}(start + i);
    squares += ${inner("v", "v")};
    ${ofX ? `let g = g_at(start + i, i);\n    along += ${inner("g", "v")};` : ""}
  }
  let factor = 1.0 / sqrt(row_squares(local, squares) / f32(params.width) + params.eps);
  ${ofX ? "let mean_along = row_sum(local, along) * factor / f32(params.width);" : ""}
  for (var i = first; i < groups_per_row; i += step) {
    let v = x_at${n}(start + i) * factor;
    ${
      ofX
        ? `let dx = (g_at(start + i, i) - v * mean_along) * factor;
    out_set${n}(start + i, dx${has("add") ? ` + add_at${n}(start + i)` : ""});`
        : `out_set${n}(start + i, dy_at${n}(start + i) * v);`
    }
  }
}`;
    },
  });
}
