import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import type { Command } from "commander";
import { platform } from "#platform";
import { FileError, ImageError, XpatchError } from "../../errors.ts";
import { extensionOf } from "../../images/files/picture-kind.ts";
import type { FolderSink } from "../../model/checkpoint/source/folder-sink.ts";
import {
  type DatasetColumns,
  type DatasetFile,
  type DatasetItem,
  datasetItems,
  splitOfPath,
} from "../../tasks/dataset.ts";
import { parseTask, type Split } from "../../tasks/task.ts";
import { choice, wholeNumber } from "../options/arguments.ts";
import { newCommand } from "../options/command.ts";
import { checkNewFolder, writeFolder } from "../options/new-folder.ts";
import { showBytes, table } from "../terminal/layout.ts";
import { printResult } from "../terminal/output.ts";
import { withProgress } from "../terminal/progress.ts";

interface Arguments extends DatasetColumns {
  readonly out: string;
  readonly name?: string;
  readonly instruction?: string;
  readonly source?: string;
  readonly license?: string;
  readonly splits: "files" | "inputs";
  readonly most?: number;
  readonly json?: boolean;
}

export interface TaskReport {
  readonly out: string;
  /** What was read, in order: a folder may hold several data sets. */
  readonly files: readonly FileInSet[];
  readonly name: string;
  readonly items: Readonly<Record<Split, number>>;
  readonly pictures: number;
  readonly bytes: number;
  /** Rows that are no items, by what they lack. */
  readonly leftOut: Readonly<Record<string, number>>;
}

const KINDS = /\.(parquet|jsonl|ndjson|csv|arrow)$/i;

export function taskCommand(): Command {
  return newCommand("task", "Make a task of a data set of Hugging Face: Parquet, JSON lines or CSV", [
    'task ./cifar10 --image img --output label --instruction "What it is:" --out cifar10-task',
    "task data/train-00000-of-00001.parquet --input question --output answers.text --splits inputs --out squad",
  ])
    .argument("<data...>", "files, or the folder of a data set")
    .requiredOption("--out <folder>", "a new folder: task.json, and pictures")
    .requiredOption(
      "--output <column>",
      "right answers: texts, class labels, numbers, lists; a.b is a field of a struct",
    )
    .option("--input <column>", "what items are called, each once (default: their split and row)")
    .option("--image <column>", "pictures: bytes, paths or URLs")
    .option("--split <column>", "a column that names the split (default: the files' names do)")
    .option("--text <column>", "descriptions of the inputs")
    .option("--question <column>", "another question about each item, with --answer")
    .option("--answer <column>", "its right answers")
    .addOption(
      choice("--splits <by>", "the splits: as the files or the column say, or by a hash of the inputs", [
        "files",
        "inputs",
      ]).default("files"),
    )
    .option("--most <n>", "most items of each split, the first ones", wholeNumber(1))
    .option("--name <name>", "of the task (default: of the folder or file)")
    .option("--instruction <text>", "the task in words")
    .option("--source <text>", "where the answers come from")
    .option("--license <text>", "of the answers")
    .action(async (data: string[], args: Arguments) => {
      printResult(await makeTask(data, args), args.json, formatTask);
    });
}

async function makeTask(data: readonly string[], args: Arguments): Promise<TaskReport> {
  await checkNewFolder(args.out);
  const { out, name = nameOf(data[0]!), instruction, source, license, splits, most } = args;
  const { input, output, image, split, text, question, answer } = args;
  const columns: DatasetColumns = { input, output, image, split, text, question, answer };
  const files = await filesOf(data);
  const leftOut: Record<string, number> = {};
  const counts: Record<Split, number> = { train: 0, validation: 0, test: 0 };
  let pictures = 0;
  let items: Record<string, unknown>[] = [];
  const written = await writeFolder(out, (sink) =>
    withProgress("reading the data set", async (update) => {
      const opened: DatasetFile[] = [];
      try {
        let done = 0;
        for (const { path, split: named } of files) {
          const file = await platform.openFile(path);
          const read = (offset: number, length: number) => {
            done += length;
            const total = opened.reduce((sum, one) => sum + one.source.size, 0);
            update(Math.min(done, total), total);
            return file.read(offset, length);
          };
          opened.push({ source: { ...file, read, close: () => file.close() }, split: named });
        }
        const taken = new Map<string, number>();
        for await (const item of datasetItems(opened, columns, (_, lacking) => {
          leftOut[lacking] = (leftOut[lacking] ?? 0) + 1;
        })) {
          const of = item.split ?? "";
          if ((taken.get(of) ?? 0) >= (most ?? Number.POSITIVE_INFINITY)) continue;
          taken.set(of, (taken.get(of) ?? 0) + 1);
          const picture = item.image === undefined ? undefined : await keptPicture(sink, item, pictures);
          if (picture?.written) pictures++;
          items.push({
            ...item.fields,
            ...(picture && { image: picture.path }),
            ...(splits === "files" && item.split !== undefined && { split: item.split }),
          });
        }
      } finally {
        for (const { source: one } of opened) await one.close();
      }
      if (items.length === 0) {
        const why = Object.entries(leftOut)
          .map(([what, n]) => `${n} rows without ${what}`)
          .join(", ");
        throw new XpatchError(`expected rows with ${output}, found ${why || "none"}`);
      }
      const json = JSON.stringify({ name, instruction, source, license, items }, null, 1);
      const task = readBack(json, join(out, "task.json"), input);
      for (const { split: of } of task.items) counts[of]++;
      await sink.write("task.json", bytesOf(`${json}\n`));
      items = [];
    }),
  );
  const bytes = written.reduce((sum, file) => sum + file.bytes, 0);
  return { out, files, name, items: counts, pictures, bytes, leftOut };
}

/** Checks what is written as whoever reads it will. */
function readBack(json: string, where: string, input: string | undefined) {
  try {
    return parseTask(json, where);
  } catch (error) {
    if (error instanceof XpatchError && input !== undefined && error.message.includes("each input once")) {
      error.message += `; without --input ${input} items are called by their rows`;
    }
    throw error;
  }
}

/** A picture's own bytes go into a file; a path of the data set's and a URL stay what they are. */
async function keptPicture(
  sink: FolderSink,
  { image, file, where }: DatasetItem,
  number: number,
): Promise<{ path: string; written: boolean }> {
  if (typeof image === "string") {
    const isUrl = /^[a-z][a-z0-9+.-]+:/i.test(image);
    return { path: isUrl ? image : resolve(dirname(file), image), written: false };
  }
  let extension: string;
  try {
    extension = extensionOf(image!);
  } catch (error) {
    if (error instanceof ImageError) error.message = `${where}: ${error.message}`;
    throw error;
  }
  const path = `pictures/${String(number).padStart(6, "0")}.${extension}`;
  await sink.write(path, bytesOf(image!));
  return { path, written: true };
}

async function* bytesOf(content: string | Uint8Array): AsyncGenerator<Uint8Array> {
  yield typeof content === "string" ? new TextEncoder().encode(content) : content;
}

interface FileInSet {
  readonly path: string;
  readonly split: Split | undefined;
}

/** The files of a data set, in the order of their names. Throws FileError where there are none, or of several kinds. */
async function filesOf(data: readonly string[]): Promise<FileInSet[]> {
  const files: FileInSet[] = [];
  for (const path of data) {
    const found = await stat(path).catch(() => undefined);
    if (!found) throw new FileError(`there is no ${path}`);
    if (!found.isDirectory()) {
      files.push({ path, split: splitOfPath(basename(path)) });
      continue;
    }
    const inside = (await readdir(path, { recursive: true })).filter((name) => KINDS.test(name)).sort();
    files.push(...inside.map((name) => ({ path: join(path, name), split: splitOfPath(name) })));
  }
  const kinds = [...new Set(files.map(({ path }) => KINDS.exec(path)?.[1]?.toLowerCase()))];
  if (kinds.length === 1) return files;
  const found = kinds.length === 0 ? "none" : `those of ${kinds.join(", ")}`;
  throw new FileError(
    `${data.join(", ")}: expected files of one kind, .parquet, .jsonl, .ndjson or .csv; found ${found}`,
  );
}

/** `data/cifar10/` → `cifar10` */
function nameOf(path: string): string {
  return basename(resolve(path)).replace(KINDS, "");
}

/** Files that are listed one by one. */
const LISTED = 8;

function formatTask({ out, files, name, items, pictures, bytes, leftOut }: TaskReport): string {
  const more = files.length > LISTED ? [[`and ${files.length - LISTED} more`, ""]] : [];
  return [
    table([...files.slice(0, LISTED).map(({ path, split }) => [path, split ?? "no split named"]), ...more]),
    `${name} → ${join(out, "task.json")}  (${showBytes(bytes)}, ${pictures} pictures)`,
    table(Object.entries(items).map(([split, count]) => [split, `${count} items`])),
    ...Object.entries(leftOut).map(([what, count]) => `left out: ${count} rows without ${what}`),
  ].join("\n");
}
