import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
// @ts-expect-error: plain JavaScript
import { buildPage, hashOfPage } from "../../../scripts/build-web.mjs";
import { ROOT } from "../../helpers/rooms.ts";

/** The folder of the built page of these very sources: made by whoever needs it first, kept in .cache. */
export async function builtPage(): Promise<string> {
  const folder = join(ROOT, ".cache", "web");
  const page = join(folder, hashOfPage(createHash("sha256")).digest("hex").slice(0, 16));
  if (existsSync(page)) return page;
  mkdirSync(folder, { recursive: true });
  const incoming = join(folder, `incoming-${process.pid}`);
  await buildPage(incoming);
  try {
    renameSync(incoming, page);
  } catch {
    rmSync(incoming, { recursive: true, force: true }); // another process was faster
  }
  return page;
}

/** A file of the built page by its path. */
export function readBuilt(page: string, path: string): Buffer | undefined {
  const file = join(page, path);
  return file.startsWith(page) && existsSync(file) ? readFileSync(file) : undefined;
}
