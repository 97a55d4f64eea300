import { MAX_RANK, type Shape } from "../../tensor/shape.ts";
import type { ParameterType } from "../../tensor/wgsl.ts";

/** One loop nest over several operands: sizes, outermost first, and each operand's strides in the same order. */
export interface Layout {
  readonly shape: readonly number[];
  readonly strides: readonly (readonly number[])[];
}

/**
 * The shortest loop nest that visits the same elements in the same order: dimensions of size one go, and neighbours
 * that every operand walks with one step become one. At least one dimension is left.
 */
export function collapse(shape: Shape, operands: readonly (readonly number[])[]): Layout {
  const sizes: number[] = [];
  const strides: number[][] = operands.map(() => []);
  shape.forEach((n, axis) => {
    if (n === 1) return;
    const joins = sizes.length > 0 && operands.every((s, o) => strides[o]!.at(-1) === s[axis]! * n);
    if (joins) sizes[sizes.length - 1]! *= n;
    else sizes.push(n);
    operands.forEach((s, o) => {
      if (joins) strides[o]![sizes.length - 1] = s[axis]!;
      else strides[o]!.push(s[axis]!);
    });
  });
  if (sizes.length === 0) {
    sizes.push(1);
    for (const s of strides) s.push(1);
  }
  return { shape: sizes, strides };
}

const dims = Array.from({ length: MAX_RANK }, (_, d) => d);

/** Fields of the params uniform that {@link locate} reads: `<nest>0…` for sizes, `<operand>_s0…` for strides. */
export function layoutFields(operands: readonly string[], nest = "n"): Record<string, ParameterType> {
  const fields = dims.flatMap((d) => [`${nest}${d}`, ...operands.map((name) => `${name}_s${d}`)]);
  return Object.fromEntries(fields.map((field) => [field, "u32"]));
}

/** Values for {@link layoutFields}. */
export function layoutValues(
  operands: readonly string[],
  layout: Layout,
  nest = "n",
): Record<string, number> {
  const values: Record<string, number> = {};
  for (const d of dims) {
    values[`${nest}${d}`] = layout.shape[d] ?? 1;
    operands.forEach((name, o) => {
      values[`${name}_s${d}`] = layout.strides[o]![d] ?? 0;
    });
  }
  return values;
}

/** WGSL statements that turn the flat position `index` of a nest into `let <operand>_i` for each operand. */
export function locate(rank: number, operands: readonly string[], index = "i", nest = "n"): string {
  const lines: string[] = [];
  let rest = index;
  for (let d = rank - 1; d > 0; d--) {
    lines.push(
      `let ${nest}_c${d} = ${rest} % params.${nest}${d};`,
      `let ${nest}_r${d} = ${rest} / params.${nest}${d};`,
    );
    rest = `${nest}_r${d}`;
  }
  lines.push(`let ${nest}_c0 = ${rest};`);
  for (const name of operands) {
    const terms = dims.slice(0, rank).map((d) => `${nest}_c${d} * params.${name}_s${d}`);
    lines.push(`let ${name}_i = ${terms.join(" + ")};`);
  }
  return lines.join("\n  ");
}
