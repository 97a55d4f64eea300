/** @jax-js/jax. */
import { injectWebGPU, workDone } from "./environment.mjs";

export async function open(n, a, b) {
  injectWebGPU();
  const jax = await import("@jax-js/jax");
  await jax.init("webgpu");
  jax.defaultDevice("webgpu");
  const { numpy } = jax;
  const [x, y] = [a, b].map((values) => numpy.array(values).reshape([n, n]));
  // References are counted, and nothing is computed before somebody asks.
  const multiply = () => numpy.matmul(x.ref, y.ref);
  let pending = [];
  return {
    run() {
      pending.push(multiply());
    },
    async sync() {
      await Promise.all(pending.map((product) => product.blockUntilReady()));
      for (const product of pending) product.dispose();
      pending = [];
      await workDone();
    },
    result: () => multiply().data(),
  };
}
