import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** The checkout. */
export const root = fileURLToPath(new URL("..", import.meta.url));

/** Where set-up keeps drivers, models and a browser; the library looks in the same place (src/platform/node-cache.ts). */
export const cache =
  process.env.XPATCH_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "xpatch");
