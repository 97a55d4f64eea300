import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ModelOutline } from "../../model/language-model.ts";
import { OpenModel } from "../../model/open-model.ts";
import { AUTHORS_RULES, type AuthorsWeights, checkFit, compareWithAuthors } from "../../parity/authors.ts";
import { type AuthorsTask, readAuthors } from "../../parity/authors-folder.ts";
import { type AuthorsReport, newAuthorsReport } from "../../parity/authors-report.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { settingOf } from "../../patching/setting.ts";
import { keep, removeOnExit } from "../../platform/node-exit.ts";
import { visionOf } from "../../tasks/pictures.ts";
import { checkPictures, ofOption } from "../options/checks.ts";
import { checkpointOptions, type ModelArguments, withModel } from "../options/session.ts";
import { withProgress } from "../terminal/progress.ts";
import { exportTo } from "./export.ts";

export interface AuthorsArguments extends ModelArguments {
  /** The folder that pictures are found from. */
  readonly pictures: string;
  readonly weights: AuthorsWeights;
}

/** Runs what the authors' program ran, and compares. Throws XpatchError for a folder or a model that does not fit. */
export async function checkAuthors(folder: string, args: AuthorsArguments): Promise<AuthorsReport> {
  const rule = AUTHORS_RULES[args.weights];
  const tasks = await ofOption("--authors", () => readAuthors(folder, args.pictures));
  const asked = tasks.filter(isPictured).flatMap(({ splits }) => splits.flatMap(({ items }) => items));
  await ofOption("--pictures", () => checkPictures(asked));
  const prepare = async (model: ModelOutline) => {
    for (const task of tasks) await checkTask(task, model);
    return tasks;
  };
  return withWeights(args, prepare, (model, tasks) =>
    withProgress("asking", async (update) => {
      const setting = { ...settingOf(model), model: args.model };
      const compared = await compareWithAuthors(tasks, model, rule, update);
      const weights =
        args.weights === "f32"
          ? "weights in f32, as `xpatch export --dtype f32` writes them"
          : "weights as stored";
      return newAuthorsReport({ ...setting, ...compared, authors: folder, weights, rule });
    }),
  );
}

async function checkTask(task: AuthorsTask, model: ModelOutline): Promise<void> {
  await ofOption("--authors", () => checkFit(task, model));
  if (isPictured(task)) await ofOption("--model", () => visionOf(model));
}

function isPictured({ examples, query }: AuthorsTask): boolean {
  return [examples, query].includes("image");
}

/**
 * Loads a model with its weights as stored or, by way of a temporary folder, as its f32 export has them; either way behind
 * `prepare`.
 */
async function withWeights<P, T>(
  args: AuthorsArguments,
  prepare: (model: ModelOutline) => Promise<P>,
  use: (model: PatchableModel, prepared: P) => Promise<T>,
): Promise<T> {
  if (args.weights === "stored") return withModel(args, prepare, use);
  const { prepared, isPlainF32 } = await beforeExport(args, prepare);
  if (isPlainF32) return withModel(args, () => prepared, use);
  const folder = await mkdtemp(join(tmpdir(), "xpatch-f32-"));
  removeOnExit(folder);
  try {
    const out = join(folder, "model");
    await exportTo({ ...args, out, dtype: "f32" });
    const exported = { ...args, model: out, lora: undefined, base: undefined };
    return await withModel(exported, () => prepared, use);
  } finally {
    await rm(folder, { recursive: true, force: true });
    keep(folder);
  }
}

async function beforeExport<P>(args: AuthorsArguments, prepare: (model: ModelOutline) => Promise<P>) {
  await using opened = await OpenModel.open(args.model, checkpointOptions(args));
  const { adapters, storedDtypes } = opened.outline;
  const isPlainF32 = adapters.length === 0 && storedDtypes.every((dtype) => dtype === "F32");
  return { prepared: await prepare(opened.outline), isPlainF32 };
}
