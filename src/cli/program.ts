import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { XpatchError } from "../errors.ts";
import { commandsCalled } from "./commands.ts";
import { isSystemError } from "./options/checks.ts";
import { addCommonOptions, outputError } from "./options/command.ts";
import { note } from "./terminal/output.ts";

/** Exit codes; 0 is success. */
export const FAILED = 1;
export const USAGE = 2;
const UNEXPECTED = 70;

/** Runs `xpatch` with these arguments; returns the exit code, unless the command has set one of its own. */
export async function run(args: readonly string[]): Promise<number | undefined> {
  try {
    await (await program(args[0])).parseAsync(args, { from: "user" });
    return undefined;
  } catch (error) {
    return report(error);
  }
}

async function program(name: string | undefined): Promise<Command> {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  const root = new Command("xpatch")
    .description("Reads and changes the activations of language models on WebGPU.")
    .version(version)
    .addHelpText("after", '\n"xpatch <command> --help" has the options and examples of each command.')
    .showHelpAfterError('"xpatch --help" lists the commands.')
    .exitOverride()
    .configureOutput({ outputError });
  for (const command of await commandsCalled(name)) root.addCommand(addCommonOptions(command));
  return root;
}

/** Says on stderr what went wrong; returns the exit code. */
export function report(error: unknown): number {
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
