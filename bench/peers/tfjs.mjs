/** @tensorflow/tfjs-backend-webgpu. */
import { injectWebGPU, workDone } from "./environment.mjs";

export async function open(n, a, b) {
  injectWebGPU();
  const tf = await import("@tensorflow/tfjs-core");
  await import("@tensorflow/tfjs-backend-webgpu");
  await tf.setBackend("webgpu");
  const [x, y] = [a, b].map((values) => tf.tensor2d(values, [n, n]));
  return {
    run: () => tf.matMul(x, y).dispose(),
    sync() {
      // It collects commands and submits them in batches; without any, submitting fails.
      const backend = tf.backend();
      backend.endComputePassEncoder();
      if (backend.commandEncoder) backend.submitQueue();
      return workDone();
    },
    async result() {
      return tf.matMul(x, y).data();
    },
  };
}
