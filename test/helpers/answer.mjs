/**
 * Opens a device with the built library and answers with the adapter and with what the tiny Llama says, as a worker
 * thread, a forked process or a worker of a cluster. Workers wait for each other at `workerData.start`.
 */
import { parentPort, workerData } from "node:worker_threads";
import { loadModel, openDevice } from "../../dist/index.js";

const { adapter, model, start, workers } = workerData ?? JSON.parse(process.env.XPATCH_TEST_TASK);
const post = (message) => (parentPort ? parentPort.postMessage(message) : process.send(message));

try {
  if (start) {
    Atomics.add(start, 0, 1);
    while (Atomics.load(start, 0) < workers) Atomics.wait(start, 0, 0, 1);
  }
  const device = await openDevice({ adapter });
  const answer = { description: device.info.description };
  if (model) {
    const llama = await loadModel(model, { device });
    const prompt = llama.prompt("The capital of France is Paris. The capital of Japan is");
    answer.ids = [...(await llama.generate(prompt, { maxNewTokens: 5 })).ids];
  }
  // A thread that ends while Dawn still owes it something takes the process along.
  await device.destroy();
  post(answer);
} catch (error) {
  post({ error: `${error.name}: ${error.message}` });
}
if (!parentPort) process.disconnect();
