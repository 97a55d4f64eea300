import { cpSync, existsSync, linkSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cache, root } from "./cache.mjs";
import { command, SetupError, step } from "./command.mjs";

const folder = join(cache, "runtimes");
const locked = join(root, "scripts", "runtimes");

const windows = process.platform === "win32";
const suffix = windows ? ".exe" : "";
const cpu = process.arch === "arm64" ? "aarch64" : process.arch;
const glibc = process.platform === "linux" ? "-glibc" : "";

/** This machine's binaries, in packages that npm's `bun` and `deno` would only look up. */
const BINARIES = {
  bun: `@oven/bun-${windows ? "windows" : process.platform}-${cpu}/bin/bun${suffix}`,
  deno: `@deno/${process.platform}-${process.arch}${glibc}/deno${suffix}`,
};

/**
 * Sees to Bun, Deno and a ZeroMQ client for the tests: from npm into the cache folder, as locked in scripts/runtimes,
 * without running install scripts. They are no dependencies of the checkout, since they take 230 MB that only tests need.
 */
export async function ensureRuntimes() {
  if (isCurrent()) return folder;
  await step("Bun, Deno and ZeroMQ, for the tests", async () => {
    const incoming = `${folder}.incoming-${process.pid}`;
    try {
      mkdirSync(incoming, { recursive: true });
      for (const file of ["package.json", "package-lock.json"])
        cpSync(join(locked, file), join(incoming, file));
      await command("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: incoming });
      for (const [name, path] of Object.entries(BINARIES)) {
        const binary = join(incoming, "node_modules", path);
        if (!existsSync(binary))
          throw new SetupError(`npm has no ${name} for ${process.platform} on ${process.arch}`);
        const program = join(incoming, `${name}${suffix}`);
        linkSync(binary, program);
        await command(program, ["--version"]);
      }
      rmSync(folder, { recursive: true, force: true });
      renameSync(incoming, folder);
    } finally {
      rmSync(incoming, { recursive: true, force: true });
    }
  });
  return folder;
}

/** Whether the folder, which is there as a whole or not at all, was made from this lock. */
function isCurrent() {
  const file = join(folder, "package-lock.json");
  return (
    existsSync(file) && readFileSync(file, "utf8") === readFileSync(join(locked, "package-lock.json"), "utf8")
  );
}
