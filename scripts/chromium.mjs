import { chmodSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { libraryPath, sharedLibraries, unpackPackages, updatePackageLists, versionsOf } from "./apt.mjs";
import { cache, root } from "./cache.mjs";
import { command, SetupError, step } from "./command.mjs";

const folder = join(cache, "chromium");

/** The command that starts the browser of the tests, whichever it is. */
export const chromium = join(folder, "chromium");

const KNOWN_BROWSERS = [
  "/usr/bin/chromium",
  "/usr/bin/google-chrome",
  "/usr/bin/google-chrome-stable",
  "/opt/google/chrome/chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
];

/**
 * Sees to a Chromium for the browser tests: one that the system has, else Debian's package, unpacked into the cache
 * folder without root, else Playwright's own build.
 */
export async function ensureChromium() {
  if (existsSync(chromium) && (await runs())) return chromium;
  const system = [process.env.XPATCH_CHROMIUM, ...KNOWN_BROWSERS].find((path) => path && existsSync(path));
  if (system) {
    writeLauncher(system);
    if (await runs()) return chromium;
  }
  const tried = [];
  for (const [title, install, quiet] of [
    ["Chromium (a package of the system's release)", fromPackage, false],
    ["Chromium (Playwright's build)", fromPlaywright, true],
  ]) {
    try {
      await step(title, install, { quiet });
      if (await runs()) return chromium;
      tried.push(`${title}: does not start`);
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      tried.push(`${title}: ${error.message}`);
    }
  }
  throw new SetupError(
    "the browser tests need Chromium or Chrome. Install one and name it in XPATCH_CHROMIUM.\n" +
      `Looked for ${KNOWN_BROWSERS.join(", ")}.\n${tried.join("\n")}`,
  );
}

function runs() {
  return command(chromium, ["--version"]).then(
    () => true,
    () => false,
  );
}

/** The release's package and what it needs, without root. */
async function fromPackage(progress) {
  await updatePackageLists();
  const [found] = await versionsOf("chromium");
  if (!found) throw new SetupError("this system's release has no package called chromium");
  rmSync(folder, { recursive: true, force: true });
  await unpackPackages([`chromium/${found.suite}`], folder, progress);
  const executable = join(folder, "usr", "lib", "chromium", "chromium");
  // Ubuntu's package of this name holds no browser, only a pointer to a snap.
  if (!existsSync(executable)) throw new SetupError("this system's package chromium holds no browser");
  writeLauncher(executable, libraryPath(sharedLibraries(folder)));
}

async function fromPlaywright() {
  rmSync(folder, { recursive: true, force: true });
  const playwright = join(root, "node_modules", "playwright-core");
  process.env.PLAYWRIGHT_BROWSERS_PATH = folder;
  await command(process.execPath, [join(playwright, "cli.js"), "install", "chromium"], { show: true });
  const { chromium: browser } = await import("playwright-core");
  writeLauncher(browser.executablePath());
}

/** Writes the command that starts a browser with the shared libraries that came with it. */
function writeLauncher(executable, searchPath = "") {
  mkdirSync(folder, { recursive: true });
  const path = searchPath && `export LD_LIBRARY_PATH="${searchPath}"\n`;
  const incoming = `${chromium}.incoming`;
  writeFileSync(incoming, `#!/bin/sh\n${path}exec "${executable}" "$@"\n`);
  chmodSync(incoming, 0o755);
  renameSync(incoming, chromium);
}
