import type { Device } from "../tensor/device.ts";
import { defineKernel } from "../tensor/kernel.ts";

/** What an adapter can do at most, as two small kernels found it out. */
export interface Limits {
  /** Billions of f32 operations a second; a multiply-add counts two. Matrix units are not used. */
  readonly gflops: number;
  /** Billions of bytes that kernels read from memory beyond the caches in a second. */
  readonly gbPerSecond: number;
}

/** More than caches hold, as far as one binding shows it. */
const MOST_BYTES = 2 ** 28;
const ROUNDS = 5;
const ROUND_MS = 40;

/**
 * Measures the adapter with a kernel that only reads, and one that only multiplies and adds, each in a few arrangements of which
 * the fastest counts. Takes about a second, and 256 MiB for a moment.
 */
export async function measureLimits(device: Device): Promise<Limits> {
  const scope = device.openScope();
  try {
    const bytes = Math.min(MOST_BYTES, 2 ** Math.floor(Math.log2(device.maxBindingBytes)));
    const x = scope.enter(() => device.zeros([bytes / 4]));
    let gbPerSecond = 0;
    for (const { kernel, size } of READERS) {
      const invocations = bytes / 16 / VECTORS;
      const out = scope.enter(() => device.empty([invocations], "f32", "limits"));
      const run = () =>
        kernel.launch({
          tensors: { x, out },
          params: { invocations },
          constants: {},
          workgroups: invocations / size,
        });
      gbPerSecond = Math.max(gbPerSecond, bytes / 1e6 / (await bestMs(device, run)));
    }
    let gflops = 0;
    for (const { kernel, size, operations } of CALCULATORS) {
      const out = scope.enter(() => device.empty([INVOCATIONS], "f32", "limits"));
      const run = () =>
        kernel.launch({
          tensors: { out },
          params: { steps: STEPS, factor: 0.999, addend: 0.001 },
          constants: {},
          workgroups: INVOCATIONS / size,
        });
      const flops = INVOCATIONS * STEPS * operations;
      gflops = Math.max(gflops, flops / 1e6 / (await bestMs(device, run)));
    }
    return { gflops, gbPerSecond };
  } finally {
    scope.dispose();
  }
}

/** Vectors of four that an invocation reads. */
const VECTORS = 16;
const READERS = [64, 256].map((size) => ({ size, kernel: readKernel(size) }));

/** Neighbouring invocations read neighbouring vectors, and a workgroup one piece of memory. */
function readKernel(size: number) {
  return defineKernel({
    name: `limit of reading by ${size}`,
    bindings: { x: "read4", out: "write" },
    params: { invocations: "u32" },
    code: () => `
@compute @workgroup_size(${size})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * ${size}u + local;
  if (i >= params.invocations) { return; }
  let first = (i - local) * ${VECTORS}u + local;
  var total = vec4f();
${Array.from({ length: VECTORS }, (_, k) => `  total += x_at4(first + ${k * size}u);`).join("\n")}
  out_set(i, total.x + total.y + total.z + total.w);
}`,
  });
}

const INVOCATIONS = 2 ** 16;
const STEPS = 256;
/** Sums that grow independently of each other, enough to fill a core's pipelines, few enough for its registers. */
const CALCULATORS = (
  [
    ["f32", 16],
    ["vec4f", 4],
  ] as const
).map(([type, sums]) => ({
  size: 64,
  operations: 2 * sums * (type === "f32" ? 1 : 4),
  kernel: calculationKernel(type, sums),
}));

function calculationKernel(type: "f32" | "vec4f", sums: number) {
  const each = (text: (n: number) => string) => Array.from({ length: sums }, (_, n) => text(n)).join("\n");
  return defineKernel({
    name: `limit of arithmetic by ${type}`,
    bindings: { out: "write" },
    params: { steps: "u32", factor: "f32", addend: "f32" },
    code: () => `
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let i = flat_group(group, groups) * 64u + local;
  let factor = ${type}(params.factor);
  let addend = ${type}(params.addend);
${each((n) => `  var sum${n} = ${type}(f32(i) + ${n}.0);`)}
  for (var step = 0u; step < params.steps; step++) {
${each((n) => `    sum${n} = fma(sum${n}, factor, addend);`)}
  }
  let total = ${Array.from({ length: sums }, (_, n) => `sum${n}`).join(" + ")};
  out_set(i, ${type === "f32" ? "total" : "total.x + total.y + total.z + total.w"});
}`,
  });
}

async function bestMs(device: Device, run: () => void): Promise<number> {
  const round = async (runs: number) => {
    await device.sync();
    const start = performance.now();
    for (let i = 0; i < runs; i++) run();
    await device.sync();
    return (performance.now() - start) / runs;
  };
  await round(1); // compiles
  const runs = Math.max(1, Math.min(500, Math.round(ROUND_MS / (await round(1)))));
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < ROUNDS; i++) best = Math.min(best, await round(runs));
  return best;
}
