import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { XpatchError } from "xpatch";
import { cacheFolder } from "#src/platform/node-cache";
import { packageFolder } from "#src/platform/node-package";

const NAMES = ["redis-server", "valkey-server"];
/** The oldest that BullMQ advises. */
const OLDEST = [6, 2] as const;

/**
 * The server that a grid starts where it is told of none: that of XPATCH_REDIS_SERVER, the one that set-up fetched
 * (scripts/redis.mjs), or the system's. Throws XpatchError where there is none, or one that is too old.
 */
export async function redisProgram(env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const program = env.XPATCH_REDIS_SERVER || [fetched(env), ...inPath(env)].find((path) => existsSync(path));
  const remedy = `"npm run setup -- redis" in ${packageFolder()} fetches one without root; --redis takes one that runs`;
  if (!program) {
    throw new XpatchError(
      `no Redis or Valkey server on this machine (looked for ${fetched(env)} and in PATH). ${remedy}`,
    );
  }
  const said = await promisify(execFile)(program, ["--version"]).then(
    ({ stdout }) => stdout,
    (cause: Error) => {
      throw new XpatchError(`${program} does not run: ${cause.message.trim()}. ${remedy}`, { cause });
    },
  );
  const [major, minor] = /\bv=(\d+)\.(\d+)/.exec(said)?.slice(1).map(Number) ?? [0, 0];
  if (major! < OLDEST[0] || (major === OLDEST[0] && minor! < OLDEST[1])) {
    throw new XpatchError(
      `${program}: expected Redis ${OLDEST.join(".")} or later, or Valkey; found "${said.trim()}". ${remedy}`,
    );
  }
  return program;
}

function fetched(env: NodeJS.ProcessEnv): string {
  return join(cacheFolder(env), "redis", "redis-server");
}

function inPath({ PATH = "" }: NodeJS.ProcessEnv): string[] {
  const folders = PATH.split(delimiter).filter(Boolean);
  return folders.flatMap((folder) => NAMES.map((name) => join(folder, name)));
}
