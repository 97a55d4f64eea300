import { FolderLock } from "../../experiments/framework/folder-lock.ts";
import { Lab } from "../../experiments/framework/lab.ts";
import { type LabOptions, settingOf } from "../../experiments/framework/setting.ts";
import { Store } from "../../experiments/framework/store.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { SPACED_TEMPLATE } from "../../src/tasks/few-shot.ts";
import type { Split, Task, TaskItem } from "../../src/tasks/task.ts";

const PICTURES = ["photo", "tall", "gray", "rgba"];

export const OPTIONS: LabOptions = {
  seeds: 2,
  promptSeeds: 1,
  shots: 2,
  template: SPACED_TEMPLATE,
  layerBy: "mean",
  outsideMeans: [],
};

/** A task with pictures, of which about half of all answers are right, so that a random model has something to be right in. */
export function randomTask(model: PatchableModel, name: string): Task {
  const tokens = Array.from({ length: 440 }, (_, id) =>
    model.tokenizer.decode([id], { skipSpecial: true }).trim(),
  );
  const texts = [...new Set(tokens)].filter((text) => /^[a-zA-Z]+$/.test(text));
  const item = (split: Split, i: number): TaskItem => ({
    input: `${name} ${split} ${i}`,
    outputs: texts.filter((_, t) => (t * 7 + i * 5 + name.length) % 11 < 5),
    split,
    image: `${import.meta.dirname}/../fixtures/images/${PICTURES[i % PICTURES.length]}.png`,
  });
  const items = (["validation", "test"] as const).flatMap((split) => [0, 1, 2, 3].map((i) => item(split, i)));
  return { name, instruction: `The ${name}:`, items };
}

/** What stands under the numbers of reports. */
export const command = (experiment: string) => `npx xpatch experiment ${experiment} --seeds 2`;

/** Of the labs opened so far, by folder. */
const locks = new Map<string, FolderLock>();

/** A lab in a folder, whose run is begun or gone on with; one that was opened there before has lost it. */
export async function openLab(
  folder: string,
  model: PatchableModel,
  tasks: readonly Task[],
  options: LabOptions = OPTIONS,
  llm?: PatchableModel,
): Promise<Lab> {
  const setting = await settingOf({ model, llm, tasks, options });
  locks.get(folder)?.[Symbol.dispose]();
  const lock = FolderLock.take(folder);
  locks.set(folder, lock);
  return new Lab({
    model,
    llm,
    tasks,
    options,
    setting,
    store: await Store.open(lock, setting),
    folder,
    command,
  });
}
