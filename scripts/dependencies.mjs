import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./cache.mjs";
import { command, step } from "./command.mjs";

/** Installs the npm dependencies of a folder as locked, unless they already are. */
export async function ensureDependencies(folder = root, title = "npm dependencies") {
  if (installed(folder)) return;
  await step(
    title,
    () => command("npm", ["ci", "--include=dev", "--no-audit", "--no-fund"], { cwd: folder, show: true }),
    { quiet: true },
  );
}

/** Whether node_modules holds the versions of package-lock.json, going by the record that npm keeps of it. */
function installed(folder) {
  const packagesOf = (file) => JSON.parse(readFileSync(join(folder, file), "utf8")).packages;
  const locked = packagesOf("package-lock.json");
  let found;
  try {
    found = packagesOf("node_modules/.package-lock.json");
  } catch {
    return false;
  }
  // Optional packages are those of other platforms.
  return Object.entries(locked).every(
    ([path, { version, optional }]) => path === "" || optional || found[path]?.version === version,
  );
}
