import { homedir } from "node:os";
import { join } from "node:path";

/**
 * The folder for what set-up fetches (drivers, models): XPATCH_CACHE, else `xpatch` in XDG_CACHE_HOME, else
 * ~/.cache/xpatch. scripts/cache.mjs says the same for the scripts that run before anything is built.
 */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  return env.XPATCH_CACHE || join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "xpatch");
}

/** The folder of a model that set-up fetches, whether it is there or not. */
export function cachedModel(name: string): string {
  return join(cacheFolder(), "models", name);
}
