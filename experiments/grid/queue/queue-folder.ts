import { randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { FileError } from "xpatch";

/** Where a store keeps what belongs to its queue: an id, and the server of its own if it has one. Nobody else may read it. */
export function queueFolder(store: string): string {
  return join(store, "queue");
}

/** Of a store in any server: made up by whoever comes first. */
export function gridId(store: string): string {
  const folder = queueFolder(store);
  const path = join(folder, "id");
  if (!existsSync(folder)) {
    mkdirSync(folder, { recursive: true });
    chmodSync(folder, 0o700);
  }
  if (!existsSync(path)) create(path, randomBytes(8).toString("hex"));
  const id = readFileSync(path, "utf8").trim();
  if (/^[0-9a-f]{16}$/.test(id)) return id;
  throw new FileError(`${path} is damaged: expected 16 hex digits; delete it, and serve the grid anew`);
}

/** Creates a file, whole from the first moment; one that is there stays. */
function create(path: string, text: string): void {
  const own = `${path}.${process.pid}.tmp`;
  writeFileSync(own, text);
  try {
    linkSync(own, path);
  } catch (error) {
    // Not all file systems have links.
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") renameSync(own, path);
  } finally {
    rmSync(own, { force: true });
  }
}
