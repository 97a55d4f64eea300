import type { Device } from "../../src/tensor/device.ts";
import { type DeviceOptions, openDevice } from "../../src/tensor/open-device.ts";

const shared = globalThis as { __xpatchTestDevices?: Map<string, Promise<Device>> };

/** One device per set of options for a whole test file; opening one costs more than most tests. */
export function testDevice(options: DeviceOptions = {}): Promise<Device> {
  shared.__xpatchTestDevices ??= new Map();
  const key = JSON.stringify(options);
  let device = shared.__xpatchTestDevices.get(key);
  if (!device) {
    device = openDevice(options);
    shared.__xpatchTestDevices.set(key, device);
  }
  return device;
}
