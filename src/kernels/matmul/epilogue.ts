import { ACTIVATIONS, type ActivationKind } from "../elementwise/activation.ts";

/** What a product kernel does with its sums, as constants of its variant. */
export interface Epilogue {
  /** How many tensors the columns are shared out to: 1 to {@link MOST_PARTS}. */
  readonly parts: number;
  /** Whether the sums of a column and of its counterpart in the second half of b become one value; "" where they do not. */
  readonly gate: ActivationKind | "";
}

/** Most tensors that the columns of a product can be shared out to. */
export const MOST_PARTS = 3;

/**
 * WGSL of `finish(batch, row, column, sum)`, which adds bias and residual to a sum and stores it, if it lies within the matrix; with
 * a gate `finish(batch, row, column, gate, up)`.
 */
export function finish(has: (name: "bias" | "residual") => boolean, { parts, gate }: Epilogue): string {
  const bias = (value: string, column: string) =>
    has("bias") ? `${value} += bias_at(${column} * params.bias_column);` : "";
  if (gate) {
    return /* wgsl */ `
alias F = f32;
alias I = i32;
alias U = u32;
alias Bool = bool;
${ACTIVATIONS}
fn finish(batch: u32, row: u32, column: u32, gate_sum: f32, up_sum: f32) {
  if (row >= params.rows || column >= params.columns) { return; }
  var gate = gate_sum;
  var up = up_sum;
  ${bias("gate", "column")}
  ${bias("up", "(column + params.columns)")}
  out_set((batch * params.rows + row) * params.columns + column, ${gate}(gate) * up);
}`;
  }
  // Each part is a matrix [rows, its columns] of its own, behind those before it.
  const place =
    parts === 1
      ? "(batch * params.rows + row) * params.columns + column"
      : "part_place(row, column, select(vec2u(0u, params.part1), " +
        (parts === 2
          ? "vec2u(params.part1, params.columns), column >= params.part1))"
          : "select(vec2u(params.part1, params.part2), vec2u(params.part2, params.columns), column >= params.part2), column >= params.part1))");
  return /* wgsl */ `
fn part_place(row: u32, column: u32, part: vec2u) -> u32 {
  return params.rows * part.x + row * (part.y - part.x) + column - part.x;
}
fn finish(batch: u32, row: u32, column: u32, sum: f32) {
  if (row >= params.rows || column >= params.columns) { return; }
  var value = sum;
  ${bias("value", "column")}
  ${has("residual") ? "value += residual_at(row * params.residual_row + column * params.residual_column);" : ""}
  out_set(${place}, value);
}`;
}
