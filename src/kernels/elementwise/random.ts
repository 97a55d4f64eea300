import { XpatchError } from "../../errors.ts";
import type { Device } from "../../tensor/device.ts";
import { defineKernel, type Variant } from "../../tensor/kernel.ts";
import { apply, type Operation } from "../../tensor/operation.ts";
import type { Shape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";

const SIZE = 64;

/**
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC11): element i comes
 * from word i mod 4 of the block with counter floor(i / 4) under the key `seed`, whoever computes it.
 */
const PHILOX = `
fn wide_product(a: u32, b: u32) -> vec2u { // low, high
  let a0 = a & 0xffffu;
  let a1 = a >> 16u;
  let b0 = b & 0xffffu;
  let b1 = b >> 16u;
  let middle = a1 * b0 + ((a0 * b0) >> 16u);
  let carry = (middle & 0xffffu) + a0 * b1;
  return vec2u(a * b, a1 * b1 + (middle >> 16u) + (carry >> 16u));
}
fn philox(counter: u32) -> vec4u {
  var key = vec2u(params.seed_low, params.seed_high);
  var c = vec4u(counter, 0u, 0u, 0u);
  for (var round = 0u; round < 10u; round++) {
    let p = wide_product(0xd2511f53u, c.x);
    let q = wide_product(0xcd9e8d57u, c.z);
    c = vec4u(q.y ^ c.y ^ key.x, q.x, p.y ^ c.w ^ key.y, p.x);
    key += vec2u(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}`;

const DISTRIBUTIONS = {
  uniform: `
fn sample(bits: vec4u) -> vec4f { return params.a + params.b * (vec4f(bits >> vec4u(8u)) * 0x1p-24); }`,
  // Box and Muller. The angle is taken in eighths of a turn and by Taylor polynomials: WGSL's own sin and cos may be
  // off by 2^-11.
  normal: `
fn pair(bits: vec2u) -> vec2f {
  let radius = sqrt(max(0.0, -2.0 * log((f32(bits.x >> 8u) + 1.0) * 0x1p-24))); // of (0, 1]
  let quadrant = bits.y >> 30u;
  let r = (f32((bits.y >> 6u) & 0xffffffu) * 0x1p-24 - 0.5) * 1.57079632679;
  let s = r * r;
  let sine = r * (1.0 + s * (-1.0 / 6.0 + s * (1.0 / 120.0 + s * (-1.0 / 5040.0 + s / 362880.0))));
  let cosine = 1.0 + s * (-0.5 + s * (1.0 / 24.0 + s * (-1.0 / 720.0 + s / 40320.0)));
  let turned = select(vec2f(cosine, sine), vec2f(-sine, cosine), (quadrant & 1u) == 1u);
  return radius * select(turned, -turned, quadrant >= 2u);
}
fn sample(bits: vec4u) -> vec4f { return params.a + params.b * vec4f(pair(bits.xy), pair(bits.zw)); }`,
};

const randomKernel = defineKernel({
  name: "random",
  bindings: { out: "write4" },
  params: { blocks: "u32", seed_low: "u32", seed_high: "u32", a: "f32", b: "f32" },
  code: ({ constants }: Variant<"out", { distribution: keyof typeof DISTRIBUTIONS }>) => `
${PHILOX}
${DISTRIBUTIONS[constants.distribution]}
@compute @workgroup_size(${SIZE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${SIZE}u + local;
  if (i < params.blocks) { out_set4(i, sample(philox(i))); }
}`,
});

interface Distribution {
  distribution: keyof typeof DISTRIBUTIONS;
  seed: number;
  a: number;
  b: number;
}

function random(device: Device, shape: Shape, { distribution, seed, a, b }: Distribution): Tensor<"f32"> {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new XpatchError(`random: expected a seed from 0 to 2^53 - 1, found ${seed}`);
  }
  return apply(randomOperation, [], { shape, distribution, seed, a, b }, device) as Tensor<"f32">;
}

const randomOperation: Operation<Distribution & { shape: Shape }> = {
  name: "random",
  run(_, { shape, distribution, seed, a, b }, device) {
    const out = device.empty(shape, "f32", distribution);
    const blocks = Math.ceil(out.size / 4);
    randomKernel.launch({
      tensors: { out },
      params: { blocks, seed_low: seed >>> 0, seed_high: Math.floor(seed / 2 ** 32), a, b },
      constants: { distribution },
      workgroups: Math.ceil(blocks / SIZE),
    });
    return out;
  },
};

/**
 * Numbers spread evenly over [low, high), f32. The same seed and shape give the same values on every adapter: exactly
 * for the default [0, 1), whose values are multiples of 2^-24; otherwise but for the rounding of `low + u * (high - low)`.
 *
 * @throws XpatchError for a seed that is not a whole number from 0 to 2^53 - 1
 */
export function randomUniform(
  device: Device,
  shape: Shape,
  { seed, low = 0, high = 1 }: { seed: number; low?: number; high?: number },
): Tensor<"f32"> {
  return random(device, shape, { distribution: "uniform", seed, a: low, b: high - low });
}

/**
 * Normally distributed numbers, f32, at most 5.8 standard deviations from the mean. The same seed and shape give the same
 * values on every adapter but for rounding (about 1e-6 of a standard deviation).
 *
 * @throws XpatchError for a seed that is not a whole number from 0 to 2^53 - 1
 */
export function randomNormal(
  device: Device,
  shape: Shape,
  { seed, mean = 0, standardDeviation = 1 }: { seed: number; mean?: number; standardDeviation?: number },
): Tensor<"f32"> {
  return random(device, shape, { distribution: "normal", seed, a: mean, b: standardDeviation });
}
