import { isFloat } from "../tensor/dtype.ts";
import { CheckpointError } from "../tensor/errors.ts";
import { nearest } from "../tensor/nearest.ts";
import { showShape } from "../tensor/shape.ts";
import { type AdapterConfig, readAdapterConfig } from "./adapter-config.ts";
import type { CheckpointParts } from "./checkpoint.ts";
import { type Folder, missingFile, readJsonObject } from "./folder.ts";
import { commonName } from "./module-names.ts";
import { renamed, type TensorEntry } from "./tensor-entry.ts";
import { type OpenFiles, openTensorFile } from "./tensor-files.ts";

export const ADAPTER_CONFIG = "adapter_config.json";
const ADAPTER_WEIGHTS = "adapter_model.safetensors";
const PREFIX = "base_model.model.";
/** Problems that a message spells out. */
const MAX_LISTED = 8;

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
export interface Adapter {
  /** The folder, URL or hub id. */
  readonly name: string;
  readonly config: AdapterConfig;
  /** By name within the adapter, without `base_model.model.`. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
}

/** Opens a folder with adapter_config.json and adapter_model.safetensors. Throws CheckpointError. */
export async function openAdapter(folder: Folder, opened: OpenFiles): Promise<Adapter> {
  const json = await readJsonObject(folder, ADAPTER_CONFIG);
  if (json === undefined) {
    throw new CheckpointError(
      `${folder.name}: expected a LoRA adapter, found no ${missingFile(folder, ADAPTER_CONFIG)}`,
    );
  }
  const config = readAdapterConfig(json, `${folder.name}/${ADAPTER_CONFIG}`);
  const file = await openTensorFile(folder, ADAPTER_WEIGHTS, opened);
  if (!file) throw new CheckpointError(`${folder.name}: there is no ${missingFile(folder, ADAPTER_WEIGHTS)}`);
  const entries = new Map<string, TensorEntry>();
  for (const entry of file.entries) {
    if (!entry.name.startsWith(PREFIX)) {
      throw new CheckpointError(
        `${file.name}: expected names that start with ${PREFIX}, as PEFT saves them, found ${entry.name}`,
      );
    }
    entries.set(entry.name.slice(PREFIX.length), entry);
  }
  return { name: folder.name, config, entries };
}

/**
 * The checkpoint with an adapter on top. One that was trained on a language model also fits that model inside of a LLaVA,
 * under each of the names that it may have there. Throws one CheckpointError that lists tensors that match no weight (with
 * the nearest name), lack their other half, or have the wrong shape.
 */
export function applyAdapter(parts: CheckpointParts, adapter: Adapter): CheckpointParts {
  const names = new Map([...parts.entries.keys()].map((name) => [commonName(name), name]));
  const entries = new Map(parts.entries);
  const updates = new Map(parts.updates);
  const problems: string[] = [];
  const weightOf = (tensor: string, key: string): string | undefined => {
    const name = names.get(commonName(tensor));
    if (name === undefined) {
      const near = nearest(tensor, parts.entries.keys());
      problems.push(`${key} matches no weight of ${parts.name}${near ? ` (the nearest is ${near})` : ""}`);
    }
    return name;
  };

  for (const [key, entry] of adapter.entries) {
    const [, module, half] = /^(.+)\.lora_([AB])\.weight$/.exec(key) ?? [];
    if (module !== undefined) {
      const other = adapter.entries.get(`${module}.lora_${half === "A" ? "B" : "A"}.weight`);
      if (!other) problems.push(`${key} is there without its lora_${half === "A" ? "B" : "A"}`);
      if (!other || half === "B") continue;
      const name = weightOf(`${module}.weight`, key);
      if (name === undefined) continue;
      const { rank, scale } = adapter.config.of(module);
      const problem = shapeProblem(parts.entries.get(name)!, entry, other, rank);
      if (problem) problems.push(`${module}: ${problem}`);
      updates.set(name, [...(updates.get(name) ?? []), { a: entry, b: other, scale, adapter: adapter.name }]);
    } else if (isSaved(key, adapter.config.savedModules)) {
      const name = weightOf(key, key);
      if (name === undefined) continue;
      const { shape } = entries.get(name)!;
      if (shape.join() !== entry.shape.join()) {
        problems.push(`${key} is ${showShape(entry.shape)} instead of ${showShape(shape)}`);
      }
      entries.set(name, renamed(entry, name));
      updates.delete(name); // as a whole it stands for what adapters before it did
    } else problems.push(`${key} ${kindOf(key)}`);
  }
  if (adapter.entries.size === 0) problems.push("there are no tensors");
  if (problems.length > 0) {
    const more = problems.length > MAX_LISTED ? `; and ${problems.length - MAX_LISTED} more` : "";
    const listed = problems.slice(0, MAX_LISTED).join("; ");
    throw new CheckpointError(`${adapter.name}/${ADAPTER_WEIGHTS}: ${listed}${more}`);
  }
  return { ...parts, entries, updates, adapters: [...parts.adapters, adapter] };
}

function shapeProblem(weight: TensorEntry, a: TensorEntry, b: TensorEntry, rank: number): string | undefined {
  if (weight.shape.length !== 2) return `only linear layers are supported, not ${showShape(weight.shape)}`;
  const [out, width] = weight.shape as [number, number];
  const show = (x: TensorEntry) => showShape(x.shape);
  if (a.shape.join() !== `${rank},${width}` || b.shape.join() !== `${out},${rank}`) {
    return (
      `expected lora_A ${showShape([rank, width])} and lora_B ${showShape([out, rank])} (rank ${rank} by ` +
      `${ADAPTER_CONFIG}, weight ${show(weight)}), found ${show(a)} and ${show(b)}`
    );
  }
  if (!isFloat(a.dtype) || !isFloat(b.dtype)) return `expected floats, found ${a.stored} and ${b.stored}`;
  return undefined;
}

function isSaved(key: string, modules: readonly string[]): boolean {
  const module = key.slice(0, key.lastIndexOf("."));
  return modules.some((saved) => module === saved || module.endsWith(`.${saved}`));
}

function kindOf(key: string): string {
  if (key.includes("lora_embedding_")) return "is a LoRA of an embedding, which is not supported";
  if (key.includes("lora_magnitude_vector")) return "is of DoRA, which is not supported";
  if (/\.lora_[AB]\./.test(key)) {
    return "is not named as PEFT's save_pretrained names it, <module>.lora_A.weight or <module>.lora_B.weight";
  }
  return "is neither a lora_A nor a lora_B nor of modules_to_save";
}
