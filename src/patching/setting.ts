import { adapterName } from "../tensor/adapter-name.ts";
import type { PatchableModel } from "./model.ts";

/** What every result and report states. */
export interface Setting {
  /** What it was loaded by: a name, path, URL or hub id. */
  readonly model: string;
  /** Name of its family: `llama`, `llava`, … */
  readonly family: string;
  /** Dtypes of the weights as stored, most bytes first. */
  readonly dtypes: readonly string[];
  /** LoRA adapters on top of the weights; missing where there are none. */
  readonly adapters?: readonly string[];
  /** The GPU or software driver. */
  readonly adapter: string;
  /** Of whatever is drawn at random; missing where nothing is. */
  readonly seed?: number;
}

export function settingOf(
  model: Pick<PatchableModel, "name" | "family" | "storedDtypes" | "adapters" | "device">,
  seed?: number,
): Setting {
  const { name, family, storedDtypes: dtypes, adapters, device } = model;
  return {
    model: name,
    family,
    dtypes,
    ...(adapters.length > 0 && { adapters }),
    adapter: adapterName(device.info),
    ...(seed !== undefined && { seed }),
  };
}

/** On one line. */
export function showSetting({ model, family, dtypes, adapters, adapter, seed }: Setting): string {
  const parts = [`${model} (${family}, ${dtypes.join(" and ")})`];
  if (adapters) parts.push(`LoRA ${adapters.join(", ")}`);
  parts.push(adapter);
  if (seed !== undefined) parts.push(`seed ${seed}`);
  return parts.join(" · ");
}
