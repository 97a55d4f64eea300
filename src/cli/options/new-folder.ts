import { mkdir, readdir, realpath, rename, rm, rmdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { CheckpointError, FileError } from "../../errors.ts";
import type { FolderSink } from "../../model/checkpoint/source/folder-sink.ts";
import { keep, removeOnExit } from "../../platform/node-exit.ts";
import { showSystemError, writeWhole } from "../../platform/node-write.ts";
import { showBytes } from "../terminal/layout.ts";

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
  await checkNewFolder(folder);
  // Of a link, the folder that it leads to.
  const target = await realpath(folder).catch(() => resolve(folder));
  const incoming = `${target}.incoming-${process.pid}`;
  const files: WrittenFile[] = [];
  try {
    removeOnExit(incoming);
    await mkdir(incoming, { recursive: true }).catch((error) => refuse(folder, error));
    await write({
      async write(name, chunks) {
        await mkdir(dirname(join(incoming, name)), { recursive: true });
        const bytes = await writeWhole(join(incoming, name), chunks).catch((error) => {
          // Where the file was to be in the end.
          if (error instanceof FileError) error.message = error.message.replace(incoming, folder);
          throw error;
        });
        files.push({ name, bytes });
      },
    });
    // Only while it is still empty: somebody else may have been writing there all the while.
    await rmdir(target).catch((error) => error.code === "ENOENT" || refuse(folder, error));
    await rename(incoming, target).catch((error) => refuse(folder, error));
  } finally {
    await rm(incoming, { recursive: true, force: true });
    keep(incoming);
  }
  return files;
}

/** Throws CheckpointError for a folder that has files in it, FileError for what is no folder. */
export async function checkNewFolder(folder: string): Promise<void> {
  const present = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    return refuse(folder, error);
  });
  if (present.length > 0)
    throw new CheckpointError(`${folder}: expected an empty folder, found ${present.length} files in it`);
}

function refuse(folder: string, cause: NodeJS.ErrnoException): never {
  throw new FileError(`cannot write the folder ${folder}: ${showSystemError(cause)}`, { cause });
}

export function formatFolder({ from, folder, files }: FolderReport): string {
  return [`${from} → ${folder}`, ...files.map(({ name, bytes }) => `  ${name}  ${showBytes(bytes)}`)].join(
    "\n",
  );
}
