import { platform } from "#platform";
import { nearest } from "../../../nearest.ts";

/** Whether the folder that `path` would be in is there. */
export async function isInFolder(path: string): Promise<boolean> {
  const end = path.replace(/[\\/]+$/, "").search(/[\\/][^\\/]*$/);
  return end > 0 && (await platform.subfolders(path.slice(0, end))) !== undefined;
}

/** What is wrong with a local path that holds no model: that there is no such folder, and the nearest, or what is not in it. */
export async function missingFolder(path: string): Promise<string> {
  if (await platform.subfolders(path)) return "the folder is there, but none of these files is in it";
  const near = await nearestFolder(path);
  return `there is no such folder${near === undefined ? "" : ` (the nearest is ${near})`}`;
}

/** The path with each part that is not there replaced by the nearest that is; undefined when there is nothing near. */
async function nearestFolder(path: string): Promise<string | undefined> {
  const [, root = "", rest = ""] = /^([a-z]:[\\/]|[\\/]*)(.*)$/i.exec(path) ?? [];
  let found = root;
  for (const part of rest.split(/[\\/]+/).filter((name) => name !== "")) {
    const names = (await platform.subfolders(found === "" ? "." : found)) ?? [];
    const isThere = part === "." || part === ".." || names.includes(part);
    // What has no more in common is no typing error.
    const name = isThere ? part : nearest(part, names, Math.ceil(part.length / 2));
    if (name === undefined) return undefined;
    found += found === root ? name : `/${name}`;
  }
  return found;
}
