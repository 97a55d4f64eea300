import { Command } from "commander";
import { ADAPTER_CHOICES } from "../../platform/node-adapter.ts";
import type { AdapterChoice } from "../../platform/platform.ts";
import { choice } from "./arguments.ts";

/** Options that every command has. */
export interface CommonArguments {
  readonly json?: boolean;
  /** WebGPU's adapter, that is the driver; LoRA adapters are `--lora`. */
  readonly adapter?: AdapterChoice;
}

/**
 * A command of `xpatch`: examples below its help, and mistakes in its arguments thrown as CommanderError. `examples` are
 * what follows the word "xpatch".
 *
 * @param parent - The command that it is part of.
 */
export function newCommand(
  name: string,
  summary: string,
  examples: readonly string[],
  parent?: string,
): Command {
  const lines = examples.map((example) => `  xpatch ${example}`);
  return new Command(name)
    .description(summary)
    .allowExcessArguments(false)
    .addHelpText("after", `\nExamples:\n${lines.join("\n")}`)
    .showHelpAfterError(
      `"xpatch ${parent === undefined ? name : `${parent} ${name}`} --help" says what it takes.`,
    )
    .exitOverride()
    .configureOutput({ outputError });
}

/** Adds the options of {@link CommonArguments}, behind those of the command itself. */
export function addCommonOptions(command: Command): Command {
  const adapter = "driver to run on (default: XPATCH_ADAPTER, else auto)";
  return command
    .addOption(choice("--adapter <name>", adapter, ADAPTER_CHOICES))
    .option("--json", "print the result as one JSON document");
}

/** A usage error for options that were given and would not be used: they go with something else. */
export function refuseUnused(command: Command, names: readonly string[], goWith: string): void {
  const unused = names.filter((name) => command.getOptionValueSource(name) === "cli");
  if (unused.length === 0) return;
  const flags = unused.map((name) => command.options.find((option) => option.attributeName() === name)!.long);
  command.error(`error: ${flags.join(", ")} ${flags.length > 1 ? "go" : "goes"} with ${goWith} only`);
}

/** Mistakes begin like all other messages. */
export function outputError(text: string, write: (text: string) => void): void {
  write(text.replace(/^error: /, "xpatch: "));
}
