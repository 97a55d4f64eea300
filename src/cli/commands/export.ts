import { type Command, Option } from "commander";
import { openCheckpoint } from "../../model/checkpoint/open-checkpoint.ts";
import { EXPORT_DTYPES, type ExportDType, exportModel } from "../../model/export/export.ts";
import { openDevice } from "../../tensor/device.ts";
import { type CommonArguments, newCommand } from "../options/command.ts";
import { checkNewFolder, type FolderReport, formatFolder, writeFolder } from "../options/new-folder.ts";
import { addPartOptions, checkpointOptions, type PartArguments } from "../options/session.ts";
import { printResult, withProgress } from "../terminal/output.ts";

interface Arguments extends CommonArguments, PartArguments {
  readonly out: string;
  readonly dtype?: ExportDType;
}

interface ExportReport extends FolderReport {
  readonly dtypes: readonly string[];
  readonly adapters: readonly string[];
}

export function exportCommand(): Command {
  const dtype = new Option("--dtype <dtype>", "of all weights (default: as stored)");
  const command = newCommand("export", "Write a model, adapters merged, as one Hugging Face folder", [
    "export weights/vlm --out ./vlm",
    "export ./smollm2 --lora ./adapter --out ./tuned --dtype f32",
  ])
    .argument("<model>", "a folder, the URL of one, or a hub id")
    .requiredOption("--out <folder>", "a folder that does not exist yet, or is empty")
    .addOption(dtype.choices(Object.keys(EXPORT_DTYPES)));
  return addPartOptions(command).action(async (ref: string, args: Arguments) => {
    printResult(await exportTo(ref, args), args.json, formatFolder);
  });
}

/** Writes a model as one folder. Throws CheckpointError for a folder that has files in it. */
export async function exportTo(ref: string, args: Arguments): Promise<ExportReport> {
  await checkNewFolder(args.out);
  await using checkpoint = await openCheckpoint(ref, checkpointOptions(args));
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
