/**
 * Loads a model in a fresh process, `node load.js <folder>`, and prints a line of JSON: the time it took and the memory
 * of the process. Fresh, because the highest that a process's memory has been never comes down again.
 */
import { loadModel } from "#src/patching/model";
import { openDevice } from "#src/tensor/device";

export interface LoadFigures {
  loadMs: number;
  cpuMs: number;
  /** Memory of the process with the device open and nothing loaded; at its highest; and afterwards. */
  baseBytes: number;
  peakBytes: number;
  afterBytes: number;
  weightBytes: number;
  /** Of the buffers that hold the weights in the end. */
  bufferBytes: number;
}

await using device = await openDevice();
const baseBytes = process.memoryUsage.rss();
let weightBytes = 0;
const cpu = process.cpuUsage();
const start = performance.now();
using _model = await loadModel(process.argv[2]!, {
  device,
  onProgress({ totalBytes }) {
    weightBytes = totalBytes;
  },
});
const loadMs = performance.now() - start;
const { user, system } = process.cpuUsage(cpu);
const figures: LoadFigures = {
  loadMs,
  cpuMs: (user + system) / 1000,
  baseBytes,
  peakBytes: process.resourceUsage().maxRSS * 1024, // the system's own record, in kilobytes
  afterBytes: process.memoryUsage.rss(),
  weightBytes,
  bufferBytes: device.memory.liveBytes,
};
console.log(JSON.stringify(figures));
