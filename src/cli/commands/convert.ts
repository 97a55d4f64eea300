import type { Command } from "commander";
import { platform } from "#platform";
import { convertGguf } from "../../model/checkpoint/gguf/convert-gguf.ts";
import { type CommonArguments, newCommand } from "../options/command.ts";
import { checkNewFolder, type FolderReport, formatFolder, writeFolder } from "../options/new-folder.ts";
import { printResult } from "../terminal/output.ts";
import { withProgress } from "../terminal/progress.ts";

export function convertCommand(): Command {
  return newCommand("convert", "Write a GGUF file as a Hugging Face folder with float16 safetensors", [
    "convert SmolLM2-135M-Instruct.Q4_1.gguf ./converted",
  ])
    .argument("<gguf>", "a GGUF file of architecture llama")
    .argument("<folder>", "a folder that does not exist yet, or is empty")
    .action(async (gguf: string, folder: string, args: CommonArguments) => {
      printResult(await convert(gguf, folder), args.json, formatFolder);
    });
}

async function convert(gguf: string, folder: string): Promise<FolderReport> {
  await checkNewFolder(folder);
  const source = await platform.openFile(gguf);
  try {
    const files = await writeFolder(folder, (sink) =>
      withProgress("converting", (update) => {
        let done = 0;
        const watched = {
          ...source,
          read(offset: number, length: number) {
            done += length;
            update(Math.min(done, source.size), source.size);
            return source.read(offset, length);
          },
        };
        return convertGguf(watched, sink);
      }),
    );
    return { from: gguf, folder, files };
  } finally {
    await source.close();
  }
}
