import { type Command, InvalidArgumentError } from "commander";
import { openCheckpoint } from "../../model/checkpoint/open-checkpoint.ts";
import { QUANTISE_FORMATS, type QuantiseTo } from "../../model/checkpoint/weights/quantise.ts";
import { exportModel } from "../../model/export/export.ts";
import { adapterChoice } from "../../platform/node-adapter.ts";
import { openDevice } from "../../tensor/open-device.ts";
import { choice } from "../options/arguments.ts";
import { ofOption } from "../options/checks.ts";
import { newCommand } from "../options/command.ts";
import { checkNewFolder, type FolderReport, formatFolder, writeFolder } from "../options/new-folder.ts";
import { addModelArgument, checkpointOptions, givenModel, type ModelArguments } from "../options/session.ts";
import { printResult } from "../terminal/output.ts";
import { withProgress } from "../terminal/progress.ts";

const FORMATS = [...QUANTISE_FORMATS, "stored"];

interface Arguments extends ModelArguments {
  readonly out: string;
  readonly format: QuantiseTo;
  readonly embedding?: QuantiseTo;
  readonly head?: QuantiseTo;
  readonly module: Readonly<Record<string, QuantiseTo>>;
}

interface QuantiseReport extends FolderReport {
  readonly format: QuantiseTo;
  readonly adapters: readonly string[];
}

export function quantiseCommand(): Command {
  const command = newCommand("quantise", "Write a model with its weights in 4 or 8 bits, adapters merged", [
    "quantise --format nf4 --out ./vlm-nf4",
    "quantise xpatch:smollm2 --format int4 --module layers.0=int8 --out ./small",
  ]);
  return addModelArgument(command)
    .requiredOption("--out <folder>", "a folder that does not exist yet, or is empty")
    .addOption(choice("--format <format>", "of linear layers but the head", FORMATS).default("nf4"))
    .addOption(choice("--embedding <format>", "of the token embedding (default: stored)", FORMATS))
    .addOption(choice("--head <format>", "of the layer that makes the logits (default: stored)", FORMATS))
    .option("--module <name=format>", "of layers with this in their names; may be repeated", moduleFormat, {})
    .action(async (model: string | undefined, args: Arguments) => {
      printResult(await quantiseTo(givenModel(model, args, command)), args.json, formatFolder);
    });
}

function moduleFormat(
  given: string,
  before: Readonly<Record<string, QuantiseTo>>,
): Readonly<Record<string, QuantiseTo>> {
  const [, name, format] = /^(.+)=(\w+)$/.exec(given) ?? [];
  if (name === undefined || !FORMATS.includes(format!)) {
    throw new InvalidArgumentError(`Expected name=format with one of ${FORMATS.join(", ")}, found ${given}.`);
  }
  return { ...before, [name]: format as QuantiseTo };
}

/** Writes a model as one folder with quantised weights. Throws CheckpointError for a folder that has files in it. */
export async function quantiseTo(args: Arguments): Promise<QuantiseReport> {
  await ofOption("--out", () => checkNewFolder(args.out));
  adapterChoice(args);
  await using checkpoint = await openCheckpoint(args.model, checkpointOptions(args));
  await using device = await openDevice({ adapter: args.adapter });
  const quantise = {
    linear: args.format,
    ...(args.embedding && { embedding: args.embedding }),
    ...(args.head && { head: args.head }),
    modules: args.module,
  };
  const files = await writeFolder(args.out, (sink) =>
    withProgress("quantising", (update) =>
      exportModel(checkpoint, device, sink, {
        quantise,
        onProgress: ({ writtenBytes, totalBytes }) => update(writtenBytes, totalBytes),
      }),
    ),
  );
  const adapters = checkpoint.adapters.map(({ name }) => name);
  return { from: checkpoint.name, format: args.format, adapters, folder: args.out, files };
}
