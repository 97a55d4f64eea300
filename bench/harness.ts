import type { Device } from "#src/tensor/device";
import type { Tensor } from "#src/tensor/tensor";

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

/** The kernels of one file: made on a device one at a time, since some hold large weights. */
export type Suite = (device: Device) => Iterable<BenchCase>;

export interface BenchResult {
  name: string;
  dtype: string;
  shapes: BenchCase["shapes"];
  /** Wall time of one run: the best and the middle of all rounds. */
  bestMs: number;
  medianMs: number;
  /** At the best time. */
  gflops?: number;
  gbPerSecond?: number;
  dispatches: number;
  /** WebGPU bind groups that a warm run creates; 0 where the caches do their work. */
  bindGroups: number;
}

export interface Effort {
  /** Fewer where runs take seconds. */
  rounds: number;
  /** Aimed at; a round has at least one run. */
  roundMs: number;
}

export const FULL: Effort = { rounds: 9, roundMs: 60 };
/** To see that everything works. */
export const QUICK: Effort = { rounds: 2, roundMs: 5 };

/** Times a case: kernels compiled, result checked, then rounds of many runs with one synchronisation each. */
export async function measure(device: Device, bench: BenchCase, effort = FULL): Promise<BenchResult> {
  const run = () => {
    device.scope(() => {
      bench.run();
    });
  };
  const output = device.scope(() => bench.run());
  await bench.check?.(output);
  output.dispose();
  run(); // so that the pool has the buffers of a run

  const before = device.counters;
  run();
  const after = device.counters;
  const { bestMs, medianMs } = await timeRounds(run, () => device.sync(), effort);
  return {
    name: bench.name,
    dtype: bench.dtype,
    shapes: bench.shapes,
    bestMs: rounded(bestMs),
    medianMs: rounded(medianMs),
    ...(bench.flops && { gflops: rounded(bench.flops / bestMs / 1e6) }),
    ...(bench.bytes && { gbPerSecond: rounded(bench.bytes / bestMs / 1e6) }),
    dispatches: after.dispatches - before.dispatches,
    bindGroups: after.bindGroups - before.bindGroups,
  };
}

/** What the rounds of one case may take together, from two rounds on. */
const MAX_MS = 20_000;

/** The time of one run, from rounds of as many runs as fill `roundMs`, with one synchronisation each. */
export async function timeRounds(
  run: () => void,
  sync: () => Promise<unknown>,
  { rounds, roundMs }: Effort,
): Promise<{ bestMs: number; medianMs: number }> {
  const round = async (runs: number) => {
    await sync();
    const start = performance.now();
    for (let i = 0; i < runs; i++) run();
    await sync();
    return (performance.now() - start) / runs;
  };
  const once = await round(1);
  const runs = Math.max(1, Math.min(200, Math.round(roundMs / once)));
  const times: number[] = [];
  while (times.length < Math.max(2, Math.min(rounds, MAX_MS / (once * runs)))) times.push(await round(runs));
  return bestAndMedian(times);
}

export function bestAndMedian(times: readonly number[]): { bestMs: number; medianMs: number } {
  const sorted = times.toSorted((a, b) => a - b);
  return { bestMs: sorted[0]!, medianMs: sorted[sorted.length >> 1]! };
}

/** To four digits, for reports. */
export function rounded(value: number): number {
  return Number(value.toPrecision(4));
}
