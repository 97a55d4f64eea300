import { randomBytes } from "node:crypto";
import { type FileHandle, open, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { FileError } from "../errors.ts";
import { keep, removeOnExit } from "./node-exit.ts";

/** What goes into a file: all of it, or chunks as they come. */
export type Content = string | Uint8Array | AsyncIterable<Uint8Array>;

/**
 * Writes a file so that others, and whoever comes after a crash, find the old one or all of the new one: under a
 * temporary name beside it, flushed to the disk, then renamed. A failure leaves the old file and no temporary one. A link is
 * followed, and a device or pipe (`/dev/stdout`) is written to as it is. Returns the number of bytes.
 *
 * @throws FileError when the file cannot be written; what the chunks throw comes through as it is
 */
export async function writeWhole(path: string, content: Content): Promise<number> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) throw new FileError(`cannot write ${path}: expected a file, found a folder`);
  if (found && !found.isFile()) return writeInto(path, "w", path, content);
  const target = found ? await realpath(path) : path;
  const temporary = `${target}.${process.pid}-${randomBytes(3).toString("hex")}.tmp`;
  removeOnExit(temporary);
  try {
    const size = await writeInto(temporary, "wx", path, content, found?.mode);
    await rename(temporary, target).catch((error) => refuse(path, error));
    await syncFolder(dirname(target));
    return size;
  } finally {
    await rm(temporary, { force: true });
    keep(temporary);
  }
}

/** Writes content into a file and flushes it; messages name `path`. */
async function writeInto(
  file: string,
  flags: "w" | "wx",
  path: string,
  content: Content,
  mode?: number,
): Promise<number> {
  const handle = await open(file, flags).catch((error) => refuse(path, error));
  try {
    if (mode !== undefined) await handle.chmod(mode & 0o777).catch((error) => refuse(path, error));
    const size = await writeChunks(handle, path, content);
    // Pipes and terminals have nothing to flush.
    if (flags === "wx") await handle.sync().catch((error) => refuse(path, error));
    return size;
  } finally {
    await handle.close();
  }
}

async function writeChunks(handle: FileHandle, path: string, content: Content): Promise<number> {
  let size = 0;
  const chunks = typeof content === "string" || content instanceof Uint8Array ? [content] : content;
  for await (const chunk of chunks) {
    const bytes = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await handle
        .write(bytes, done, bytes.length - done)
        .catch((error) => refuse(path, error));
      done += bytesWritten;
    }
    size += bytes.length;
  }
  return size;
}

/** Makes a rename last; where a folder cannot be flushed (Windows), the system sees to that by itself. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r").catch(() => undefined);
  try {
    await handle?.sync();
  } catch {
    // Not all file systems can.
  } finally {
    await handle?.close();
  }
}

function refuse(path: string, cause: NodeJS.ErrnoException): never {
  throw new FileError(`cannot write ${path}: ${showSystemError(cause)}`, { cause });
}

/** "ENOSPC: no space left on device, write" → "no space left on device (ENOSPC)" */
export function showSystemError({ code, message }: NodeJS.ErrnoException): string {
  const [, reason] = /^[A-Z]\w+: ([^,]+)/.exec(message) ?? [];
  return code && reason ? `${reason} (${code})` : message;
}
