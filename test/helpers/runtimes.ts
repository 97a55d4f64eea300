import { existsSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder } from "../../src/platform/node-cache.ts";

const folder = join(cacheFolder(), "runtimes");
const suffix = process.platform === "win32" ? ".exe" : "";

/** What set-up fetched for the tests: a program, or a package's folder. */
export function fetched(name: "bun" | "deno" | "node_modules/zeromq"): string {
  const path = join(folder, name.includes("/") ? name : `${name}${suffix}`);
  if (!existsSync(path)) {
    throw new Error(
      `this test needs ${name}, expected at ${path}: "npm run setup -- runtimes" fetches it from npm`,
    );
  }
  return path;
}
