import { platform } from "#platform";
import { Device } from "../../src/tensor/device.ts";

/** A device whose driver has no memory left while `short.of` says so. */
export async function shortDevice() {
  const gpu = await (await platform.requestAdapter({})).requestDevice();
  const short = { of: (_buffer: GPUBufferDescriptor) => false };
  let failing = 0;
  const scopes: { filter: string; failed: boolean }[] = [];
  const device = new Proxy(gpu, {
    get(target, name) {
      if (name === "pushErrorScope") {
        return (filter: GPUErrorFilter) => {
          scopes.push({ filter, failed: false });
          target.pushErrorScope(filter);
        };
      }
      if (name === "popErrorScope") {
        return async () => {
          const scope = scopes.pop()!;
          const found = await target.popErrorScope();
          return scope.failed ? { message: "out of memory" } : found;
        };
      }
      if (name === "createBuffer") {
        return (descriptor: GPUBufferDescriptor) => {
          if (!short.of(descriptor)) return target.createBuffer(descriptor);
          failing++;
          scopes.findLast(({ filter }) => filter === "out-of-memory")!.failed = true;
          return target.createBuffer({ ...descriptor, size: 2 ** 50 }); // invalid
        };
      }
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  return { device: new Device(device), short, failures: () => failing };
}
