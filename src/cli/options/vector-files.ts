import { readFile } from "node:fs/promises";
import { type ControlVector, decodeControlVector } from "../../analysis/vectors/control-vector.ts";
import {
  parseTaskVectors,
  type StoredTaskVectors,
  type TaskVectorOrigin,
} from "../../analysis/vectors/task-vectors.ts";
import { CheckpointError } from "../../errors.ts";

/** Reads a file that `xpatch extract` wrote. Throws CheckpointError when it holds something else. */
export async function readVectorFile(path: string): Promise<StoredTaskVectors> {
  const bytes = new Uint8Array(await readFile(path));
  if (!isGguf(bytes)) return parseTaskVectors(bytes, path);
  throw new CheckpointError(
    `${path}: expected task vectors, a safetensors file, which are put in place of activations; found GGUF. ` +
      "Control vectors are added: generate takes them as --control, and as --edit add:…",
  );
}

/** Vectors that edits take: task vectors, or a control vector, whose directions can be added only. */
export async function readVectorsToEdit(path: string): Promise<StoredTaskVectors | ControlVector> {
  const bytes = new Uint8Array(await readFile(path));
  return isGguf(bytes) ? decodeControlVector(bytes, path) : parseTaskVectors(bytes, path);
}

/** Reads a control vector. Throws CheckpointError for other files. */
export async function readControlFile(path: string): Promise<ControlVector> {
  const bytes = new Uint8Array(await readFile(path));
  if (isGguf(bytes)) return decodeControlVector(bytes, path);
  throw new CheckpointError(
    `${path}: expected a control vector, a GGUF file; xpatch control-vector makes one of task vectors`,
  );
}

function isGguf(bytes: Uint8Array): boolean {
  return new TextDecoder().decode(bytes.subarray(0, 4)) === "GGUF";
}

/** Where vectors come from, in a line. */
export function formatOrigin({ model, site, position, prompts, promptHash }: TaskVectorOrigin): string {
  return `${site} at ${position}, mean of ${prompts} prompts (${promptHash.slice(0, 12)}), from ${model}`;
}
