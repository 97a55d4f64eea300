import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { nativeDescriptors } from "./node-native.ts";

/** What Dawn writes to stderr whenever a driver's limits, such as lavapipe's, are higher than it can use. It has no setting for it. */
const HARMLESS =
  /^Warning: maxDynamic(?:Uniform|Storage)BuffersPerPipelineLayout artificially reduced from \d+ to \d+ to fit dynamic offset allocation limit\.\r?\n/gm;

const STDERR = 2;

/**
 * Runs `fn`, and passes on afterwards what native code wrote to stderr meanwhile, without {@link HARMLESS}. Where stderr cannot
 * be redirected nothing is held back. Threads have to take turns: stderr is the process's.
 */
export function withoutHarmlessRemarks<T>(fn: () => T): T {
  const kept = holdStderr();
  if (!kept) return fn();
  try {
    return fn();
  } finally {
    kept.release();
  }
}

/** Puts a file of its own in the place of stderr. */
function holdStderr(): { release(): void } | undefined {
  const native = nativeDescriptors();
  if (!native) return undefined;
  let folder: string;
  let file: number;
  try {
    folder = mkdtempSync(join(tmpdir(), "xpatch-stderr-"));
    file = openSync(join(folder, "stderr"), "wx+", 0o600);
  } catch {
    return undefined;
  }
  const before = native.dup(STDERR);
  const isHeld = before >= 0 && native.dup2(file, STDERR) >= 0;
  return {
    release() {
      if (isHeld) native.dup2(before, STDERR);
      const written = readFileSync(join(folder, "stderr"), "utf8").replaceAll(HARMLESS, "");
      closeSync(file);
      if (before >= 0) native.close(before);
      rmSync(folder, { recursive: true, force: true });
      if (written !== "") process.stderr.write(written);
    },
  };
}
