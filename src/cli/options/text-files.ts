import type { Command } from "commander";
import { PromptError } from "../../errors.ts";
import { readTextFile } from "../../platform/node-text.ts";
import { escapedText } from "./arguments.ts";
import { ofOption } from "./checks.ts";

export interface PromptArguments {
  readonly prompt?: string;
  readonly promptFile?: string;
}

/** Adds --prompt and --prompt-file. */
export function addPromptOptions(command: Command): Command {
  return command
    .option(
      "--prompt <text>",
      "the prompt; \\n stands for a new line, \\t for a tab, \\\\ for a backslash",
      escapedText,
    )
    .option("--prompt-file <path>", "a text file with the prompt, taken as it is");
}

/** The prompt that the arguments name. Anything but exactly one is a usage error. */
export async function promptText({ prompt, promptFile }: PromptArguments, command: Command): Promise<string> {
  if ((prompt === undefined) === (promptFile === undefined)) {
    return command.error("error: expected either --prompt or --prompt-file");
  }
  return prompt ?? (await ofOption("--prompt-file", () => readTextFile(promptFile!)));
}

/** One prompt a line, with the escapes of --prompt; empty lines are left out. Throws PromptError if there is none. */
export async function readLines(path: string): Promise<string[]> {
  const lines = (await readTextFile(path)).split(/\r?\n/).filter((line) => line.trim() !== "");
  if (lines.length === 0) throw new PromptError(`${path}: expected a prompt a line, found none`);
  return lines.map(escapedText);
}
