import { defineKernel } from "../../tensor/kernel.ts";
import { Packed, spansWindows } from "../../tensor/packed/packed.ts";
import { codesInWide, hasOffset } from "../../tensor/packed/packed-format.ts";
import { partsOfWord } from "../../tensor/packed/packed-wgsl.ts";
import { type Epilogue, finish } from "./epilogue.ts";
import { epilogueOf, loadsByFour, PRODUCT_PARAMS, productParams } from "./matmul-product.ts";
import type { ProductKernel } from "./product-kernel.ts";
import { SharedLoads } from "./shared-loads.ts";

/** Of the vectors that CPU cores compute with: invocations of a workgroup, side by side along the columns. */
const LANES = 8;

/** Columns of an invocation. */
const COLUMNS = 4;

/** From more rows on tiles are faster, which unpack a number once for all rows of theirs. */
export const MOST_PACKED_ROWS = 4;

/** Most loads of codes one after the other without a loop around them, which would store all sums in each turn. */
const MOST_UNROLLED = 4;

/**
 * Few rows times packed weights, on CPU cores. An invocation goes along the depth of its columns of b, 16 bytes of codes a load,
 * adds up numbers times a, and multiplies the sum of a group by the group's scale, which is loaded once.
 */
export const packedRegister: ProductKernel = {
  name: "packed_register",
  style: "register",
  fits(product) {
    const { a, b, out } = product;
    if (
      !(b instanceof Packed) ||
      out.rank > 2 ||
      a.dim(0) > MOST_PACKED_ROWS ||
      b.format.codes === "u6" ||
      spansWindows(b)
    )
      return false;
    return b.strides[0] === 1 && loadsByFour(a, -1) && Number.isInteger(loadsPerGroup(b));
  },
  launch(product) {
    const { a, b, bias, residual, out } = product;
    const params = productParams(product);
    const rows = [1, 2].find((n) => params.rows <= n) ?? MOST_PACKED_ROWS;
    const width = SharedLoads.widthOn(out.device, LANES);
    const across = (product.gate ? COLUMNS / 2 : COLUMNS) * LANES;
    kernel.launch({
      tensors: { a, b: b as Packed, bias, residual, out },
      params,
      constants: {
        ...epilogueOf(product),
        rows,
        width,
        perGroup: loadsPerGroup(b as Packed),
      },
      workgroups: Math.ceil(params.rows / rows) * Math.ceil(params.columns / across),
    });
  },
};

/** Loads of codes that share a scale wherever they are: groups may begin with rows, which may be longer than the depth, or run on over their ends. */
function loadsPerGroup({ format, shape, strides, offset }: Packed): number {
  const together = [shape[0], strides[1], offset].reduce(greatestCommonDivisor, format.group);
  return together / codesInWide(format);
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

interface Variant extends Epilogue {
  /** Rows per invocation. */
  rows: number;
  /** Of {@link SharedLoads}. */
  width: number;
  /** Loads of codes that share a scale. */
  perGroup: number;
}

const kernel = defineKernel({
  name: "packed_register",
  bindings: { a: "read4", b: "wide", bias: "read?", residual: "read?", out: "write" },
  params: PRODUCT_PARAMS,
  code({ constants, has, format }) {
    const { rows, width, perGroup, gate } = constants as Variant;
    const perTurn = Array.from({ length: MOST_UNROLLED }, (_, i) => MOST_UNROLLED - i).find(
      (n) => perGroup % n === 0,
    )!;
    const b = format("b");
    const unit = codesInWide(b);
    const adds = hasOffset(b) || b.bias !== undefined;
    const shared = new SharedLoads(width);
    const row = Array.from({ length: rows }, (_, i) => i);
    const column = Array.from({ length: COLUMNS }, (_, i) => i);
    const across = gate ? COLUMNS / 2 : COLUMNS;
    const perRow = (line: (r: number) => string) => row.map(line).join("\n");
    const perColumn = (line: (c: number) => string) => column.map(line).join("\n");
    const each = (line: (r: number, c: number) => string) =>
      row.flatMap((r) => column.map((c) => line(r, c))).join("\n");
    // Loads of codes in a turn of the loop, and the fours of a row of a that meet them: value n of the shared loads is four n % fours
    // of row n / fours.
    const loads = Array.from({ length: perTurn }, (_, i) => i);
    const fours = (perTurn * unit) / 4;
    const loadsOfA = Array.from({ length: Math.ceil((rows * fours) / width) }, (_, i) => i);
    const place = (load: number) => {
      const n = shared.index(load);
      return `(min(row + ${n} / ${fours}u, params.rows - 1u) * params.a_row / 4u + ${n} % ${fours}u)`;
    };
    const step = (load: number) => `
${perColumn((c) => `      let codes${load}_${c} = b_wide(b${c} + ${load}u);`)}
${Array.from({ length: unit / 4 }, (_, i) => four(load, i)).join("\n")}`;
    const four = (load: number, i: number) => {
      const [word, part] = [Math.floor(i / partsOfWord(b)), i % partsOfWord(b)];
      const f = (load * unit) / 4 + i;
      return `${perRow((r) => `      let x${r}_${f} = ${shared.value("loaded", r * fours + f)};${adds ? ` ones${r} += dot(x${r}_${f}, vec4f(1.0));` : ""}`)}
${perColumn((c) => `      let w${c}_${f} = b_numbers${part}(codes${load}_${c}[${word}]);`)}
${each((r, c) => `      part${r}_${c} = fma(x${r}_${f}, w${c}_${f}, part${r}_${c});`)}`;
    };
    const sums = row.flatMap((r) => column.map((c) => `sum${r}_${c}`)).join(", ");
    return /* wgsl */ `
${shared.enable}
${finish(has, constants as Epilogue)}

@compute @workgroup_size(${LANES})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
  ${shared.parameter}
) {
  // Row blocks vary fastest, so that neighbouring workgroups find the same columns of b in the cache.
  let row_blocks = (params.rows + ${rows - 1}u) / ${rows}u;
  let column_blocks = (params.columns + ${across * LANES - 1}u) / ${across * LANES}u;
  let flat = flat_group(group, groups);
  let row = flat % row_blocks * ${rows}u;
  let first = flat / row_blocks * ${across * LANES}u + lane;
  if (flat / row_blocks >= column_blocks) { return; }

  // Rows and columns past the end are computed from the last one and not stored: cheaper than a divergent branch.
${loadsOfA.map((i) => `  var a${i} = ${place(i)};`).join("\n")}
${perColumn((c) => `  var b${c} = (min(first + ${(c % across) * LANES}u, params.columns - 1u) * params.b_column${c < across ? "" : " + params.gate_to_up"}) / ${unit}u;`)}
${each((r, c) => `  var sum${r}_${c} = 0.0;`)}
  for (var k = 0u; k < params.depth; k += ${unit * perGroup}u) {
${each((r, c) => `    var part${r}_${c} = vec4f();`)}
${adds ? perRow((r) => `    var ones${r} = 0.0;`) : ""}
${perColumn((c) => `    let factors${c} = b_factors(b${c});`)}
    ${perGroup > perTurn ? `for (var i = 0u; i < ${perGroup / perTurn}u; i++) {` : "{"}
${loadsOfA.map((i) => `      let loaded${i} = a_at4(a${i}); a${i} += ${fours}u;`).join("\n")}
${loads.map(step).join("\n")}
${perColumn((c) => `      b${c} += ${perTurn}u;`)}
    }
${each((r, c) => `    sum${r}_${c} = fma(dot(part${r}_${c}, vec4f(1.0)), factors${c}.x, sum${r}_${c});${adds ? ` sum${r}_${c} = fma(ones${r}, factors${c}.y, sum${r}_${c});` : ""}`)}
  }

  var sums = array<f32, ${rows * COLUMNS}>(${sums});
  for (var r = 0u; r < ${rows}u; r++) {
    for (var c = 0u; c < ${across}u; c++) {
      let at = r * ${COLUMNS}u + c;
      finish(0u, row + r, first + c * ${LANES}u, sums[at]${gate ? `, sums[at + ${across}u]` : ""});
    }
  }
}`;
  },
});
