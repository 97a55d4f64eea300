import { readFile } from "node:fs/promises";
import { decodeTaskVectors, type TaskVectorOrigin, type TaskVectors } from "../patching/task-vectors.ts";
import type { Device } from "../tensor/device.ts";

/** A file that `xpatch extract` wrote, in memory: read before a model is loaded, so that a wrong path is found at once. */
export interface VectorFile {
  readonly path: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

export async function readVectorFile(path: string): Promise<VectorFile> {
  return { path, bytes: new Uint8Array(await readFile(path)) };
}

/** Throws CheckpointError when the file holds something else. */
export function vectorsOf({ path, bytes }: VectorFile, device: Device): Promise<TaskVectors> {
  return decodeTaskVectors(bytes, device, path);
}

/** Where vectors come from, in a line. */
export function formatOrigin({ model, site, position, prompts, promptHash }: TaskVectorOrigin): string {
  return `${site} at ${position}, mean of ${prompts} prompts (${promptHash.slice(0, 12)}), from ${model}`;
}
