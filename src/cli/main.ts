#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { showSystemError } from "../platform/node-write.ts";
import { FAILED, report, run, USAGE } from "./program.ts";
import { endCleanly } from "./terminal/interrupt.ts";
import { note } from "./terminal/output.ts";

/** As a shell reports a program that SIGPIPE ended. */
const BROKEN_PIPE = 141;

/** Whether the arguments are what was typed: Node reads them as UTF-8 and replaces what is none. Says so where they are not. */
function areEncoded(): boolean {
  if (!process.argv.some((argument) => argument.includes("\ufffd"))) return true;
  let bytes: Uint8Array;
  try {
    bytes = readFileSync("/proc/self/cmdline");
  } catch {
    return true; // Only Linux tells. A replacement character may have been meant.
  }
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch {
    note("xpatch: an argument is not UTF-8; use a terminal with a UTF-8 locale, or a file");
    return false;
  }
}

process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  // Whoever reads our output may have seen enough: `xpatch inspect … | head`.
  if (error.code === "EPIPE") process.exit(BROKEN_PIPE);
  note(`xpatch: cannot write the output: ${showSystemError(error)}`);
  process.exit(FAILED);
});
// There is nobody left to tell.
process.stderr.on("error", () => {});
process.on("uncaughtException", (error) => process.exit(report(error)));
endCleanly();

const code = areEncoded() ? await run(process.argv.slice(2)) : USAGE;
if (code !== undefined) process.exitCode = code;
