import { createWriteStream } from "node:fs";
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { Command } from "commander";
import { platform } from "#platform";
import { convertGguf } from "../model/convert-gguf.ts";
import { CheckpointError } from "../tensor/errors.ts";
import { type CommonArguments, newCommand } from "./command.ts";
import { showBytes } from "./layout.ts";
import { printResult, withProgress } from "./output.ts";

export interface ConvertReport {
  readonly from: string;
  readonly folder: string;
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
}

export function convertCommand(): Command {
  return newCommand("convert", "Write a GGUF file as a Hugging Face folder with float16 safetensors", [
    "convert SmolLM2-135M-Instruct.Q4_1.gguf ./smollm2",
  ])
    .argument("<gguf>", "a GGUF file of architecture llama")
    .argument("<folder>", "a folder that does not exist yet, or is empty")
    .action(async (gguf: string, folder: string, args: CommonArguments) => {
      printResult(await convert(gguf, folder), args.json, formatConversion);
    });
}

/** Converts next to `folder` and then moves there, so that a conversion that fails leaves nothing behind. */
async function convert(gguf: string, folder: string): Promise<ConvertReport> {
  const present = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  if (present.length > 0)
    throw new CheckpointError(`${folder}: expected an empty folder, found ${present.length} files in it`);
  const source = await platform.openFile(gguf);
  const incoming = `${folder.replace(/[\\/]+$/, "")}.incoming-${process.pid}`;
  const files: { name: string; bytes: number }[] = [];
  try {
    await mkdir(incoming, { recursive: true });
    await withProgress("converting", (update) => {
      let done = 0;
      const watched = {
        ...source,
        read(offset: number, length: number) {
          done += length;
          update(Math.min(done, source.size), source.size);
          return source.read(offset, length);
        },
      };
      return convertGguf(watched, {
        async write(name, chunks) {
          const file = createWriteStream(join(incoming, name));
          await pipeline(chunks, file);
          files.push({ name, bytes: file.bytesWritten });
        },
      });
    });
    await rm(folder, { recursive: true, force: true });
    await rename(incoming, folder);
  } finally {
    await source.close();
    await rm(incoming, { recursive: true, force: true });
  }
  return { from: gguf, folder, files };
}

function formatConversion({ from, folder, files }: ConvertReport): string {
  return [`${from} → ${folder}`, ...files.map(({ name, bytes }) => `  ${name}  ${showBytes(bytes)}`)].join(
    "\n",
  );
}
