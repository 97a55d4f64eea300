import { defineKernel } from "../../tensor/kernel.ts";
import { spansWindows } from "../../tensor/packed/packed.ts";
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
import { SharedLoads } from "./shared-loads.ts";

/** Of the vectors that CPU cores compute with. */
const LANES = 8;

/**
 * Matrix product for drivers that run on CPU cores: each invocation keeps a block of `rows` x 4 * `vectors` outputs in
 * registers, and there is no workgroup memory and no barrier. The rows of a block are the same for a whole workgroup, which
 * shares the loads of a. Takes any strides; fastest when four columns of b can be loaded at once, or four of a column (the
 * weights of a product, in the product that their gradients come from).
 */
interface Block {
  /** Rows per invocation. */
  rows: number;
  /** Groups of four columns per invocation. */
  vectors: number;
  /** Invocations per workgroup, side by side along the columns. */
  lanes: number;
}

/** Few rows are bound by loading b; a block for more rows than there are wastes less than another pipeline costs. */
function blockFor(rows: number, columns: number, windows: boolean, width: number, gated: boolean): Block {
  // Each load chooses among the windows of a tensor over the binding limit: few loads, or compiling takes minutes.
  if (windows) return { rows: rows === 1 ? 1 : 4, vectors: gated ? 2 : 1, lanes: LANES };
  const most = width > 1 ? 16 : 8;
  return {
    rows: [1, 4, 8].find((n) => rows <= n) ?? most,
    vectors: vectorsFor(rows, columns, gated),
    lanes: LANES,
  };
}

/**
 * Groups of columns that an invocation computes. Few rows are bound by loading b: more columns share a load of a, and rows of b
 * that are far apart in memory are better read in longer pieces; as long as there is work for every core.
 */
function vectorsFor(rows: number, columns: number, gated: boolean): number {
  if (rows > 4) return 4;
  if (gated || columns >= 8192) return 8;
  return columns > 2 * 6 * 4 * LANES ? 6 : 4;
}

interface Variant extends Block, Epilogue {
  /** Of {@link SharedLoads}. */
  width: number;
  batched: boolean;
}

const kernel = defineKernel({
  name: "matmul_register",
  bindings: {
    a: "read?",
    b: "values?",
    b4: "values4?",
    a4: "read4?",
    b4_depth: "values4?",
    bias: "read?",
    residual: "read?",
    out: "write",
  },
  params: PRODUCT_PARAMS,
  code({ constants, has }) {
    const { rows, vectors, lanes, width, batched, gate } = constants as Variant;
    // With a gate, half of the vectors are columns of the gate, and half their counterparts.
    const across = gate ? vectors / 2 : vectors;
    const columnOf = (v: number) => `column + ${4 * (v % across)}u`;
    const half = (v: number) => (v < across ? "" : " + params.gate_to_up");
    const row = Array.from({ length: rows }, (_, i) => i);
    const shared = new SharedLoads(width);
    const vector = Array.from({ length: vectors }, (_, i) => i);
    const each = (line: (r: number, v: number) => string) =>
      row.flatMap((r) => vector.map((v) => line(r, v))).join("\n");
    const perRow = (line: (r: number) => string) => row.map(line).join("\n");
    const perLoad = (line: (i: number) => string) => shared.perLoad(rows, line);
    const perVector = (line: (v: number) => string) => vector.map(line).join("\n");

    const loadB = has("b4")
      ? perVector((v) => `    let w${v} = b4_at4(b${v}); b${v} += params.b_depth / 4u;`)
      : perVector(
          (v) =>
            `    let w${v} = vec4f(b_at(b${v}.x), b_at(b${v}.y), b_at(b${v}.z), b_at(b${v}.w)); b${v} += vec4u(params.b_depth);`,
        );
    const startB = has("b4")
      ? perVector(
          (v) => `  var b${v} = (b_batch(batch) + min(${columnOf(v)}, params.columns - 4u)${half(v)}) / 4u;`,
        )
      : perVector(
          (v) =>
            `  var b${v} = b_batch(batch)${half(v)} + min(vec4u(${columnOf(v)}) + vec4u(0u, 1u, 2u, 3u), vec4u(params.columns - 1u)) * params.b_column;`,
        );
    const steps = [0, 1, 2, 3];
    const perColumn = (line: (v: number, c: number) => string) =>
      vector.flatMap((v) => steps.map((c) => line(v, c))).join("\n");
    const start = has("b4_depth")
      ? `${perLoad((i) => `  var a${i} = (a_batch(batch) + min(row + ${shared.index(i)}, params.rows - 1u) * params.a_row) / 4u;`)}
${perColumn((v, c) => `  var b${v}_${c} = (b_batch(batch)${half(v)} + min(${columnOf(v)} + ${c}u, params.columns - 1u) * params.b_column) / 4u;`)}`
      : `${perLoad((i) => `  var a${i} = a_batch(batch) + min(row + ${shared.index(i)}, params.rows - 1u) * params.a_row;`)}
${startB}`;
    const loop = has("b4_depth")
      ? `  for (var k = 0u; k < params.depth; k += 4u) {
${perLoad((i) => `    let loaded${i} = a4_at4(a${i}); a${i}++;`)}
${perColumn((v, c) => `    let w${v}_${c} = b4_depth_at4(b${v}_${c}); b${v}_${c}++;`)}
${perRow(
  (r) => `    let x${r} = ${shared.value("loaded", r)};
${vector
  .map((v) =>
    steps
      .map(
        (s) =>
          `    sum${r}_${v} = fma(vec4f(x${r}[${s}]), vec4f(${steps.map((c) => `w${v}_${c}[${s}]`).join(", ")}), sum${r}_${v});`,
      )
      .join("\n"),
  )
  .join("\n")}`,
)}
  }`
      : `  for (var k = 0u; k < params.depth; k++) {
${loadB}
${perLoad((i) => `    let loaded${i} = a_at(a${i}); a${i} += params.a_depth;`)}
${perRow((r) => `    let x${r} = ${shared.value("loaded", r)};`)}
${each((r, v) => `    sum${r}_${v} = fma(vec4f(x${r}), w${v}, sum${r}_${v});`)}
  }`;
    const sums = row.flatMap((r) => vector.map((v) => `sum${r}_${v}`)).join(", ");
    return /* wgsl */ `
${shared.enable}
${batchOffsets(batched)}
${finish(has, constants as Variant)}

@compute @workgroup_size(${lanes})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
  ${shared.parameter}
) {
  // Row blocks vary fastest, so that neighbouring workgroups find the same columns of b in the cache.
  let row_blocks = (params.rows + ${rows - 1}u) / ${rows}u;
  let column_blocks = (params.columns + ${4 * across * lanes - 1}u) / ${4 * across * lanes}u;
  let flat = flat_group(group, groups);
  let row = flat % row_blocks * ${rows}u;
  let column = (flat / row_blocks % column_blocks * ${lanes}u + lane) * ${4 * across}u;
  let batch = flat / row_blocks / column_blocks;
  if (batch >= params.batches) { return; }

  // Rows and columns past the end are computed from the last one and not stored: cheaper than a divergent branch.
${start}
${each((r, v) => `  var sum${r}_${v} = vec4f();`)}
${loop}

  // An array from here on: written out, this would take longer to compile than all of the above.
  var sums = array<vec4f, ${rows * vectors}>(${sums});
  for (var r = 0u; r < ${rows}u; r++) {
    for (var c = 0u; c < ${4 * across}u; c++) {
      let at = r * ${vectors}u + c / 4u;
      finish(batch, row + r, column + c, sums[at][c % 4u]${gate ? `, sums[at + ${across}u][c % 4u]` : ""});
    }
  }
}`;
  },
});

export const registerTiles: ProductKernel = {
  name: "matmul_register",
  style: "register",
  fits: () => true,
  launch: (product) => launch(product),
};

/** The same with as many groups of columns an invocation as the name says. */
export const REGISTER_SIZES: readonly ProductKernel[] = [4, 6, 8].map((vectors) => ({
  name: `matmul_register ${vectors}`,
  style: "register",
  fits: ({ a, b }) => !spansWindows(a) && !spansWindows(b),
  launch: (product) => launch(product, vectors),
}));

function launch(product: Product, vectors?: number): void {
  const { a, b, bias, residual, out } = product;
  const params = productParams(product);
  const byFour = loadsByFour(b, -1) && params.columns % 4 === 0;
  const byDepth = !byFour && loadsByFour(b, -2) && loadsByFour(a, -1);
  const windows = [a, b].some(spansWindows);
  const width = params.rows === 1 ? 1 : SharedLoads.widthOn(out.device, LANES);
  const byRule = blockFor(params.rows, params.columns, windows, width, product.gate !== undefined);
  const block = vectors === undefined ? byRule : { ...byRule, vectors };
  const blocks =
    Math.ceil(params.rows / block.rows) *
    Math.ceil(params.columns / (4 * (block.vectors / (product.gate ? 2 : 1)) * block.lanes));
  kernel.launch({
    tensors: {
      a: byDepth ? undefined : a,
      a4: byDepth ? a : undefined,
      b: byFour || byDepth ? undefined : b,
      b4: byFour ? b : undefined,
      b4_depth: byDepth ? b : undefined,
      bias,
      residual,
      out,
    },
    params,
    constants: { ...block, ...epilogueOf(product), width, batched: out.rank > 2 },
    workgroups: params.batches * blocks,
  });
}
