import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import {
  type Device,
  type LoadOptions,
  loadModel,
  openCheckpoint,
  type PatchableModel,
  type Task,
  XpatchError,
} from "xpatch";
import type { ModelOutline } from "#src/model/language-model";
import { OpenModel } from "#src/model/open-model";
import type { GivenOptions } from "../framework/lab-options.ts";
import { hashOutline } from "../framework/setting.ts";
import { paperTasks } from "../protocol.ts";
import type { PlanModel } from "./plan.ts";

/** What a grid takes from whoever runs it. */
export interface GridSources {
  /** A task by its name, or a file. Throws XpatchError where there is none. */
  readTask(ref: string): Promise<Task>;
  /** The language model that a model was fine-tuned from, where none is given and it is known. */
  knownLlm?(model: string): string | undefined;
  /** Throws XpatchError where a picture of a task's items is not there. */
  checkPictures?(items: Task["items"]): Promise<void>;
}

/** Something asked of a model whose weights have not been read. */
export class WeightsNeeded extends XpatchError {
  override name = "WeightsNeeded";
}

/** A reference to a model, from whichever folder it is opened: what is there relative to `folder` is a path. */
export function placeOf(folder: string, ref: string): string {
  const path = resolve(folder, ref);
  return existsSync(path) ? path : ref;
}

/** The same for a task: files have an ending. */
function taskPlaceOf(folder: string, ref: string): string {
  return /\.(csv|json)$/i.test(ref) ? resolve(folder, ref) : ref;
}

/** What `openCheckpoint` takes beside the reference. */
export function openedWith(source: PlanModel, folder: string) {
  return {
    ...(source.lora && { adapters: source.lora.map((ref) => placeOf(folder, ref)) }),
    ...(source.base !== undefined && { base: placeOf(folder, source.base) }),
  };
}

export function readWith({ intermediateLayers }: PlanModel) {
  return intermediateLayers === undefined ? {} : { intermediateLayers };
}

export async function openOutline(source: PlanModel, folder: string): Promise<ModelOutline> {
  await using opened = await OpenModel.open(placeOf(folder, source.model), {
    ...openedWith(source, folder),
    ...readWith(source),
    accessToken: process.env.HF_TOKEN,
  });
  return opened.outline;
}

/** SHA-256 over config, tokenizer and preprocessing of an opened model, by its name. */
export async function outlineHash(name: string, opened: ReturnType<typeof openedWith>): Promise<string> {
  await using checkpoint = await openCheckpoint(name, { ...opened, accessToken: process.env.HF_TOKEN });
  const hash = createHash("sha256");
  await hashOutline(hash, checkpoint);
  return hash.digest("hex");
}

/** Throws CheckpointError, as `loadModel` does. */
export function loadSource(
  source: PlanModel,
  folder: string,
  device: Device,
  onProgress?: LoadOptions["onProgress"],
): Promise<PatchableModel> {
  return loadModel(placeOf(folder, source.model), {
    device,
    ...openedWith(source, folder),
    ...readWith(source),
    accessToken: process.env.HF_TOKEN,
    ...(onProgress && { onProgress }),
  });
}

/** A model to list cells and write reports with: whatever takes its weights throws {@link WeightsNeeded}. */
export function withoutWeights(outline: ModelOutline): PatchableModel {
  return new Proxy(outline, {
    get(target, key) {
      if (!(key in target)) {
        if (typeof key === "symbol" || key === "then") return undefined;
        throw new WeightsNeeded(`${target.name}: ${key} takes the weights, which have not been read`);
      }
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  }) as unknown as PatchableModel;
}

/** A task of a plan. Throws XpatchError where there is none. */
export function readTask(ref: string, folder: string, { readTask: read }: GridSources): Promise<Task> {
  return read(taskPlaceOf(folder, ref));
}

/** Tasks as they are asked about under some options. */
export function tasksUnder({ protocol }: GivenOptions, tasks: readonly Task[]): readonly Task[] {
  return protocol === "paper" ? paperTasks(tasks) : tasks;
}
