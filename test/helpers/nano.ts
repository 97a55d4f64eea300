import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { writeSafetensors } from "../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { type Folder, memoryFolder, subfolder } from "../../src/model/checkpoint/source/folder.ts";
import { encode } from "../../src/tensor/dtype.ts";
import { collect, utf8 } from "./bytes.ts";
import { seededNumbers } from "./compare.ts";

export type Files = Map<string, Uint8Array>;

/** The files of weights/nano by path, to be changed by a test. */
export function nanoFiles(): Files {
  const root = join(import.meta.dirname, "..", "..", "weights", "nano");
  const paths = readdirSync(root, { recursive: true, encoding: "utf8" });
  const files = paths.filter((path) => statSync(join(root, path)).isFile());
  return new Map(
    files.map((path) => [path.replaceAll("\\", "/"), Uint8Array.from(readFileSync(join(root, path)))]),
  );
}

/** One of nano's models (`base`, `llm`, `vlm`), or a folder within, in memory. */
export function nanoFolder(files: Files, path: string): Folder {
  return subfolder(memoryFolder(files, "nano"), path);
}

export function changeJson(files: Files, path: string, change: Readonly<Record<string, unknown>>): void {
  const json = JSON.parse(new TextDecoder().decode(files.get(path)!));
  files.set(path, utf8(JSON.stringify({ ...json, ...change })));
}

/** Matrices by name; the values are numbers in [-1, 1). */
export function randomTensors(
  shapes: Readonly<Record<string, readonly number[]>>,
  stored = "F32",
): Promise<Uint8Array> {
  const next = seededNumbers(Object.keys(shapes).length);
  const tensors = Object.entries(shapes).map(([name, shape]) => {
    const values = Array.from({ length: shape.reduce((a, b) => a * b, 1) }, next);
    return { name, stored, shape, data: encode(values, stored === "F32" ? "f32" : "i32") };
  });
  return collect(writeSafetensors(tensors));
}
