/** What libraries made for browsers expect, with the adapter that xpatch itself would choose behind it. */
import { platform } from "../../dist/platform/node.js";

/** Devices that were opened through the injected `navigator.gpu`. */
const devices = [];

export function injectWebGPU() {
  const gpu = {
    async requestAdapter() {
      const adapter = await platform.requestAdapter({});
      const requestDevice = adapter.requestDevice.bind(adapter);
      adapter.requestDevice = async (descriptor) => {
        const device = await requestDevice(descriptor);
        devices.push(device);
        // Work that WebGPU refused would take no time.
        device.addEventListener("uncapturederror", ({ error }) => {
          throw error;
        });
        return device;
      };
      return adapter;
    },
    getPreferredCanvasFormat: () => "bgra8unorm",
  };
  const navigator = { gpu, userAgent: "Node.js", platform: process.platform, languages: [] };
  Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });
  globalThis.self = globalThis;
  globalThis.window = globalThis;
}

/** Waits for all that has been submitted. */
export async function workDone() {
  await Promise.all(devices.map((device) => device.queue.onSubmittedWorkDone()));
}
