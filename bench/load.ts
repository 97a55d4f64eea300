/**
 * Loads a model in a fresh process, `node load.js <folder>`, and prints a line of JSON: the time it took and the memory
 * of the process. Fresh, because the highest that a process's memory has been never comes down again.
 */
import { loadModel } from "#src/patching/model";
import { openDevice } from "#src/tensor/open-device";

export interface LoadFigures {
  loadMs: number;
  cpuMs: number;
  /** Memory of the process with the device open and nothing loaded; at its highest; and afterwards. */
  baseBytes: number;
  peakBytes: number;
  afterBytes: number;
  weightBytes: number;
  /** Of all buffers when they were most: the weights', and those that hold one until its layout has been changed. */
  bufferBytes: number;
}

await using device = await openDevice();
const baseBytes = process.memoryUsage.rss();
let [weightBytes, bufferBytes] = [0, 0];
const cpu = process.cpuUsage();
const start = performance.now();
using _model = await loadModel(process.argv[2]!, {
  device,
  onProgress({ totalBytes }) {
    weightBytes = totalBytes;
    const { liveBytes, freeBytes } = device.memory;
    bufferBytes = Math.max(bufferBytes, liveBytes + freeBytes);
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
  bufferBytes,
};
console.log(JSON.stringify(figures));
