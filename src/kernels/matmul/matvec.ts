import { defineKernel } from "../../tensor/kernel.ts";
import { type Epilogue, finish } from "./epilogue.ts";
import { epilogueOf, loadsByFour, PRODUCT_PARAMS, type Product, productParams } from "./matmul-product.ts";
import type { ProductKernel } from "./product-kernel.ts";

/** Most rows that matrix-vector kernels take; more are better served by tiles. */
const MAX_ROWS = 8;

function isSmall({ a, out }: Product): boolean {
  return out.rank <= 2 && a.dim(-2) <= MAX_ROWS;
}

/** Rows of a product as one of a few numbers, for which kernels are compiled. */
function rowClass(rows: number): number {
  return [1, 2, 4].find((n) => n >= rows) ?? MAX_ROWS;
}

const LANES = 64;
/** Columns per workgroup of the kernel along the depth: as many loads of each invocation are under way at once. */
const OUTPUTS = 4;
/** Subgroups have at least four invocations. */
const MOST_SUBGROUPS = LANES / 4;

/** Few rows, bound by reading b once; b's depth is contiguous: the workgroup strides along it together and adds up at the end. */
export const matvecDepth: ProductKernel = {
  name: "matvec_depth",
  style: "workgroup",
  fits: (product) => isSmall(product) && loadsByFour(product.b, -2) && loadsByFour(product.a, -1),
  launch(product) {
    const { a, b, bias, residual, out, gate } = product;
    const params = productParams(product);
    alongDepth.launch({
      tensors: { a, b, bias, residual, out },
      params,
      constants: {
        ...epilogueOf(product),
        rows: rowClass(params.rows),
        subgroups: out.device.has("subgroups"),
      },
      workgroups: Math.ceil(params.columns / (gate ? OUTPUTS / 2 : OUTPUTS)),
    });
  },
};

const alongDepth = defineKernel({
  name: "matvec_depth",
  bindings: { a: "read4", b: "values4", bias: "read?", residual: "read?", out: "write" },
  params: PRODUCT_PARAMS,
  code({ constants, has }) {
    const { rows, subgroups, gate } = constants as Epilogue & { rows: number; subgroups: boolean };
    // With a gate, half of the outputs are columns of the gate, and half their counterparts.
    const columns = gate ? OUTPUTS / 2 : OUTPUTS;
    const row = Array.from({ length: rows }, (_, i) => i);
    const output = Array.from({ length: OUTPUTS }, (_, i) => i);
    const each = (line: (r: number, c: number) => string) =>
      row.flatMap((r) => output.map((c) => line(r, c))).join("\n");
    const sums = rows * OUTPUTS;
    return /* wgsl */ `
${subgroups ? "enable subgroups;" : ""}
var<workgroup> partial: array<f32, ${sums * (subgroups ? MOST_SUBGROUPS : LANES)}>;
${finish(has, constants as Epilogue)}

fn total(sum: u32, slots: u32) -> f32 {
  var total = 0.0;
  for (var i = 0u; i < slots; i++) { total += partial[i * ${sums}u + sum]; }
  return total;
}

@compute @workgroup_size(${LANES})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
  ${subgroups ? "@builtin(subgroup_size) subgroup_size: u32," : ""}
  ${subgroups ? "@builtin(subgroup_invocation_id) subgroup_lane: u32," : ""}
) {
  let column = flat_group(group, groups) * ${columns}u;
  if (column >= params.columns) { return; }
${row.map((r) => `  let a${r} = min(${r}u, params.rows - 1u) * params.a_row / 4u;`).join("\n")}
${output.map((c) => `  let b${c} = (min(column + ${c % columns}u, params.columns - 1u) * params.b_column${c < columns ? "" : " + params.gate_to_up"}) / 4u;`).join("\n")}
${each((r, c) => `  var sum${r}_${c} = 0.0;`)}
  for (var k = lane; k < params.depth / 4u; k += ${LANES}u) {
${output.map((c) => `    let w${c} = b_at4(b${c} + k);`).join("\n")}
${row.map((r) => `    let x${r} = a_at4(a${r} + k);`).join("\n")}
${each((r, c) => `    sum${r}_${c} += dot(x${r}, w${c});`)}
  }

${
  subgroups
    ? `  // Invocations are dealt to subgroups in order, as every driver does for one-dimensional workgroups.
  let slot = lane / subgroup_size;
  let slots = (${LANES}u + subgroup_size - 1u) / subgroup_size;
${each((r, c) => `  let total${r}_${c} = subgroupAdd(sum${r}_${c});`)}
  if (subgroup_lane == 0u) {
${each((r, c) => `    partial[slot * ${sums}u + ${r * OUTPUTS + c}u] = total${r}_${c};`)}
  }`
    : `  let slots = ${LANES}u;
${each((r, c) => `  partial[lane * ${sums}u + ${r * OUTPUTS + c}u] = sum${r}_${c};`)}`
}
  workgroupBarrier();
  if (lane < ${rows * columns}u) {
    let row = lane / ${columns}u;
    let own = lane % ${columns}u;
    finish(0u, row, column + own, total(row * ${OUTPUTS}u + own, slots)${gate ? `, total(row * ${OUTPUTS}u + own + ${columns}u, slots)` : ""});
  }
}`;
  },
});

/** Groups of four columns per workgroup of the kernel along the columns, and slices that it cuts the depth into. */
const COLUMN_GROUPS = 16;
const SLICES = 16;

/** Few rows; b's columns are contiguous: neighbouring invocations load neighbouring columns of one slice of the depth. */
export const matvecColumns: ProductKernel = {
  name: "matvec_columns",
  style: "workgroup",
  fits: (product) => isSmall(product) && !product.gate && loadsByFour(product.b, -1),
  launch(product) {
    const { a, b, bias, residual, out } = product;
    const params = productParams(product);
    alongColumns.launch({
      tensors: { a, b, bias, residual, out },
      params,
      constants: { ...epilogueOf(product), rows: rowClass(params.rows) },
      workgroups: Math.ceil(params.columns / (4 * COLUMN_GROUPS)),
    });
  },
};

const alongColumns = defineKernel({
  name: "matvec_columns",
  bindings: { a: "read", b: "values4", bias: "read?", residual: "read?", out: "write" },
  params: PRODUCT_PARAMS,
  code({ constants, has }) {
    const row = Array.from({ length: (constants as { rows: number }).rows }, (_, i) => i);
    return /* wgsl */ `
var<workgroup> partial: array<vec4f, ${COLUMN_GROUPS * SLICES}>;
${finish(has, constants as Epilogue)}

fn total(lane: u32, sum: vec4f) -> vec4f {
  workgroupBarrier();
  partial[lane] = sum;
  workgroupBarrier();
  var all = vec4f();
  for (var i = lane % ${COLUMN_GROUPS}u; i < ${COLUMN_GROUPS * SLICES}u; i += ${COLUMN_GROUPS}u) { all += partial[i]; }
  return all;
}

@compute @workgroup_size(${COLUMN_GROUPS * SLICES})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let column = (flat_group(group, groups) * ${COLUMN_GROUPS}u + lane % ${COLUMN_GROUPS}u) * 4u;
  let b_start = min(column, params.columns - 4u) / 4u;
${row.map((r) => `  let a${r} = min(${r}u, params.rows - 1u) * params.a_row;`).join("\n")}
${row.map((r) => `  var sum${r} = vec4f();`).join("\n")}
  for (var k = lane / ${COLUMN_GROUPS}u; k < params.depth; k += ${SLICES}u) {
    let w = b_at4(b_start + k * params.b_depth / 4u);
${row.map((r) => `    sum${r} = fma(vec4f(a_at(a${r} + k * params.a_depth)), w, sum${r});`).join("\n")}
  }
${row.map((r) => `  let total${r} = total(lane, sum${r});`).join("\n")}
  if (lane < ${COLUMN_GROUPS}u) {
    for (var c = 0u; c < 4u; c++) {
${row.map((r) => `      finish(0u, ${r}u, column + c, total${r}[c]);`).join("\n")}
    }
  }
}`;
  },
});
