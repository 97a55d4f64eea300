import { mkdir, open, readdir } from "node:fs/promises";
import { CheckpointError, FileError } from "../errors.ts";
import type { ByteSource } from "./platform.ts";

/**
 * A file of a local folder, for random access.
 *
 * @throws CheckpointError when it does not exist, is not a regular file or cannot be read.
 */
export async function openFile(path: string): Promise<ByteSource> {
  const file = await open(path, "r").catch((error: Error) => {
    throw new CheckpointError(`cannot open ${path}: ${error.message}`, { cause: error });
  });
  const status = await file.stat();
  if (!status.isFile()) {
    await file.close();
    throw new CheckpointError(
      `cannot read ${path}: expected a file, found ${status.isDirectory() ? "a folder" : "something else"}`,
    );
  }
  return {
    name: path,
    size: status.size,
    async read(offset, length) {
      if (!(offset >= 0 && length >= 0 && offset + length <= status.size)) {
        throw new CheckpointError(
          `${path}: expected ${length} bytes at offset ${offset}, but the file has ${status.size} bytes`,
        );
      }
      const bytes = new Uint8Array(length);
      let done = 0;
      while (done < length) {
        const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
        if (bytesRead === 0) {
          throw new CheckpointError(
            `${path}: the file became shorter while it was read (was ${status.size} bytes)`,
          );
        }
        done += bytesRead;
      }
      return bytes;
    },
    close: () => file.close(),
  };
}

/** The folders in a local folder (links, which may lead to one, included); undefined when it is none. */
export async function subfolders(path: string): Promise<string[] | undefined> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => undefined);
  return entries?.filter((e) => e.isDirectory() || e.isSymbolicLink()).map(({ name }) => name);
}

/** Names of all that lies in a local folder; undefined when it is none. */
export function filesIn(path: string): Promise<string[] | undefined> {
  return readdir(path).catch(() => undefined);
}

/** Makes a local folder, and those that it lies in. Throws FileError where it cannot, as where a file has its name. */
export async function makeFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true }).catch((cause: Error) => {
    throw new FileError(`cannot make the folder ${path}: ${cause.message}`, { cause });
  });
}
