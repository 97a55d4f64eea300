#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { XpatchError } from "../errors.ts";
import { showSystemError } from "../platform/node-write.ts";
import { commandsCalled } from "./commands.ts";
import { isSystemError } from "./options/checks.ts";
import { addCommonOptions, outputError } from "./options/command.ts";
import { endCleanly } from "./terminal/interrupt.ts";
import { note } from "./terminal/output.ts";

/** Exit codes; 0 is success. */
const FAILED = 1;
const USAGE = 2;
const UNEXPECTED = 70;
/** As a shell reports a program that SIGPIPE ended. */
const BROKEN_PIPE = 141;

async function program(): Promise<Command> {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  const root = new Command("xpatch")
    .description("Reads and changes the activations of language models on WebGPU.")
    .version(version)
    .addHelpText("after", '\n"xpatch <command> --help" has the options and examples of each command.')
    .showHelpAfterError('"xpatch --help" lists the commands.')
    .exitOverride()
    .configureOutput({ outputError });
  for (const command of await commandsCalled(process.argv[2])) root.addCommand(addCommonOptions(command));
  return root;
}

/** Node reads arguments as UTF-8 and replaces what is none. Throws CommanderError where that has happened. */
function checkEncoding(): void {
  if (!process.argv.some((argument) => argument.includes("\ufffd"))) return;
  let bytes: Uint8Array;
  try {
    bytes = readFileSync("/proc/self/cmdline");
  } catch {
    return; // Only Linux tells. A replacement character may have been meant.
  }
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    note("xpatch: an argument is not UTF-8; use a terminal with a UTF-8 locale, or a file");
    throw new CommanderError(USAGE, "xpatch.encoding", "not UTF-8");
  }
}

/** Says on stderr what went wrong; returns the exit code. */
function report(error: unknown): number {
  // Commander has said it already, or printed the help that was asked for.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE;
  if (error instanceof XpatchError || isSystemError(error)) {
    note(`xpatch: ${error.message}`);
    return FAILED;
  }
  note(error instanceof Error ? `${error.stack}` : String(error));
  note("xpatch: this is an error in xpatch itself; please report it with the lines above");
  return UNEXPECTED;
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

try {
  checkEncoding();
  await (await program()).parseAsync();
} catch (error) {
  process.exitCode = report(error);
}
