import type { BenchResult } from "./harness.ts";
import type { JobResult } from "./jobs.ts";
import type { PeerComparison } from "./peers.ts";

/** Results as lines for people; the JSON has more. */

export function formatKernel({
  name,
  dtype,
  shapes,
  bestMs,
  gflops,
  gbPerSecond,
  dispatches,
}: BenchResult): string {
  const operands = Object.entries(shapes).map(([operand, shape]) => `${operand}[${shape.join(",")}]`);
  const gb = gbPerSecond === undefined ? "" : `${gbPerSecond} GB/s`;
  const rate = gflops === undefined ? gb : `${gflops} GFLOP/s`;
  return `${`${name} ${dtype} ${operands.join(" ")}`.padEnd(62)} ${ms(bestMs)} ${rate.padStart(16)} ${dispatches} dispatches`;
}

export function formatJob({ name, ...figures }: JobResult): string {
  const text = (value: unknown) => JSON.stringify(value).replaceAll('"', "").replaceAll(",", ", ");
  return `${name.padEnd(12)} ${Object.entries(figures)
    .map(([key, value]) => `${key} ${text(value)}`)
    .join(", ")}`;
}

export function formatPeers({ xpatch, peers, ratioToBestPeer, ratioToNative }: PeerComparison): string {
  const lines = peers.map(({ library, version = "", backend, bestMs, gflops, missing }) => {
    const figures = missing ?? `${ms(bestMs!)} ${`${gflops} GFLOP/s`.padStart(16)}`;
    return `${`${library} ${version} (${backend})`.padEnd(62)} ${figures}`;
  });
  const ratios = [
    ratioToBestPeer !== undefined && `${ratioToBestPeer} times the best WebGPU peer`,
    ratioToNative !== undefined && `${ratioToNative} of native code on the CPU`,
  ].filter(Boolean);
  return [
    formatKernel(xpatch),
    ...lines,
    ...(ratios.length > 0 ? [`xpatch has ${ratios.join(", ")}`] : []),
  ].join("\n");
}

function ms(value: number): string {
  return `${value} ms`.padStart(11);
}
