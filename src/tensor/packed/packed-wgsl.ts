import {
  codesInWide,
  hasOffset,
  NESTED_BLOCK,
  NESTED_START,
  type PackedFormat,
  SUPER_BLOCK,
} from "./packed-format.ts";

/**
 * WGSL that reads elements of a packed matrix `x` as numbers, on top of the accessors of its parts `x_codes`, `x_scales`, …:
 * `x_at(i)`, or with `byFour` `x_at4(i)` for the i-th group of four. Both count from the view's first element.
 */
export function packedAccessors(name: string, format: PackedFormat, byFour: boolean): string {
  const perGroup = format.group / 4;
  const value = (code: string) => (hasOffset(format) ? `${code} * scale.x + scale.y` : `${code} * scale`);
  const at = byFour
    ? /* wgsl */ `
fn ${name}_at4(i: u32) -> vec4f {
  let j = i + params.${name}_offset;
  let scale = ${name}_scale(j / ${perGroup}u);
  return ${value(`${name}_code4(j)`)};
}`
    : /* wgsl */ `
fn ${name}_at(i: u32) -> f32 {
  let j = i + params.${name}_offset;
  let scale = ${name}_scale(j / ${format.group}u);
  return ${value(`${name}_code4(j / 4u)[j % 4u]`)};
}`;
  return [codes(name, format), scales(name, format), at].join("\n");
}

/**
 * WGSL that reads codes of a packed matrix `x` 16 bytes at a time, on top of the accessors of its parts:
 *
 * - `x_wide(i) -> vec4u`: the i-th 16 bytes of codes from the view's first element
 * - `x_numbers<p>(word) -> vec4f`: the p-th four codes of a word as numbers, for p < {@link partsOfWord}
 * - `x_factors(i) -> vec2f`: what numbers in the i-th 16 bytes are multiplied by, and what is then added to each
 */
export function wideAccessors(name: string, format: PackedFormat): string {
  const { codes, bias = 0, table, group } = format;
  const four = (p: number) => {
    switch (codes) {
      case "i8":
        return "vec4f(bitcast<vec4i>(vec4u(word) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u))";
      case "u8":
        return "vec4f((vec4u(word) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u))";
      default: {
        const nibbles = `((vec4u(word) >> vec4u(${[0, 4, 8, 12].map((n) => `${n + 16 * p}u`).join(", ")})) & vec4u(15u))`;
        return table ? `${name}_table(${nibbles})` : `vec4f(${nibbles})`;
      }
    }
  };
  const numbers = Array.from(
    { length: partsOfWord(format) },
    (_, p) => `fn ${name}_numbers${p}(word: u32) -> vec4f { return ${four(p)}; }`,
  );
  const factors = hasOffset(format) ? "scale" : `vec2f(scale, ${bias ? `scale * -${bias}.0` : "0.0"})`;
  return [
    scales(name, format),
    ...(table ? [`fn ${name}_table(codes: vec4u) -> vec4f { return ${lookup(table, "codes")}; }`] : []),
    ...numbers,
    `fn ${name}_wide(i: u32) -> vec4u { return ${name}_codes_at4(i + params.${name}_offset); }`,
    `fn ${name}_factors(i: u32) -> vec2f {
  let scale = ${name}_scale((i + params.${name}_offset) / ${group / codesInWide(format)}u);
  return ${factors};
}`,
  ].join("\n");
}

/** Fours of codes in a word. */
export function partsOfWord(format: PackedFormat): number {
  return codesInWide(format) / 16;
}

/** Four codes as numbers, without their bias. */
function codes(name: string, { codes, bias, table }: PackedFormat): string {
  const minus = (value: string) => (bias ? `${value} - ${bias}.0` : value);
  const body = {
    i8: () => `
  let word = vec4u(${name}_codes_at(i));
  return vec4f(bitcast<vec4i>(word << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u));`,
    u8: () => `
  let word = vec4u(${name}_codes_at(i));
  return ${minus("vec4f((word >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u))")};`,
    u4: () => `
  let word = vec4u(${name}_codes_at(i / 2u) >> (i % 2u * 16u));
  let codes = (word >> vec4u(0u, 4u, 8u, 12u)) & vec4u(15u);
  return ${table ? lookup(table, "codes") : minus("vec4f(codes)")};`,
    u6: () => `
  let low = vec4u(${name}_codes_at(i / 2u) >> (i % 2u * 16u));
  let high = vec4u(${name}_high_at(i / 4u) >> (i % 4u * 8u));
  let codes = ((low >> vec4u(0u, 4u, 8u, 12u)) & vec4u(15u)) | (((high >> vec4u(0u, 2u, 4u, 6u)) & vec4u(3u)) << vec4u(4u));
  return ${minus("vec4f(codes)")};`,
  }[codes]();
  return `fn ${name}_code4(i: u32) -> vec4f {${body}\n}`;
}

/** A table of 16 numbers as a tree of selections: an array would be looked up one lane at a time on CPU drivers. */
function lookup(table: readonly number[], code: string): string {
  const bit = (i: number) => `((${code} & vec4u(${1 << i}u)) != vec4u())`;
  let level = table.map((value) => `vec4f(${wgslFloat(value)})`);
  for (let i = 0; level.length > 1; i++) {
    level = Array.from(
      { length: level.length / 2 },
      (_, k) => `select(${level[2 * k]}, ${level[2 * k + 1]}, ${bit(i)})`,
    );
  }
  return level[0]!;
}

/** Exactly this f32. */
function wgslFloat(value: number): string {
  const text = String(Math.fround(value));
  return /[.e]/.test(text) ? text : `${text}.0`;
}

/** The scale of a group, with what is added behind it where there is something. */
function scales(name: string, { scales, group }: PackedFormat): string {
  const byte = (part: string, perWord: number, bits: number) =>
    `${name}_${part}_at(group / ${perWord}u) >> (group % ${perWord}u * ${bits}u)`;
  const perSuper = SUPER_BLOCK / group;
  const one = (body: string) => `fn ${name}_scale(group: u32) -> f32 {${body}\n}`;
  const two = (body: string) => `fn ${name}_scale(group: u32) -> vec2f {${body}\n}`;
  switch (scales) {
    case "f32":
    case "f16":
      return one(`\n  return ${name}_scales_at(group);`);
    case "affine":
      return two(`\n  return unpack2x16float(${name}_scales_at(group));`);
    case "zero":
      return two(`
  let pair = unpack2x16float(${name}_scales_at(group));
  return vec2f(pair.x, -pair.x * pair.y);`);
    case "nested":
      return one(`
  let code = (${byte("scales", 4, 8)}) & 255u;
  let factor = ${name}_nested_at(${NESTED_START}u + group / ${NESTED_BLOCK}u);
  return ${name}_nested_at(1u + code) * factor + ${name}_nested_at(0u);`);
    case "super":
      return one(`
  let code = bitcast<i32>((${byte("scales", 4, 8)}) << 24u) >> 24u;
  return f32(code) * ${name}_super_at(group / ${perSuper}u);`);
    case "superAffine":
      return two(`
  let pair = ${byte("scales", 2, 16)};
  let factors = unpack2x16float(${name}_super_at(group / ${perSuper}u));
  return vec2f(f32(pair & 255u), -f32((pair >> 8u) & 255u)) * factors;`);
  }
}
