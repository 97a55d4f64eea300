import { readFile } from "node:fs/promises";
import {
  parseTaskVectors,
  type StoredTaskVectors,
  type TaskVectorOrigin,
} from "../../analysis/vectors/task-vectors.ts";

/** Reads a file that `xpatch extract` wrote. Throws CheckpointError when it holds something else. */
export async function readVectorFile(path: string): Promise<StoredTaskVectors> {
  return parseTaskVectors(new Uint8Array(await readFile(path)), path);
}

/** Where vectors come from, in a line. */
export function formatOrigin({ model, site, position, prompts, promptHash }: TaskVectorOrigin): string {
  return `${site} at ${position}, mean of ${prompts} prompts (${promptHash.slice(0, 12)}), from ${model}`;
}
