import { CheckpointError } from "../errors.ts";
import type { ByteSource } from "./platform.ts";

/** How a pointer file begins, and the size that its specification allows (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md). */
const BEGINNING = "version https://git-lfs.github.com/spec/";
const MAX_BYTES = 1024;

/** What to say of a file that is a Git LFS pointer, with the size of what it stands for; undefined for all other bytes. */
export function lfsPointerProblem(bytes: Uint8Array): string | undefined {
  if (bytes.length > MAX_BYTES) return undefined;
  const text = String.fromCharCode(...bytes);
  if (!text.startsWith(BEGINNING)) return undefined;
  const [, size] = /^size (\d+)$/m.exec(text) ?? [];
  return (
    `this is a Git LFS pointer, not the file${size ? ` of ${size} bytes that it stands for` : ""}; ` +
    'run "git lfs install" and then "git lfs pull" in its repository, or download the file itself'
  );
}

/** Throws CheckpointError for a file that is a Git LFS pointer. Reads only what is short enough to be one. */
export async function refuseLfsPointer(source: ByteSource): Promise<void> {
  if (source.size > MAX_BYTES) return;
  const problem = lfsPointerProblem(await source.read(0, source.size));
  if (problem) throw new CheckpointError(`${source.name}: ${problem}`);
}
