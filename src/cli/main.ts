#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { XpatchError } from "../tensor/errors.ts";
import { addCommonOptions, outputError } from "./command.ts";
import { COMMANDS } from "./commands.ts";
import { note } from "./output.ts";

/** Exit codes; 0 is success. */
const FAILED = 1;
const USAGE = 2;
const UNEXPECTED = 70;

function program(): Command {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  const root = new Command("xpatch")
    .description("Reads and changes the activations of language models on WebGPU.")
    .version(version)
    .addHelpText("after", '\n"xpatch <command> --help" has the options and examples of each command.')
    .showHelpAfterError('"xpatch --help" lists the commands.')
    .exitOverride()
    .configureOutput({ outputError });
  for (const command of COMMANDS) root.addCommand(addCommonOptions(command()));
  return root;
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

/** A file that is not there, not readable, not writable… */
function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "syscall" in error;
}

// Whoever reads our output may have seen enough: `xpatch inspect … | head`.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit();
});

try {
  await program().parseAsync();
} catch (error) {
  process.exitCode = report(error);
}
