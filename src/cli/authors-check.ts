import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openCheckpoint } from "../model/open-checkpoint.ts";
import type { PatchableModel } from "../patching/model.ts";
import { readAuthors } from "./authors-folder.ts";
import { type AuthorsReport, newAuthorsReport } from "./authors-report.ts";
import { exportTo } from "./export.ts";
import { withProgress } from "./output.ts";
import { AUTHORS_RULES, type AuthorsWeights, compareWithAuthors } from "./parity-authors.ts";
import { checkpointOptions, type ModelArguments, settingOf, withModel } from "./session.ts";

export interface AuthorsArguments extends ModelArguments {
  /** The folder that pictures are found from. */
  readonly pictures: string;
  readonly weights: AuthorsWeights;
}

/** Runs what the authors' program ran, and compares. Throws XpatchError for a folder or a model that does not fit. */
export async function checkAuthors(folder: string, args: AuthorsArguments): Promise<AuthorsReport> {
  const tasks = await readAuthors(folder, args.pictures);
  const rule = AUTHORS_RULES[args.weights];
  return withWeights(args, (model) =>
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

/** Loads a model with its weights as stored or, by way of a temporary folder, as its f32 export has them. */
async function withWeights<T>(
  args: AuthorsArguments,
  use: (model: PatchableModel) => Promise<T>,
): Promise<T> {
  if (args.weights === "stored" || (await isPlainF32(args))) return withModel(args, use);
  const folder = await mkdtemp(join(tmpdir(), "xpatch-f32-"));
  try {
    const out = join(folder, "model");
    await exportTo(args.model, { ...args, out, dtype: "f32" });
    return await withModel({ ...args, model: out, lora: undefined, base: undefined }, use);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function isPlainF32(args: AuthorsArguments): Promise<boolean> {
  await using checkpoint = await openCheckpoint(args.model, checkpointOptions(args));
  return checkpoint.adapters.length === 0 && checkpoint.storedDtypes.every((dtype) => dtype === "F32");
}
