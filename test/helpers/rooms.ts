import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript-5.9";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/**
 * The rooms, from the ground up. A file may import from its own room and from those before it in this list, whether values
 * or types. A room is a file or a folder, without what has a line of its own in it.
 */
export const ROOMS: readonly string[] = [
  "src/errors.ts",
  "src/nearest.ts",
  "src/inspect.ts",
  "src/arguments.ts",
  "src/platform",
  "src/tables",
  "src/tensor",
  "src/kernels/elementwise",
  "src/kernels/movement",
  "src/kernels/reduction",
  "src/kernels/matmul",
  "src/kernels/attention",
  "src/gradient/rule.ts",
  "src/gradient/rules",
  "src/gradient",
  "src/images",
  "src/model/checkpoint/json",
  "src/model/checkpoint/source",
  "src/model/checkpoint/entries",
  "src/model/checkpoint/packing",
  "src/model/checkpoint/safetensors",
  "src/model/checkpoint/gguf",
  "src/model/checkpoint/config",
  "src/model/checkpoint/lora",
  "src/model/checkpoint",
  "src/model/checkpoint/weights",
  "src/model/prompt",
  "src/model/walk",
  "src/model/layers",
  "src/model/families",
  "src/model",
  "src/model/export",
  "src/patching",
  "src/activations",
  "src/profile",
  "src/tasks",
  "src/training",
  "src/analysis",
  "src/figures",
  "src/index.ts",
  "src/session/messages",
  "src/session/ports",
  "src/session/state",
  "src/session/read",
  "src/session/handle",
  "src/session",
  "src/session/serve",
  "experiments",
  "experiments/grid",
  "experiments/grid/queue",
  "src/parity",
  "src/cli/terminal",
  "src/cli/options",
  "src/cli/commands",
  "src/cli",
];

/** Where Node's own modules may be imported: none of it runs in a browser. */
export const NODE_ONLY = /^(experiments|src\/parity|src\/cli|src\/session\/serve|src\/platform\/node)\b/;

/** One file that imports another (paths from the root), or a module that is none of ours. */
export interface Import {
  readonly from: string;
  readonly to: string;
}

/** The room of a file: the longest line of the list that holds it. Throws where there is none. */
export function roomOf(file: string): string {
  const [room] = ROOMS.filter((name) => file === name || file.startsWith(`${name}/`)).sort(
    (a, b) => b.length - a.length,
  );
  if (room === undefined)
    throw new Error(`${file} is in no room: give its folder a line in test/helpers/rooms.ts`);
  return room;
}

/** Imports that go up, or to a module of Node where a browser has to run, in words. */
export function wrongImports(imports: readonly Import[]): string[] {
  return imports.flatMap(({ from, to }) => {
    if (to.startsWith("node:")) return NODE_ONLY.test(from) ? [] : [`${from} imports ${to}`];
    if (!/^(src|experiments)\//.test(to)) return [];
    const [own, other] = [roomOf(from), roomOf(to)];
    return ROOMS.indexOf(other) > ROOMS.indexOf(own) ? [`${from} (${own}) imports ${to} (${other})`] : [];
  });
}

/** Every import of the sources: static and dynamic ones, of types, and `export … from`. */
export function allImports(): Import[] {
  return sources().flatMap((from) =>
    ts
      .preProcessFile(readFileSync(join(ROOT, from), "utf8"))
      .importedFiles.map(({ fileName }) => ({ from, to: resolved(from, fileName) })),
  );
}

/** The files of the sources, by their paths from the root. */
export function sources(): string[] {
  return ["src", "experiments"].flatMap((top) =>
    readdirSync(join(ROOT, top), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && /\.ts$/.test(entry.name))
      .map((entry) => relative(ROOT, join(entry.parentPath ?? entry.path, entry.name)).replaceAll(sep, "/")),
  );
}

/** The file that a specifier means; what is no file of ours stays as it is. */
function resolved(from: string, specifier: string): string {
  if (specifier === "xpatch") return "src/index.ts";
  if (specifier === "#platform") return "src/platform/platform.ts";
  const [, alias] = /^#((?:src|experiments)\/.*)$/.exec(specifier) ?? [];
  if (alias === undefined && !specifier.startsWith(".")) return specifier;
  const path = alias === undefined ? posix.join(dirname(from), specifier) : `${alias}.ts`;
  if (!existsSync(join(ROOT, path))) throw new Error(`${from}: ${specifier} is no file`);
  return path;
}
