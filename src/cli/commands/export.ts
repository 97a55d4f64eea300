import type { Command } from "commander";
import { openCheckpoint } from "../../model/checkpoint/open-checkpoint.ts";
import { EXPORT_DTYPES, type ExportDType, exportModel } from "../../model/export/export.ts";
import { adapterChoice } from "../../platform/node-adapter.ts";
import { openDevice } from "../../tensor/open-device.ts";
import { choice } from "../options/arguments.ts";
import { ofOption } from "../options/checks.ts";
import { newCommand } from "../options/command.ts";
import { checkNewFolder, type FolderReport, formatFolder, writeFolder } from "../options/new-folder.ts";
import { addModelArgument, checkpointOptions, givenModel, type ModelArguments } from "../options/session.ts";
import { printResult } from "../terminal/output.ts";
import { withProgress } from "../terminal/progress.ts";

interface Arguments extends ModelArguments {
  readonly out: string;
  readonly dtype?: ExportDType;
}

interface ExportReport extends FolderReport {
  readonly dtypes: readonly string[];
  readonly adapters: readonly string[];
}

export function exportCommand(): Command {
  const command = newCommand("export", "Write a model, adapters merged, as one Hugging Face folder", [
    "export --out ./vlm",
    "export xpatch:smollm2 --lora ./adapter --out ./tuned --dtype f32",
  ]);
  return addModelArgument(command)
    .requiredOption("--out <folder>", "a folder that does not exist yet, or is empty")
    .addOption(choice("--dtype <dtype>", "of all weights (default: as stored)", Object.keys(EXPORT_DTYPES)))
    .action(async (model: string | undefined, args: Arguments) => {
      printResult(await exportTo(givenModel(model, args, command)), args.json, formatFolder);
    });
}

/** Writes a model as one folder. Throws CheckpointError for a folder that has files in it. */
export async function exportTo(args: Arguments): Promise<ExportReport> {
  await ofOption("--out", () => checkNewFolder(args.out));
  adapterChoice(args);
  await using checkpoint = await openCheckpoint(args.model, checkpointOptions(args));
  await using device = await openDevice({ adapter: args.adapter });
  const files = await writeFolder(args.out, (sink) =>
    withProgress("exporting", (update) =>
      exportModel(checkpoint, device, sink, {
        dtype: args.dtype,
        onProgress: ({ writtenBytes, totalBytes }) => update(writtenBytes, totalBytes),
      }),
    ),
  );
  const dtypes = args.dtype ? [EXPORT_DTYPES[args.dtype].stored] : checkpoint.storedDtypes;
  const adapters = checkpoint.adapters.map(({ name }) => name);
  return { from: checkpoint.name, dtypes, adapters, folder: args.out, files };
}
