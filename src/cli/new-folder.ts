import { createWriteStream } from "node:fs";
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { FolderSink } from "../model/folder-sink.ts";
import { CheckpointError } from "../tensor/errors.ts";
import { showBytes } from "./layout.ts";

export interface WrittenFile {
  readonly name: string;
  readonly bytes: number;
}

/** A model that was written as a folder. */
export interface FolderReport {
  readonly from: string;
  readonly folder: string;
  readonly files: readonly WrittenFile[];
}

/**
 * Writes a folder that does not exist yet, or is empty: next to where it goes, and then moved there, so that a failure
 * leaves nothing behind. Throws CheckpointError for a folder that has files in it.
 */
export async function writeFolder(
  folder: string,
  write: (sink: FolderSink) => Promise<void>,
): Promise<WrittenFile[]> {
  const present = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  if (present.length > 0)
    throw new CheckpointError(`${folder}: expected an empty folder, found ${present.length} files in it`);
  const incoming = `${folder.replace(/[\\/]+$/, "")}.incoming-${process.pid}`;
  const files: WrittenFile[] = [];
  try {
    await mkdir(incoming, { recursive: true });
    await write({
      async write(name, chunks) {
        const file = createWriteStream(join(incoming, name));
        await pipeline(chunks, file);
        files.push({ name, bytes: file.bytesWritten });
      },
    });
    await rm(folder, { recursive: true, force: true });
    await rename(incoming, folder);
  } finally {
    await rm(incoming, { recursive: true, force: true });
  }
  return files;
}

export function formatFolder({ from, folder, files }: FolderReport): string {
  return [`${from} → ${folder}`, ...files.map(({ name, bytes }) => `  ${name}  ${showBytes(bytes)}`)].join(
    "\n",
  );
}
