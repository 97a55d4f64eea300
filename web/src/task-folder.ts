import { CheckpointError } from "../../src/errors.ts";
import { type Folder, memoryFolder } from "../../src/model/checkpoint/source/folder.ts";

/** The files of a packed folder: the inverse of scripts/pack-tasks.mjs. Nothing is read before it is opened. */
export async function unpackFolder(file: Blob, name: string): Promise<Folder> {
  const length = new DataView(await file.slice(0, 4).arrayBuffer()).getUint32(0, true);
  const begin = 4 + length;
  if (begin > file.size) throw new CheckpointError(`${name}: the file is damaged`);
  const index: Record<string, [number, number]> = JSON.parse(await file.slice(4, begin).text());
  const files = Object.entries(index).map(
    ([path, [at, bytes]]) => [path, file.slice(begin + at, begin + at + bytes)] as const,
  );
  return memoryFolder(new Map(files), name);
}
