import { defineKernel } from "../../tensor/kernel.ts";
import { type Epilogue, finish } from "./epilogue.ts";
import {
  batchOffsets,
  epilogueOf,
  loadsByFour,
  PRODUCT_PARAMS,
  type Product,
  productParams,
} from "./matmul-product.ts";
import type { ProductKernel } from "./product-kernel.ts";

/** Invocations along each side of a workgroup. */
const SIDE = 16;

/** As many workgroups keep a large GPU busy; smaller tiles are taken until there are. (Not yet tuned per card.) */
const ENOUGH_WORKGROUPS = 128;

/**
 * Matrix product for GPUs: a workgroup of 16 x 16 invocations computes a square tile of outputs, `block` x `block` per
 * invocation, from tiles of a and b in workgroup memory. Tiles hold groups of four along the depth, so that one kernel
 * serves every combination of layouts. Takes any sizes and strides.
 */
const kernel = defineKernel({
  name: "matmul_workgroup",
  bindings: {
    a: "read?",
    a4: "read4?",
    b: "values?",
    b4: "values4?",
    bias: "read?",
    residual: "read?",
    out: "write",
  },
  params: PRODUCT_PARAMS,
  code({ constants, has }) {
    const { block, batched, bRowMajor } = constants as Epilogue & {
      block: number;
      batched: boolean;
      bRowMajor: boolean;
    };
    const tile = SIDE * block;
    // Each invocation loads one group of each tile per step.
    const depth4 = (SIDE * SIDE) / tile;
    // One group more per row: an odd stride spreads neighbouring rows over the memory banks.
    const stride = depth4 + 1;
    const index = Array.from({ length: block }, (_, i) => i);
    const each = (line: (r: number, c: number) => string) =>
      index.flatMap((r) => index.map((c) => line(r, c)));
    const alongDepth = { line: `lane / ${depth4}u`, group: `lane % ${depth4}u` };
    const acrossDepth = { line: `lane % ${tile}u`, group: `lane / ${tile}u` };
    const atA = alongDepth;
    const atB = bRowMajor ? acrossDepth : alongDepth;

    const load = (x: "a" | "b", line: string, limit: string) => /* wgsl */ `
fn load_${x}(start: u32, line: u32, k: u32) -> vec4f {
  if (line >= params.${limit} || k >= params.depth) { return vec4f(); }
  let at = start + line * params.${line} + k * params.${x}_depth;
${
  has(`${x}4`)
    ? `  return ${x}4_at4(at / 4u);`
    : `  var group = vec4f();
  for (var i = 0u; i < 4u && k + i < params.depth; i++) { group[i] = ${x}_at(at + i * params.${x}_depth); }
  return group;`
}
}`;
    return /* wgsl */ `
var<workgroup> tile_a: array<vec4f, ${tile * stride}>;
var<workgroup> tile_b: array<vec4f, ${tile * stride}>;
${batchOffsets(batched)}
${finish(has, constants as Epilogue)}
${load("a", "a_row", "rows")}
${load("b", "b_column", "columns")}

fn multiply(x: vec4f, w: vec4f, sum: f32) -> f32 {
  return fma(x.w, w.w, fma(x.z, w.z, fma(x.y, w.y, fma(x.x, w.x, sum))));
}

@compute @workgroup_size(${SIDE * SIDE})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row_tiles = (params.rows + ${tile - 1}u) / ${tile}u;
  let column_tiles = (params.columns + ${tile - 1}u) / ${tile}u;
  let flat = flat_group(group, groups);
  let first_row = flat % row_tiles * ${tile}u;
  let first_column = flat / row_tiles % column_tiles * ${tile}u;
  let batch = flat / row_tiles / column_tiles;
  if (batch >= params.batches) { return; }
  let start_a = a_batch(batch);
  let start_b = b_batch(batch);

  let line_a = ${atA.line};
  let group_a = ${atA.group};
  let line_b = ${atB.line};
  let group_b = ${atB.group};
  // Neighbouring invocations take neighbouring rows and columns: their loads from workgroup memory share no bank.
  let x = lane % ${SIDE}u;
  let y = lane / ${SIDE}u;
${each((r, c) => `  var sum${r}_${c} = 0.0;`).join("\n")}

  // The next step's loads are under way while this step computes.
  var next_a = load_a(start_a, first_row + line_a, 4u * group_a);
  var next_b = load_b(start_b, first_column + line_b, 4u * group_b);
  for (var k = 0u; k < params.depth; k += ${4 * depth4}u) {
    workgroupBarrier();
    tile_a[line_a * ${stride}u + group_a] = next_a;
    tile_b[line_b * ${stride}u + group_b] = next_b;
    workgroupBarrier();
    next_a = load_a(start_a, first_row + line_a, k + ${4 * depth4}u + 4u * group_a);
    next_b = load_b(start_b, first_column + line_b, k + ${4 * depth4}u + 4u * group_b);
    for (var g = 0u; g < ${depth4}u; g++) {
${index.map((c) => `      let w${c} = tile_b[(x + ${c * SIDE}u) * ${stride}u + g];`).join("\n")}
${index
  .map((r) =>
    [
      `      let x${r} = tile_a[(y + ${r * SIDE}u) * ${stride}u + g];`,
      ...index.map((c) => `      sum${r}_${c} = multiply(x${r}, w${c}, sum${r}_${c});`),
    ].join("\n"),
  )
  .join("\n")}
    }
  }

  var sums = array<f32, ${block * block}>(${each((r, c) => `sum${r}_${c}`).join(", ")});
  for (var r = 0u; r < ${block}u; r++) {
    for (var c = 0u; c < ${block}u; c++) {
      finish(batch, first_row + y + r * ${SIDE}u, first_column + x + c * ${SIDE}u, sums[r * ${block}u + c]);
    }
  }
}`;
  },
});

export const workgroupTiles: ProductKernel = {
  name: "matmul_workgroup",
  style: "workgroup",
  fits: ({ gate }) => !gate,
  launch: (product) => launch(product),
};

/** The same with tiles of 16 times the number in the name. */
export const WORKGROUP_SIZES: readonly ProductKernel[] = [2, 4, 8].map((block) => ({
  ...workgroupTiles,
  name: `matmul_workgroup ${block}`,
  launch: (product) => launch(product, block),
}));

function launch(product: Product, size?: number): void {
  const { a, b, bias, residual, out } = product;
  const params = productParams(product);
  const { rows, columns, batches } = params;
  const count = (block: number) =>
    batches * Math.ceil(rows / (SIDE * block)) * Math.ceil(columns / (SIDE * block));
  const fits = (block: number) =>
    SIDE * block < 2 * Math.min(rows, columns) && count(block) >= ENOUGH_WORKGROUPS;
  const block = size ?? [8, 4].find(fits) ?? 2;
  const a4 = loadsByFour(a, -1);
  const b4 = loadsByFour(b, -2);
  kernel.launch({
    tensors: {
      a: a4 ? undefined : a,
      a4: a4 ? a : undefined,
      b: b4 ? undefined : b,
      b4: b4 ? b : undefined,
      bias,
      residual,
      out,
    },
    params,
    constants: {
      ...epilogueOf(product),
      block,
      batched: out.rank > 2,
      bRowMajor: params.b_column === 1 && !b4,
    },
    workgroups: count(block),
  });
}
