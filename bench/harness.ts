import type { Device } from "../src/tensor/device.ts";
import type { Tensor } from "../src/tensor/tensor.ts";

/** One thing to time. Weights and inputs are made beforehand; outputs stay on the GPU. */
export interface BenchCase {
  name: string;
  /** Of the operand that dominates. */
  dtype: string;
  shapes: Readonly<Record<string, readonly number[]>>;
  /** Floating-point operations of one run (a multiply-add counts two), if that is what bounds it. */
  flops?: number;
  /** Bytes that one run has to move, if that is what bounds it. */
  bytes?: number;
  /** Records one run; the tensors it makes are disposed of. */
  run(): Tensor;
  /** Throws when the output of a run is wrong. */
  check?(output: Tensor): Promise<void>;
}

export interface BenchResult {
  name: string;
  adapter: string;
  kernels: string;
  dtype: string;
  shapes: BenchCase["shapes"];
  /** Wall time of one run: the best and the middle of all rounds. */
  bestMs: number;
  medianMs: number;
  /** At the best time. */
  gflops?: number;
  gbPerSecond?: number;
  dispatches: number;
}

const ROUNDS = 9;
const ROUND_MS = 60;

/** Times a case: kernels compiled, result checked, then rounds of many runs with one synchronisation each. */
export async function measure(device: Device, bench: BenchCase): Promise<BenchResult> {
  const output = device.scope(() => bench.run());
  await bench.check?.(output);
  output.dispose();

  const before = device.counters.dispatches;
  const once = await time(device, bench, 1);
  const dispatches = device.counters.dispatches - before;
  const runs = Math.max(1, Math.min(200, Math.round(ROUND_MS / once)));
  const times: number[] = [];
  for (let i = 0; i < ROUNDS; i++) times.push(await time(device, bench, runs));
  times.sort((a, b) => a - b);

  const bestMs = times[0]!;
  const { description, vendor, kernels } = device.info;
  return {
    name: bench.name,
    adapter: description || vendor,
    kernels,
    dtype: bench.dtype,
    shapes: bench.shapes,
    bestMs: round(bestMs),
    medianMs: round(times[ROUNDS >> 1]!),
    ...(bench.flops && { gflops: round(bench.flops / bestMs / 1e6) }),
    ...(bench.bytes && { gbPerSecond: round(bench.bytes / bestMs / 1e6) }),
    dispatches,
  };
}

/** Measures each case in turn and prints a line of JSON for it. */
export async function report(device: Device, cases: Iterable<BenchCase>): Promise<void> {
  for (const bench of cases) console.log(JSON.stringify(await measure(device, bench)));
}

async function time(device: Device, bench: BenchCase, runs: number): Promise<number> {
  await device.sync();
  const start = performance.now();
  for (let i = 0; i < runs; i++) {
    device.scope(() => {
      bench.run();
    });
  }
  await device.sync();
  return (performance.now() - start) / runs;
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}
