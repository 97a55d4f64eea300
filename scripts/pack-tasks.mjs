import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./cache.mjs";
import { filesIn } from "./pack-model.mjs";

/**
 * The tasks and their pictures as one file, so that a page asks once for them: four bytes with the length of an index (little-endian),
 * the index (JSON: path to [offset, length]), the files. web/src/tasks.ts reads it.
 */
export function packTasks() {
  const index = {};
  const contents = [];
  let at = 0;
  for (const file of filesIn("tasks")) {
    if (!/\.(json|png)$/.test(file)) continue;
    const bytes = readFileSync(join(root, file));
    index[file.replace(/^tasks[\\/]/, "").replaceAll("\\", "/")] = [at, bytes.length];
    contents.push(bytes);
    at += bytes.length;
  }
  const header = Buffer.from(JSON.stringify(index));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(header.length);
  return Buffer.concat([length, header, ...contents]);
}
