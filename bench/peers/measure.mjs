/**
 * Measures one peer: `node measure.mjs <library> <backend> <request>`, the request being JSON { n, effort, driver }
 * with the software driver in use, if any. Prints a line of JSON: the time of one product of two n x n matrices of f32.
 */
import { timeRounds } from "../../dist/bench/harness.js";
import { checkProduct, operands } from "../../dist/bench/product.js";

const OPEN = {
  "onnxruntime-node webgpu": async () => (await import("./onnxruntime.mjs")).openWebGPU,
  "onnxruntime-node cpu": async () => (await import("./onnxruntime.mjs")).openCPU,
  "@tensorflow/tfjs-backend-webgpu webgpu": async () => (await import("./tfjs.mjs")).open,
  "@jax-js/jax webgpu": async () => (await import("./jax-js.mjs")).open,
  "webgpu-torch webgpu": async () => (await import("./webgpu-torch.mjs")).open,
};

const [library, backend, request] = process.argv.slice(2);
const { n, effort, driver } = JSON.parse(request);

const { a, b } = operands(n);
const open = await OPEN[`${library} ${backend}`]();
const { run, sync, result, productsPerRun = 1 } = await open(n, a, b, driver);

checkProduct(await result(), n);
const { bestMs, medianMs } = await timeRounds(run, sync, effort);
console.log(JSON.stringify({ bestMs: bestMs / productsPerRun, medianMs: medianMs / productsPerRun }));
process.exit();
