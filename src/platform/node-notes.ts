import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { cacheFolder } from "./node-cache.ts";
import { writeWhole } from "./node-write.ts";

/** XPATCH_NOTES is for tests, which are not to change what this machine has measured. */
const folder = () => process.env["XPATCH_NOTES"] || join(cacheFolder(), "notes");
const fileOf = (name: string) => join(folder(), name);

export async function readNote(name: string): Promise<string | undefined> {
  return await readFile(fileOf(name), "utf8").catch(() => undefined);
}

/** A note that cannot be kept (the disk is full, or not ours) is done without. */
export async function writeNote(name: string, text: string): Promise<void> {
  try {
    await mkdir(folder(), { recursive: true });
    await writeWhole(fileOf(name), text);
  } catch {}
}
