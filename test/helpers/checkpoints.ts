import { readdirSync, readFileSync, statSync } from "node:fs";
import { SafetensorsFile } from "../../src/model/checkpoint/safetensors/safetensors.ts";
import {
  type TensorToWrite,
  writeSafetensors,
} from "../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { memorySource } from "../../src/model/checkpoint/source/sources.ts";
import { collect } from "./bytes.ts";
import { changeJson, type Files } from "./nano.ts";

/** The files of test/fixtures/<name>/model, to be changed by a test. */
export function fixtureFiles(name: string): Files {
  const folder = `test/fixtures/${name}/model`;
  return new Map(
    readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((path) => statSync(`${folder}/${path}`).isFile())
      .map((path) => [path, Uint8Array.from(readFileSync(`${folder}/${path}`))]),
  );
}

export type Tensors = Map<string, TensorToWrite & { data: Uint8Array<ArrayBuffer> }>;

/** The tensors of model.safetensors as they lie there, by name. */
export async function tensorsOf(files: Files): Promise<Tensors> {
  const file = await SafetensorsFile.open(memorySource(files.get("model.safetensors")!));
  const tensors: Tensors = new Map();
  for (const { name, stored, shape, storedBytes, raw } of file.entries.map((e) => ({
    ...pick(e),
    raw: () => e.raw!(2 ** 20),
  }))) {
    const data = storedBytes === 0 ? new Uint8Array(0) : await collect(raw());
    tensors.set(name, { name, stored, shape, data });
  }
  return tensors;
}

function pick({ name, stored, shape, storedBytes }: SafetensorsFile["entries"][number]) {
  return { name, stored, shape, storedBytes };
}

/** The files with other tensors and with fields of config.json changed. */
export async function withTensors(
  files: Files,
  tensors: Iterable<TensorToWrite>,
  config: Readonly<Record<string, unknown>> = {},
): Promise<Files> {
  const changed: Files = new Map(files);
  changed.set("model.safetensors", await collect(writeSafetensors(tensors)));
  changeJson(changed, "config.json", config);
  return changed;
}
