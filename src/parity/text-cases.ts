import { CheckpointError } from "../errors.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import type { SiteName } from "../model/walk/sites.ts";
import { addVector, type Edit, set } from "../patching/edit.ts";
import type { PatchableModel } from "../patching/model.ts";
import { resume } from "../patching/resume.ts";
import {
  checkActivations,
  type GoldenActivation,
  readActivations,
  runActivations,
  type Values,
  type Wanted,
} from "./activations.ts";
import { checkCanvasInputs, checkCrossLayers } from "./canvas-goldens.ts";
import type { CaseFolder, GoldenCase } from "./case-folder.ts";
import { type Check, checkEqual, checkTensor, type Tolerance } from "./checks.ts";
import { checkCrossAttention } from "./cross-attention.ts";
import type { Golden } from "./golden-file.ts";
import type { GradientInputs } from "./gradients.ts";
import { checkPicturePositions } from "./picture-positions.ts";
import { imageFiles, readImages } from "./pixels.ts";
import { checkInstructions } from "./qformer.ts";
import { checkVision } from "./vision.ts";

/** How far a prompt in a batch may be from the same prompt alone. */
const BATCH_TOLERANCE: Tolerance = { atol: 1e-5, rtol: 1e-5 };

/** The prompts of one case, and where their tokens are among the padding of its goldens. */
export interface TextCase extends GoldenCase {
  readonly prompts: readonly Prompt[];
  /** For each prompt, the columns of its tokens. */
  readonly columns: readonly (readonly number[])[];
  /** Columns with the padding. */
  readonly extent: number;
}

/**
 * Runs the cases of a decoder that reads text, and perhaps pictures: activations, logits, greedy continuations, patched runs (in full and
 * resumed), and batches, which have to agree with single runs besides. The prompts of a batch are one run of ours.
 */
export async function checkTextCases(
  folder: CaseFolder,
  model: PatchableModel,
): Promise<{ checks: Check[]; gradients: GradientInputs | undefined }> {
  const checks: Check[] = [];
  let first: Prompt | undefined;
  for (const golden of folder.cases) {
    const { text, inputs } = await readPrompts(folder, golden, model);
    const [prompt] = text.prompts;
    first ??= prompt;
    checks.push(
      ...inputs,
      ...(await checkVision(folder, golden.name, text.prompts, model)),
      ...(await checkRuns(folder, text, model)),
      ...(await checkCrossAttention(folder, text, model)),
      ...(await checkCrossLayers(folder, golden.name, text.prompts, model)),
      ...(await checkGenerated(folder, text, model)),
      ...(await checkPatches(folder, text, model)),
    );
  }
  return { checks, gradients: first && { prompt: first, lossPrompt: () => first } };
}

/** The goldens' ids as prompts, and checks of what we would have made of the texts. */
async function readPrompts(
  folder: CaseFolder,
  golden: GoldenCase,
  model: PatchableModel,
): Promise<{ text: TextCase; inputs: Check[] }> {
  const { goldens } = folder;
  const { name, items } = golden;
  const ids = await goldens.read(`${name}/in.input_ids`, 2);
  const mask = await goldens.read(`${name}/in.attention_mask`, 2);
  const [count, length] = ids.shape as [number, number];
  if (count !== items.length || mask.shape.join() !== ids.shape.join()) {
    const found = `[${ids.shape}] and [${mask.shape}]`;
    throw new CheckpointError(`${name}: expected ids and a mask of ${items.length} prompts, found ${found}`);
  }
  const all = Array.from({ length }, (_, column) => column);
  const columns = items.map((_, b) => all.filter((column) => mask.values[b * length + column]));
  const unpadded = ({ values }: Pick<Golden, "values">) =>
    columns.map((own, b) => own.map((c) => values[b * length + c]!));
  const theirs = unpadded(ids);
  const { images, checks: inputs } = await readImages(folder, golden, model);
  const ours = items.map((item, i) =>
    model.prompt(String(item["text"]), { images: images[i]!.slice(0, imageFiles(item["images"]).length) }),
  );
  inputs.push(
    checkEqual(
      `${name}/in.input_ids, from the text`,
      ours.map((prompt) => prompt.ids),
      theirs,
    ),
  );
  const positions = `${name}/in.position_ids`;
  if (goldens.has(positions)) {
    const first = model.config.rope?.firstPosition ?? 0;
    const counted = columns.map((own) => own.map((_, i) => first + i));
    inputs.push(checkEqual(positions, counted, unpadded(await goldens.read(positions, 2))));
  }
  const prompts = theirs.map((own, i) => model.promptFromIds(own, images[i]));
  inputs.push(
    ...(await checkPicturePositions(goldens, name, prompts, unpadded, model)),
    ...(await checkCanvasInputs(folder, name, prompts, columns, model)),
    ...(await checkInstructions(goldens, name, { ours, again: prompts })),
  );
  return { text: { ...golden, prompts, columns, extent: length }, inputs };
}

function wanted({ sites }: PatchableModel, extent: number): Wanted {
  // The goldens number blocks of cross-attention by themselves; here they have the number of the layer behind them.
  const layers = sites.text.cross?.layers ?? [];
  const names = Object.fromEntries(
    layers.map((layer, block): [string, SiteName] => [`cross_out.${block}`, `resid_pre.${layer}`]),
  );
  return { sites, stack: "text", extent, names };
}

async function checkRuns(
  { goldens, tolerance }: CaseFolder,
  { name, prompts, columns, extent }: TextCase,
  model: PatchableModel,
): Promise<Check[]> {
  const activations = await readActivations(goldens, `${name}/`, columns, wanted(model, extent));
  const together = await runActivations(model, activations, prompts);
  const checks = checkActivations(activations, together, tolerance);
  if (prompts.length === 1) return checks;
  const alone: Values[] = [];
  for (const prompt of prompts) alone.push(await runActivations(model, activations, [prompt]));
  return [...checks, ...checkBatch(activations, together, alone)];
}

/** Compares what prompts give in one batch with what each gives alone. */
export function checkBatch(
  activations: readonly GoldenActivation[],
  together: Values,
  alone: readonly Values[],
): Check[] {
  return activations.map(({ name }, a) => {
    const single = alone.map((values) => values[a]![0]!);
    return checkTensor(`${name}, batch against single`, together[a]!, single, BATCH_TOLERANCE);
  });
}

/** Greedy continuations of a case, in one batch and one at a time. */
export async function checkGenerated(
  { goldens }: CaseFolder,
  { name, prompts }: Pick<TextCase, "name" | "prompts">,
  model: PatchableModel,
): Promise<Check[]> {
  const key = `${name}/generate.ids`;
  if (!goldens.has(key)) return [];
  const { shape, values } = await goldens.read(key, 2);
  const maxNewTokens = shape[1]!;
  const expected = prompts.map((_, b) => [...values.slice(b * maxNewTokens, (b + 1) * maxNewTokens)]);
  const options = { maxNewTokens, stopIds: [] };
  const together = await model.generate(prompts, options);
  const checks = [checkEqual(key, idsOf(together), expected)];
  if (prompts.length > 1) {
    const alone = [];
    for (const prompt of prompts) alone.push(await model.generate(prompt, options));
    checks.push(checkEqual(`${key}, one at a time`, idsOf(alone), expected));
  }
  return checks;
}

function idsOf(generated: readonly { readonly ids: readonly number[] }[]): (readonly number[])[] {
  return generated.map(({ ids }) => ids);
}

/** Runs with a vector put in place of a residual stream, or added to it. */
async function checkPatches(
  { goldens, tolerance }: CaseFolder,
  { name, prompts, columns, extent, spec }: TextCase,
  model: PatchableModel,
): Promise<Check[]> {
  const checks: Check[] = [];
  for (const [operation, edit] of [["replace", set] as const, ["add", addVector] as const]) {
    const prefix = `${name}/patch.${operation}.`;
    if (!goldens.has(`${prefix}vector`)) continue;
    const patch = spec.section("patch");
    const site: SiteName = `resid_post.${patch.count("layer", undefined, 0)}`;
    const { values } = await goldens.read(`${prefix}vector`, 1);
    const edits = [edit(site, patch.integer(`${operation}_position`), values as Float32Array)];
    const activations = await readActivations(goldens, prefix, columns, wanted(model, extent));
    checks.push(
      ...checkActivations(activations, await runActivations(model, activations, prompts, edits), tolerance),
      ...(await checkResumed(model, activations, prompts, edits, tolerance)),
    );
  }
  return checks;
}

/** The logits of a patched run once more, this time recomputing only what the patch can change. */
export async function checkResumed(
  model: PatchableModel,
  activations: readonly GoldenActivation[],
  prompts: readonly Prompt[],
  edits: readonly Edit[],
  tolerance: Tolerance,
): Promise<Check[]> {
  const golden = activations.find(({ name }) => name.endsWith(".logits_last"));
  if (!golden) return [];
  using recording = model.record(prompts);
  using logits = resume(
    recording,
    prompts.map((_, prompt) => ({ prompt, edits })),
  ).logits;
  const expected = golden.each.flatMap(({ values }) => [...values]);
  return [checkTensor(`${golden.name}, resumed`, [await logits.read()], [expected], tolerance)];
}
