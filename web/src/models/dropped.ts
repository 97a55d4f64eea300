import type { FileMap } from "../../../src/session/messages/values.ts";

/** Files beyond this many are no model, but somebody's home folder. */
const MOST_FILES = 5000;
/** One of these is in every folder that can be loaded. */
const MARKS = ["config.json", "assembly.json", "adapter_config.json"];

/** What a reader has dropped or picked: the folder's name, and its files by their paths in it. */
export interface DroppedFolder {
  readonly name: string;
  readonly files: FileMap;
}

/** The files of a drop, those in folders included. Has to be called while the event is being handled. */
export async function droppedFolder(data: DataTransfer): Promise<DroppedFolder> {
  // Both are gone after the first await. What comes from a program, not from a disk, is no entry.
  const entries = [...data.items].flatMap((item) => item.webkitGetAsEntry() ?? []);
  const loose = entries.length > 0 ? [] : [...data.files];
  const files = new Map<string, File>(loose.map((file) => [file.name, file]));
  for (const entry of entries) await addEntry(entry, "", files);
  return asFolder(files);
}

/** The files that an `<input type="file" webkitdirectory>` has. */
export function pickedFolder(list: FileList): DroppedFolder {
  return asFolder(new Map([...list].map((file) => [file.webkitRelativePath || file.name, file])));
}

async function addEntry(entry: FileSystemEntry, path: string, files: Map<string, File>): Promise<void> {
  if (files.size > MOST_FILES)
    throw new Error(`more than ${MOST_FILES} files were dropped; expected a model's folder`);
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => {
      (entry as FileSystemFileEntry).file(resolve, reject);
    });
    files.set(path + entry.name, file);
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    // A hundred at a time, in some browsers.
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) =>
      reader.readEntries(resolve, reject),
    );
    if (some.length === 0) return;
    for (const each of some) await addEntry(each, `${path}${entry.name}/`, files);
  }
}

/** Throws where it is no model, saying what there is and what was expected. */
function asFolder(files: ReadonlyMap<string, File>): DroppedFolder {
  const paths = [...files.keys()];
  if (paths.length === 0) throw new Error("there are no files in what was dropped");
  const mark = paths
    .filter((path) => MARKS.some((name) => path === name || path.endsWith(`/${name}`)))
    .sort((a, b) => a.split("/").length - b.split("/").length)[0];
  if (mark === undefined) {
    const [first] = paths;
    const others = paths.length > 1 ? ` and ${paths.length - 1} more` : "";
    throw new Error(
      `${first}${others}: this is no model; expected a folder with a config.json, the tokenizer's files and .safetensors files`,
    );
  }
  const top = mark.slice(0, mark.lastIndexOf("/") + 1);
  const inside = paths.filter((path) => path.startsWith(top));
  return {
    name: top.replace(/\/$/, "").split("/").at(-1) || "dropped files",
    files: Object.fromEntries(inside.map((path) => [path.slice(top.length), files.get(path)!])),
  };
}
