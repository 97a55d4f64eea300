import { platform } from "#platform";
import { aBoolean, aListOf, aNumber, aString, checkOptions, type Options, oneOf } from "../arguments.ts";
import type { AdapterChoice } from "../platform/platform.ts";
import { adapterName } from "./adapter-name.ts";
import { Device } from "./device.ts";
import type { Feature, KernelStyle } from "./device-info.ts";
import { storedChoices } from "./stored-choices.ts";

const WANTED_FEATURES: readonly Feature[] = ["shader-f16", "subgroups", "timestamp-query"];

/** Which adapter to open, and what to do without. */
export interface DeviceOptions {
  /** Which driver (Node only): a real GPU if there is one, else lavapipe, else SwiftShader. Default "auto". */
  adapter?: AdapterChoice;
  /** Features to do without although the adapter has them. */
  without?: readonly Feature[];
  /** Kernel variants to prefer. Default: "register" on software adapters, "workgroup" on GPUs. */
  kernels?: KernelStyle;
  /** Caps the bytes of one binding below the adapter's limit; larger tensors are bound in several windows. */
  maxBindingBytes?: number;
  /**
   * Whether kernels that compute the same are measured where a kind of work turns up for the first time, a few milliseconds each;
   * the fastest is taken from then on, by later programs too (`xpatch devices` shows them). Otherwise rules decide. Default: on
   * GPUs; on software drivers, whose rules were measured, compiling the candidates would take longer than it gains.
   */
  measure?: boolean;
  /** Dawn toggles to enable (Node only). */
  toggles?: readonly string[];
}

const OPTIONS: Options<DeviceOptions> = {
  adapter: oneOf("auto", "gpu", "lavapipe", "swiftshader"),
  without: aListOf(aString),
  kernels: oneOf("register", "workgroup"),
  maxBindingBytes: aNumber,
  measure: aBoolean,
  toggles: aListOf(aString),
};

/**
 * Opens a WebGPU device with the adapter's real limits and features. The same call works in Node and in browsers.
 *
 * Throws DeviceError, saying what to install, when there is no adapter.
 */
export async function openDevice(options: DeviceOptions = {}): Promise<Device> {
  checkOptions("openDevice", options, OPTIONS);
  const adapter = await platform.requestAdapter({ adapter: options.adapter, toggles: options.toggles });
  const without: ReadonlySet<string> = new Set(options.without);
  const requiredFeatures = WANTED_FEATURES.filter((f) => adapter.features.has(f) && !without.has(f));
  const requiredLimits: Record<string, number> = {};
  for (const name in adapter.limits) {
    const value = (adapter.limits as unknown as Record<string, unknown>)[name];
    if (typeof value === "number") requiredLimits[name] = value;
  }
  const gpu = await adapter.requestDevice({
    requiredFeatures: requiredFeatures as GPUFeatureName[],
    requiredLimits,
  });
  const device = new Device(gpu, options);
  if (options.measure ?? !device.info.fallback)
    device.choices = await storedChoices(adapterName(device.info));
  return device;
}
