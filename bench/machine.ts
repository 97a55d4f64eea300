import { availableParallelism, cpus, loadavg, release, totalmem } from "node:os";
import type { Device } from "#src/tensor/device";
import type { DeviceInfo } from "#src/tensor/device-info";
import { rounded } from "./harness.ts";

/** What figures depend on beside the code. */
export interface Machine {
  cpu: string;
  cores: number;
  memoryGiB: number;
  system: string;
  node: string;
  /** Load average of the last minute, before anything was measured: quiet is well below the number of cores. */
  loadAverage: number;
}

export function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memoryGiB: rounded(totalmem() / 2 ** 30),
    system: `${process.platform} ${process.arch} ${release()}`,
    node: process.version,
    loadAverage: rounded(loadavg()[0]!),
  };
}

export interface Adapter extends DeviceInfo {
  limits: { maxStorageBufferBindingSize: number; maxBufferSize: number };
  hardware?: HardwareLimits;
}

export function describeAdapter({ info, gpu }: Device): Adapter {
  const { maxStorageBufferBindingSize, maxBufferSize } = gpu.limits;
  const hardware = CARDS.find(([name]) => info.description.includes(name) || info.device.includes(name));
  return {
    ...info,
    limits: { maxStorageBufferBindingSize, maxBufferSize },
    ...(hardware && { hardware: hardware[1] }),
  };
}

/** What the vendor says the hardware can do at most. */
export interface HardwareLimits {
  /** Of f32 without tensor cores. */
  gflops: number;
  gbPerSecond: number;
}

/** From NVIDIA's data sheets; where names overlap, the longer one first. */
const CARDS: readonly [name: string, limits: HardwareLimits][] = [
  ["H200 NVL", { gflops: 60_000, gbPerSecond: 4800 }],
  ["H200", { gflops: 67_000, gbPerSecond: 4800 }],
  ["H100 PCIe", { gflops: 51_000, gbPerSecond: 2000 }],
  ["H100 80GB HBM3", { gflops: 67_000, gbPerSecond: 3350 }],
  ["A100-SXM4-80GB", { gflops: 19_500, gbPerSecond: 2039 }],
  ["A100-SXM4-40GB", { gflops: 19_500, gbPerSecond: 1555 }],
];
