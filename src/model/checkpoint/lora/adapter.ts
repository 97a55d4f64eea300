import { CheckpointError } from "../../../errors.ts";
import type { TensorEntry } from "../entries/tensor-entry.ts";
import type { JsonObject } from "../json/config-reader.ts";
import { type OpenFiles, openTensorFile } from "../safetensors/tensor-files.ts";
import { type Folder, missingFile, readJsonObject } from "../source/folder.ts";
import { type AdapterConfig, readAdapterConfig } from "./adapter-config.ts";
import { finite } from "./adapter-entry.ts";

export const ADAPTER_CONFIG = "adapter_config.json";
export const ADAPTER_WEIGHTS = "adapter_model.safetensors";
const PICKLE = "adapter_model.bin";
export const ADAPTER_PREFIX = "base_model.model.";

/** `scale · B A` is added to a weight [out, in]. */
export interface StoredUpdate {
  /** [rank, in] */
  readonly a: TensorEntry;
  /** [out, rank] */
  readonly b: TensorEntry;
  readonly scale: number;
  /** The adapter that it is of. */
  readonly adapter: string;
}

/** A LoRA adapter (Hu et al. 2021, arXiv 2106.09685) in the layout of Hugging Face's PEFT, opened without reading it. */
export interface LoraAdapter {
  /** The folder, URL or hub id. */
  readonly name: string;
  readonly config: AdapterConfig;
  /** By name within the adapter, without `base_model.model.`. Reading one that is not finite throws. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
}

/** What an adapter is put on top of: a checkpoint's parts, adapters before it among them. */
export interface AdapterBase {
  readonly name: string;
  readonly config?: JsonObject;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly adapters: readonly LoraAdapter[];
  /** By name of the weight. */
  readonly updates: ReadonlyMap<string, readonly StoredUpdate[]>;
}

/** Opens a folder with adapter_config.json and adapter_model.safetensors. Throws CheckpointError. */
export async function openAdapter(folder: Folder, opened: OpenFiles): Promise<LoraAdapter> {
  const json = await readJsonObject(folder, ADAPTER_CONFIG);
  if (json === undefined) {
    throw new CheckpointError(
      `${folder.name}: expected a LoRA adapter, found no ${missingFile(folder, ADAPTER_CONFIG)}`,
    );
  }
  const config = readAdapterConfig(json, `${folder.name}/${ADAPTER_CONFIG}`);
  const file = await openTensorFile(folder, ADAPTER_WEIGHTS, opened);
  if (!file) throw new CheckpointError(await whatIsMissing(folder));
  const entries = new Map<string, TensorEntry>();
  for (const entry of file.entries) {
    if (!entry.name.startsWith(ADAPTER_PREFIX)) {
      throw new CheckpointError(
        `${file.name}: expected names that start with ${ADAPTER_PREFIX}, as PEFT saves them, found ${entry.name}`,
      );
    }
    entries.set(entry.name.slice(ADAPTER_PREFIX.length), finite(entry, `${file.name}: ${entry.name}`));
  }
  return { name: folder.name, config, entries };
}

async function whatIsMissing(folder: Folder): Promise<string> {
  const pickle = await folder.open(PICKLE);
  await pickle?.close();
  return (
    `${folder.name}: there is no ${missingFile(folder, ADAPTER_WEIGHTS)}` +
    (pickle
      ? `; ${PICKLE} is a pickle, which is not read: load the adapter with PEFT and save it with ` +
        "save_pretrained(folder, safe_serialization=True)"
      : "")
  );
}
