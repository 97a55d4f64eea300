import { access, constants, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { checkLayers } from "../../analysis/layers.ts";
import type { ControlVector } from "../../analysis/vectors/control-vector.ts";
import type { StoredTaskVectors } from "../../analysis/vectors/task-vectors.ts";
import { FileError, ImageError, SiteError, XpatchError } from "../../errors.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import { checkGrowth, type Prompt } from "../../model/prompt/prompt.ts";
import { siteInfo } from "../../model/walk/site-info.ts";
import { type SiteName, stackOfVectors, type VectorSite } from "../../model/walk/sites.ts";
import { type Positions, resolvePositions } from "../../patching/positions.ts";
import type { TaskItem } from "../../tasks/task.ts";

/** Checks of what arguments say, before a model's weights are read. They name the option that is wrong. */

/** What `check` gives; the message of an error that it throws is led by the option. */
export async function ofOption<T>(option: string, check: () => T | Promise<T>): Promise<T> {
  try {
    return await check();
  } catch (error) {
    if (error instanceof XpatchError || isSystemError(error)) error.message = `${option}: ${error.message}`;
    throw error;
  }
}

/** A file that is not there, not readable, not writable… */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "syscall" in error;
}

/** Throws FileError where a file cannot be written, as far as that is known without doing it. */
export async function checkWritable(option: string, file: string): Promise<void> {
  const found = await stat(file).catch(() => undefined);
  if (/[\\/]$/.test(file))
    throw new FileError(`${option}: expected a file, found the name of a folder, ${file}`);
  if (found?.isDirectory()) throw new FileError(`${option}: expected a file, found the folder ${file}`);
  if (found && !found.isFile()) return;
  const folder = dirname(resolve(file));
  const parent = await stat(folder).catch(() => undefined);
  if (!parent?.isDirectory()) {
    throw new FileError(`${option}: cannot write ${file}: there is no folder ${dirname(file)}`);
  }
  await access(folder, constants.W_OK).catch(() => {
    throw new FileError(`${option}: cannot write ${file}: no permission to write in ${dirname(file)}`);
  });
}

/** Throws ImageError naming the first picture of some items whose file cannot be read. URLs are not looked at. */
export async function checkPictures(items: readonly TaskItem[]): Promise<void> {
  for (const { input, image } of items) {
    if (image === undefined || /^[a-z][a-z0-9+.-]+:/i.test(image)) continue;
    await access(image, constants.R_OK).catch((error) => {
      throw new ImageError(`the picture of "${input}" cannot be read: ${error.message}`);
    });
  }
}

/** Throws SiteError for layers that the model does not have, in the stack that `site` is of; none given is all. */
export function checkLayerOption(
  model: ModelOutline,
  layers: readonly number[] | undefined,
  site?: VectorSite,
): void {
  if (layers) checkLayers(model, layers, "--layers", site);
}

/** Throws PromptError for prompts longer than the model's context, with `newTokens` that it has to compute. */
export function checkLengths(model: ModelOutline, prompts: readonly Prompt[], newTokens = 0): void {
  for (const prompt of prompts) checkGrowth(prompt.length, newTokens, model.config);
}

/** What the stack reads of a prompt that a site is of: beside an encoder a decoder reads its start token and the answer. */
export function sequenceAt(model: ModelOutline, site: VectorSite, prompt: Prompt): Prompt {
  return stackOfVectors(site) === "encoder" ? model.check(prompt) : model.sequenceOf(prompt);
}

/** Throws PromptError, led by the option, where what is read of a prompt at a site lacks the positions. */
export function checkPositions(
  model: ModelOutline,
  option: string,
  at: Positions,
  prompts: readonly Prompt[],
  site: VectorSite = "resid_post",
): Promise<void> {
  return ofOption(option, () => {
    for (const prompt of prompts) resolvePositions(at, sequenceAt(model, site, prompt));
  });
}

/** Throws SiteError when vectors are not of the width of the site that they are for, or when the model lacks that site. */
export function checkWidth(
  model: ModelOutline,
  site: SiteName,
  vectors: StoredTaskVectors | ControlVector,
): void {
  const { features } = siteInfo(model.sites, site);
  if (features !== undefined && features !== vectors.width) {
    const of = "origin" in vectors ? vectors.origin.model : vectors.modelHint;
    throw new SiteError(
      `${site} of ${model.name} is ${features} wide, the vectors of ${of} are ${vectors.width}`,
    );
  }
}
