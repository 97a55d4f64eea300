import { isAbsolute, relative } from "node:path";
import { fileURLToPath } from "node:url";
import type { LoadOptions } from "../model/language-model.ts";
import { loadModel, type PatchableModel } from "../patching/model.ts";
import { openDevice } from "../tensor/device.ts";
import type { CommonArguments } from "./command.ts";
import { withProgress } from "./output.ts";

/** What every report states. */
export interface Setting {
  readonly model: string;
  readonly family: string;
  /** Dtypes of the weights as stored, most bytes first. */
  readonly dtypes: readonly string[];
  readonly adapter: string;
  /** Of whatever is drawn at random; missing where nothing is. */
  readonly seed?: number;
}

export interface ModelArguments extends CommonArguments {
  readonly model: string;
}

/** What --model takes; every command that runs a model has it. */
export const MODEL_OPTION = [
  "--model <ref>",
  "a folder, the URL of one, or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct",
] as const;

/** The model that comes with xpatch; from within the checkout by its short name. */
export function shippedModel(): string {
  const path = fileURLToPath(new URL("../../weights/vlm", import.meta.url));
  const short = relative(process.cwd(), path);
  // Without the dot it could be a hub id.
  return isAbsolute(short) || short.startsWith("..") ? path : `./${short}`;
}

/** Opens a device, loads the model, and closes both behind `use`. Gated models of the hub need HF_TOKEN. */
export async function withModel<T>(
  { model: ref, adapter }: ModelArguments,
  use: (model: PatchableModel) => Promise<T>,
): Promise<T> {
  await using device = await openDevice({ adapter });
  using model = await withProgress("loading the model", (update) => {
    const onProgress: LoadOptions["onProgress"] = ({ loadedBytes, totalBytes }) =>
      update(loadedBytes, totalBytes);
    return loadModel(ref, { device, accessToken: process.env.HF_TOKEN, onProgress });
  });
  return await use(model);
}

export function settingOf(
  model: Pick<PatchableModel, "name" | "family" | "storedDtypes" | "device">,
  seed?: number,
): Setting {
  const { name, family, storedDtypes: dtypes, device } = model;
  return {
    model: name,
    family,
    dtypes,
    adapter: adapterName(device.info),
    ...(seed !== undefined && { seed }),
  };
}

/** What to call an adapter. */
export function adapterName(info: { description: string; device: string; vendor: string }): string {
  return info.description || info.device || info.vendor || "unnamed";
}

export function formatSetting({ model, family, dtypes, adapter, seed }: Setting): string {
  const parts = [`${model} (${family}, ${dtypes.join(" and ")})`, adapter];
  if (seed !== undefined) parts.push(`seed ${seed}`);
  return parts.join(" · ");
}
