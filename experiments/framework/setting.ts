import { createHash, type Hash } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, resolve } from "node:path";
import {
  type Checkpoint,
  type CheckpointOptions,
  openCheckpoint,
  type PatchableModel,
  type ReadOptions,
  type SpecificationKind,
  type Task,
} from "xpatch";

/** What the user chooses. Part of the setting of a run. */
export interface LabOptions {
  /** Draws of the examples: their seeds are 0, 1, … */
  readonly seeds: number;
  /** Of these, how many the few-shot prompts of the test items are made with; prompts cost most of all. */
  readonly promptSeeds: number;
  /** Examples in a prompt. */
  readonly shots: number;
  readonly template: string;
  /** Most items of a split that are asked about, a task. All unless given. */
  readonly validationItems?: number;
  readonly testItems?: number;
  /** Pixels that pictures are made wide before the model's own preprocessing; 224 in the paper. As they are unless given. */
  readonly pictureWidth?: number;
  /** Whether one layer serves all tasks (the one with the best mean) or each task has its own. */
  readonly layerBy: "mean" | "task";
  /** Tasks that are reported but kept out of means over the tasks. */
  readonly outsideMeans: readonly string[];
  /** Set where task vectors are of the layers of a model's encoder, not of its decoder. */
  readonly stack?: "encoder";
  /** What may tell a task, text examples always among them. All three unless given. */
  readonly specifications?: readonly SpecificationKind[];
  /** Whether upper and lower case differ in answers. They do not unless given. */
  readonly caseSensitive?: boolean;
  /** Of `fine-tuning`: tasks that are trained on, seeds of each training, and its steps. By default as few as take an hour. */
  readonly trainTasks?: number;
  readonly trainSeeds?: number;
  readonly trainSteps?: number;
  /** Set where all options are those of the authors' program; see `PAPER_PROTOCOL`. */
  readonly protocol?: "paper";
}

/** A model as a run knows it. */
export interface ModelSetting extends ReadOptions {
  readonly name: string;
  readonly family: string;
  readonly layers: number;
  /** Dtypes of the weights as stored, most bytes first. */
  readonly dtypes: readonly string[];
  /** SHA-256 over the config, the tokenizer and all tensors. */
  readonly hash: string;
}

/** All that results depend on. A run is continued only under the very setting that it began with. */
export interface Setting {
  readonly model: ModelSetting;
  readonly llm?: ModelSetting;
  readonly adapter: string;
  readonly kernels: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly options: LabOptions;
  readonly tasks: readonly TaskSetting[];
}

interface TaskSetting {
  readonly name: string;
  readonly items: number;
  /** SHA-256 over items and pictures. */
  readonly hash: string;
}

export interface SettingParts {
  readonly model: PatchableModel;
  /** What the model was opened with. */
  readonly opened?: Pick<CheckpointOptions, "adapters" | "base">;
  /** How its config was understood. */
  readonly read?: ReadOptions;
  readonly llm?: PatchableModel;
  readonly tasks: readonly Task[];
  readonly options: LabOptions;
}

export async function settingOf({
  model,
  opened,
  read,
  llm,
  tasks,
  options,
}: SettingParts): Promise<Setting> {
  const { description, device, vendor, kernels } = model.device.info;
  const self = createRequire(import.meta.url)("xpatch/package.json");
  return {
    model: { ...(await modelSetting(model, opened)), ...read },
    ...(llm && { llm: await modelSetting(llm) }),
    adapter: description || device || vendor || "unnamed",
    kernels,
    versions: { xpatch: self.version, webgpu: self.dependencies.webgpu, node: process.versions.node },
    options,
    tasks: await taskSettings(tasks),
  };
}

export function taskSettings(tasks: readonly Task[]): Promise<TaskSetting[]> {
  return Promise.all(tasks.map(taskSetting));
}

/** Where two settings differ, in words: `options.seeds was 3, now 1`. */
export function differences(before: unknown, now: unknown, path = ""): string[] {
  if (isObject(before) && isObject(now)) {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(now)])];
    return keys.flatMap((key) => differences(before[key], now[key], path === "" ? key : `${path}.${key}`));
  }
  const show = (value: unknown) => (value === undefined ? "missing" : JSON.stringify(value));
  return show(before) === show(now) ? [] : [`${path} was ${show(before)}, now ${show(now)}`];
}

/** Of a model with or without its weights, which are read to be hashed. */
export async function modelSetting(
  model: Pick<PatchableModel, "name" | "family" | "config" | "storedDtypes">,
  opened?: CheckpointOptions,
): Promise<ModelSetting> {
  return {
    // Where a folder lies says nothing of the model; xpatch:vlm is the one called vlm.
    name: existsSync(model.name) ? basename(resolve(model.name)) : model.name.replace(/^xpatch:/, ""),
    family: model.family,
    layers: model.config.layers,
    dtypes: model.storedDtypes,
    hash: await hashCheckpoint(model.name, opened),
  };
}

/** Of all that makes the model's numbers: config, tokenizer, preprocessing, weights, and what adapters add to them. */
async function hashCheckpoint(ref: string, opened: CheckpointOptions = {}): Promise<string> {
  await using checkpoint = await openCheckpoint(ref, { ...opened, accessToken: process.env.HF_TOKEN });
  const hash = createHash("sha256");
  await hashOutline(hash, checkpoint);
  for (const name of checkpoint.names.sort()) {
    await hashEntry(hash, name, checkpoint.entry(name));
    for (const { a, b, scale } of checkpoint.updatesOf(name)) {
      hash.update(`\0${scale}`);
      await hashEntry(hash, "a", a);
      await hashEntry(hash, "b", b);
    }
  }
  return hash.digest("hex");
}

/** Of what is read of a model without its weights. */
export async function hashOutline(hash: Hash, checkpoint: Checkpoint): Promise<void> {
  hash.update(JSON.stringify(checkpoint.config));
  for (const file of ["tokenizer.json", "preprocessor_config.json"]) {
    hash.update(`\0${file}\0`).update((await checkpoint.text(file)) ?? "");
  }
}

async function hashEntry(hash: Hash, name: string, entry: ReturnType<Checkpoint["entry"]>): Promise<void> {
  hash.update(`\0${name} ${entry.stored} ${entry.shape}\0`);
  for await (const chunk of entry.stream()) hash.update(chunk);
}

async function taskSetting({ name, instruction, items }: Task): Promise<TaskSetting> {
  const hash = createHash("sha256").update(JSON.stringify([name, instruction]));
  for (const { image, ...item } of items) {
    hash.update(`\0${JSON.stringify(item)}\0`);
    if (image !== undefined) hash.update(existsSync(image) ? await readFile(image) : image);
  }
  return { name, items: items.length, hash: hash.digest("hex") };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
