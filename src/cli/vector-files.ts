import { readFile } from "node:fs/promises";
import { decodeTaskVectors, type TaskVectorOrigin, type TaskVectors } from "../patching/task-vectors.ts";
import type { Device } from "../tensor/device.ts";

/** Task vectors from a file that `xpatch extract` wrote. Throws CheckpointError for other files. */
export async function readVectors(path: string, device: Device): Promise<TaskVectors> {
  return await decodeTaskVectors(new Uint8Array(await readFile(path)), device, path);
}

/** Where vectors come from, in a line. */
export function formatOrigin({ model, site, position, prompts, promptHash }: TaskVectorOrigin): string {
  return `${site} at ${position}, mean of ${prompts} prompts (${promptHash.slice(0, 12)}), from ${model}`;
}
