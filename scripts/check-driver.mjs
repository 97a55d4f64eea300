import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { cache, root } from "./cache.mjs";

const SELF_TEST = join(root, "scripts", "self-test.mjs");
/** It takes some seconds, and more on a busy machine; a driver that hangs would take for ever. */
const LIMIT_MS = 300_000;

/**
 * Runs the self-test on a driver, in a process of its own. The verdict is `right`, or `wrong`, `crashed` or `hung` with what was seen.
 * `cacheFolder`: where the driver is, if not in the cache.
 */
export async function testDriver(
  adapter,
  { script = SELF_TEST, limitMs = LIMIT_MS, cacheFolder = cache, env = {} } = {},
) {
  const child = spawn(process.execPath, [script, adapter], {
    env: { ...process.env, ...env, XPATCH_CACHE: cacheFolder },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (text) => {
    stdout += text;
  });
  child.stderr.on("data", (text) => {
    stderr += text;
  });
  let hung = false;
  const timer = setTimeout(() => {
    hung = true;
    child.kill("SIGKILL");
  }, limitMs);
  const [status, signal] = await new Promise((resolve) => {
    child.on("error", (error) => resolve([error.message, null]));
    child.on("close", (...how) => resolve(how));
  });
  clearTimeout(timer);
  if (hung) return { verdict: "hung", reason: `no answer in ${limitMs / 1000} s` };
  const report = lastLine(stdout);
  const wrong = report?.kernels.find((kernel) => kernel.wrong !== undefined);
  if (wrong) return { verdict: "wrong", reason: `${wrong.name}: ${wrong.wrong}` };
  // One that crashes when all is done has to be trusted no more than one that crashes before.
  if (status !== 0 || !report) {
    const how = signal ?? `exit status ${status}`;
    return { verdict: "crashed", reason: [how, stderr.trim().split("\n").at(-1)].filter(Boolean).join(": ") };
  }
  return { verdict: "right", kernels: report.kernels.length };
}

function lastLine(text) {
  try {
    return JSON.parse(text.trim().split("\n").at(-1));
  } catch {
    return undefined;
  }
}

/**
 * What the outcome of a self-test depends on: the driver's files, the name that it gives itself (with the version of the LLVM that it
 * loads), Dawn's version, and the test.
 */
export function driverKey(folder, adapterName, { script = SELF_TEST } = {}) {
  const hash = createHash("sha256");
  if (folder && existsSync(folder)) {
    for (const file of readdirSync(folder).sort()) {
      const path = join(folder, file);
      if (statSync(path).isFile()) hash.update(`${file}\0`).update(readFileSync(path));
    }
  }
  hash.update(`\0${adapterName}\0${dawnVersion()}\0`);
  return hash.update(readFileSync(script)).digest("hex");
}

/** In a project of its own the package lies beside this one, not within. */
function dawnVersion() {
  const entry = createRequire(import.meta.url).resolve("webgpu");
  return JSON.parse(readFileSync(join(dirname(entry), "package.json"), "utf8")).version;
}

const file = () => join(cache, "drivers", "checked.json");

/** Outcomes by {@link driverKey}. */
export function remembered(key) {
  try {
    return JSON.parse(readFileSync(file(), "utf8"))[key];
  } catch {
    return undefined;
  }
}

/** A driver that hung may have been on a busy machine, and one that was killed out of memory: they are tried again. */
export function remember(key, outcome) {
  const { verdict, reason = "" } = outcome;
  if (verdict === "hung" || /^SIG(KILL|TERM|INT|HUP)/.test(reason)) return;
  let all = {};
  try {
    all = JSON.parse(readFileSync(file(), "utf8"));
  } catch {}
  try {
    mkdirSync(dirname(file()), { recursive: true });
    const incoming = `${file()}.incoming-${process.pid}`;
    writeFileSync(incoming, JSON.stringify({ ...all, [key]: outcome }, null, 1));
    renameSync(incoming, file());
  } catch {
    // A cache that cannot be written to: the next start tests again.
  }
}
