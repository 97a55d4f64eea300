import { DeviceError } from "../errors.ts";
import type { GPUDevice } from "../platform/global-types.ts";
import { isSoftware } from "../platform/software-adapter.ts";

/** Optional WebGPU features that kernels have variants for. */
export type Feature = "shader-f16" | "subgroups" | "timestamp-query";

/**
 * Which family of kernel variants to take: register tiles without barriers (software drivers on CPU cores) or tiles
 * in workgroup memory (GPUs).
 */
export type KernelStyle = "register" | "workgroup";

/** What a device is, for reports: everything that can change a number. */
export interface DeviceInfo {
  /** This and the next three as `GPUAdapterInfo` has them; empty where they are not told. */
  vendor: string;
  architecture: string;
  device: string;
  description: string;
  /** True for software drivers (lavapipe, SwiftShader, WARP), also those that a browser gives without saying so. */
  fallback: boolean;
  /** The WebGPU features that the device was opened with. */
  features: readonly string[];
  /** Invocations of a subgroup, if kernels can use subgroups and all have one size. */
  subgroupSize: number | undefined;
  /** Which kernels it prefers. */
  kernels: KernelStyle;
}

/** What a GPUDevice is; `kernels` where they are chosen by hand. */
export function deviceInfo(gpu: GPUDevice, kernels?: KernelStyle): DeviceInfo {
  const { vendor, architecture, device, description } = gpu.adapterInfo;
  const fallback = isSoftware(gpu.adapterInfo);
  return {
    vendor,
    architecture,
    device,
    description,
    fallback,
    features: [...gpu.features].sort(),
    subgroupSize: subgroupSizeOf(gpu),
    kernels: kernels ?? (fallback ? "register" : "workgroup"),
  };
}

function subgroupSizeOf({ features, adapterInfo }: GPUDevice): number | undefined {
  const { subgroupMinSize, subgroupMaxSize } = adapterInfo;
  return features.has("subgroups") && subgroupMinSize === subgroupMaxSize ? subgroupMinSize : undefined;
}

/** Most bytes of a binding, in whole 256s; `cap` makes them fewer. Throws DeviceError for a cap beyond the limit. */
export function bindingLimit(gpu: GPUDevice, cap: number | undefined): number {
  const limit = gpu.limits.maxStorageBufferBindingSize;
  if (cap === undefined) return Math.floor(limit / 256) * 256;
  if (!Number.isInteger(cap) || cap < 256 || cap > limit) {
    throw new DeviceError(`maxBindingBytes: expected a whole number from 256 to ${limit}, found ${cap}`);
  }
  return Math.floor(cap / 256) * 256;
}
