/** webgpu-torch. It has no way to free a tensor but the garbage collector. */
import { injectWebGPU, workDone } from "./environment.mjs";

export async function open(n, a, b) {
  injectWebGPU();
  const { default: torch } = await import("webgpu-torch");
  await torch.initWebGPUAsync();
  const rows = (values) => Array.from({ length: n }, (_, i) => [...values.subarray(i * n, (i + 1) * n)]);
  const [x, y] = [a, b].map((values) =>
    torch.tensor({ data: rows(values), dtype: "float32", device: "webgpu" }),
  );
  return {
    run: () => x.mm(y),
    sync: workDone,
    async result() {
      return Float32Array.from((await x.mm(y).toArrayAsync()).flat());
    },
  };
}
