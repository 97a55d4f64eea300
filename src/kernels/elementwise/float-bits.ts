/**
 * WGSL that works on the bits of floats, because compilers may assume that there is no NaN and because the rounding
 * of `pack2x16float` is left to the driver. `F`, `U` and `Bool` are aliases for scalars or for vectors of four.
 */
export const IS_NAN = `
fn is_nan(x: F) -> Bool { return (bitcast<U>(x) & U(0x7fffffffu)) > U(0x7f800000u); }`;

/** NaN and infinity cannot be written as constant expressions. */
export const SPECIAL_VALUES = `
fn nan() -> F { var bits = U(0x7fc00000u); return bitcast<F>(bits); }
fn infinity() -> F { var bits = U(0x7f800000u); return bitcast<F>(bits); }`;

/** Nearest half or bfloat16, ties to even, as 16 bits; overflow gives infinity, NaN stays NaN. */
export const ROUND_TO_16_BITS = `
fn f16_from(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let sign = (bits >> 16u) & 0x8000u;
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) { return sign | 0x7e00u; }
  if (magnitude >= 0x477ff000u) { return sign | 0x7c00u; }
  if (magnitude < 0x38800000u) {
    // A subnormal half is a multiple of 2^-24; adding 0.5 rounds to it and leaves it in the low bits.
    return sign | (bitcast<u32>(bitcast<f32>(magnitude) + 0.5) - 0x3f000000u);
  }
  return sign | ((magnitude + 0xfffu + ((magnitude >> 13u) & 1u) - 0x38000000u) >> 13u);
}
fn bf16_from(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return (bits >> 16u) | 0x40u; }
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}`;

/**
 * `order_key(x)`: unsigned integers in the order of the elements, so that a greater key goes first. For floats -0 equals
 * 0 and NaN is greater than everything; `descending: false` puts small elements first, but still after NaN.
 */
export function orderKey(element: string, descending: boolean): string {
  const flip = descending ? "" : "~";
  if (element !== "f32") {
    const key = element === "i32" ? "bitcast<u32>(x) ^ 0x80000000u" : "x";
    return `fn order_key(x: ${element}) -> u32 { return ${flip}(${key}); }`;
  }
  return `
fn order_key(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return 0xffffffffu; }
  if ((bits & 0x7fffffffu) == 0u) { return 0x80000000u - ${descending ? "0u" : "1u"}; }
  return ${flip}select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}`;
}
