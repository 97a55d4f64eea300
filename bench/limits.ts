import { type Limits, measureLimits } from "#src/profile/limits";
import type { Device } from "#src/tensor/device";

const known = new WeakMap<Device, Promise<Limits>>();

/** The limits of a device's adapter, measured once a run. */
export function limitsOf(device: Device): Promise<Limits> {
  const limits = known.get(device) ?? measureLimits(device);
  known.set(device, limits);
  return limits;
}
