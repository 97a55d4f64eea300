import { CheckpointError } from "../errors.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import type { PromptImage } from "../model/prompt/prompt-image.ts";
import { type SiteName, STACKS } from "../model/walk/sites.ts";
import { addVector, set } from "../patching/edit.ts";
import type { PatchableModel } from "../patching/model.ts";
import {
  checkActivations,
  type GoldenActivation,
  readActivations,
  runActivations,
  type Values,
} from "./activations.ts";
import type { CaseFolder, GoldenCase } from "./case-folder.ts";
import { type Check, checkEqual } from "./checks.ts";
import type { GradientInputs } from "./gradients.ts";
import { readImages } from "./pixels.ts";
import { checkInstructions } from "./qformer.ts";
import { checkBatch, checkGenerated, checkResumed } from "./text-cases.ts";
import { checkVision } from "./vision.ts";

/** Prompts with answers so far, and where the tokens of both are among the padding of their goldens. */
interface AnswerCase {
  readonly name: string;
  readonly prompts: readonly Prompt[];
  readonly columns: Readonly<Record<"encoder" | "decoder", readonly (readonly number[])[]>>;
  readonly extent: Readonly<Record<"encoder" | "decoder", number>>;
}

/**
 * Runs the cases of an encoder-decoder: activations of both stacks and logits for given answers, greedy answers from the start
 * token alone, patched runs (in full and resumed), and batches, which have to agree with single runs besides.
 */
export async function checkAnswerCases(
  folder: CaseFolder,
  model: PatchableModel,
): Promise<{ checks: Check[]; gradients: GradientInputs | undefined }> {
  const checks: Check[] = [];
  let first: Prompt | undefined;
  for (const golden of folder.cases) {
    const { given, inputs } = await readCase(folder, golden, model);
    first ??= given.prompts[0];
    const unanswered = given.prompts.map(({ ids, images }) =>
      model.promptFromIds(ids, images as readonly PromptImage[]),
    );
    checks.push(
      ...inputs,
      ...(await checkVision(folder, given.name, given.prompts, model)),
      ...(await checkRuns(folder, given, model)),
      ...(await checkGenerated(folder, { name: given.name, prompts: unanswered }, model)),
      ...(await checkPatches(folder, golden, given, model)),
    );
  }
  const gradients = first && {
    prompt: first,
    lossPrompt: (labels: readonly number[]) =>
      model.promptFromIds(first.ids, first.images as readonly PromptImage[], labels),
  };
  return { checks, gradients };
}

/** The goldens' ids as prompts with answers, and checks of what we would have made of the texts. */
async function readCase(
  folder: CaseFolder,
  golden: GoldenCase,
  model: PatchableModel,
): Promise<{ given: AnswerCase; inputs: Check[] }> {
  const { goldens } = folder;
  const { name } = golden;
  const [item] = golden.items;
  const ids = await goldens.read(`${name}/in.input_ids`, 2);
  const mask = await goldens.read(`${name}/in.attention_mask`, 2);
  const answers = await goldens.read(`${name}/in.decoder_input_ids`, 2);
  const [count, length] = ids.shape as [number, number];
  const texts = [item!["text"]].flat().map(String);
  if (mask.shape.join() !== ids.shape.join() || answers.shape[0] !== count || texts.length !== count) {
    const found = `[${ids.shape}], [${mask.shape}], [${answers.shape}] and ${texts.length}`;
    throw new CheckpointError(
      `${name}: expected ids, a mask, ids of answers and texts of as many prompts, found ${found}`,
    );
  }
  const files = Array.isArray(item!["text"]) ? item!["images"] : [item!["images"]];
  const items = texts.map((_, b) => ({ images: Array.isArray(files) ? files[b] : undefined }));
  const { images, checks } = await readImages(folder, { ...golden, items }, model);
  const steps = answers.shape[1]!;
  const encoder = texts.map((_, b) => [...Array(length).keys()].filter((c) => mask.values[b * length + c]));
  const decoder = texts.map(() => [...Array(steps).keys()]);
  const theirs = encoder.map((own, b) => own.map((c) => ids.values[b * length + c]!));
  const theirAnswers = texts.map((_, b) => [...answers.values.slice(b * steps, (b + 1) * steps)]);
  const target = String(item!["target"]);
  const ours = texts.map((text, b) => model.prompt(text, { answer: target, images: images[b]! }));
  const inputs = [
    ...checks,
    checkEqual(
      `${name}/in.input_ids, from the text`,
      ours.map((prompt) => prompt.ids),
      theirs,
    ),
    checkEqual(
      `${name}/in.decoder_input_ids, from the text`,
      ours.map((prompt) => model.sequenceOf(prompt).ids),
      theirAnswers,
    ),
  ];
  const prompts = theirs.map((own, b) => model.promptFromIds(own, images[b], theirAnswers[b]!.slice(1)));
  inputs.push(...(await checkInstructions(goldens, name, { ours, again: prompts })));
  return {
    given: { name, prompts, columns: { encoder, decoder }, extent: { encoder: length, decoder: steps } },
    inputs,
  };
}

/** The goldens called `prefix` and a site, or `prefix`, the stack and a site. */
async function readStacks(
  { goldens }: CaseFolder,
  { columns, extent }: AnswerCase,
  prefixes: readonly (readonly [stack: "encoder" | "decoder", prefix: string])[],
  { sites }: PatchableModel,
): Promise<GoldenActivation[]> {
  const keys = { columns: columns.encoder, extent: extent.encoder };
  const patterns = Array.from({ length: sites.text.layers }, (_, layer): [string, SiteName] => [
    `cross_attn_pattern.${layer}`,
    `xattn_pattern.${layer}`,
  ]);
  const names = Object.fromEntries(patterns);
  const found = prefixes.map(([stack, prefix]) => {
    const own = { sites, stack: stack === "encoder" ? ("encoder" as const) : ("text" as const) };
    return readActivations(goldens, prefix, columns[stack], { ...own, extent: extent[stack], keys, names });
  });
  return (await Promise.all(found)).flat();
}

async function checkRuns(folder: CaseFolder, given: AnswerCase, model: PatchableModel): Promise<Check[]> {
  const { name, prompts } = given;
  const activations = await readStacks(
    folder,
    given,
    [
      ["encoder", `${name}/`],
      ["decoder", `${name}/decoder.`],
      ["decoder", `${name}/`],
    ],
    model,
  );
  const together = await runActivations(model, activations, prompts);
  const checks = checkActivations(activations, together, folder.tolerance);
  if (prompts.length === 1) return checks;
  const alone: Values[] = [];
  for (const prompt of prompts) alone.push(await runActivations(model, activations, [prompt]));
  return [...checks, ...checkBatch(activations, together, alone)];
}

/**
 * The goldens of a run that was patched in one of the stacks: logits, and of a run that was patched in the encoder a stream of
 * the encoder or of the decoder; they have as many rows as that.
 */
async function readPatched(
  folder: CaseFolder,
  given: AnswerCase,
  stack: "encoder" | "decoder",
  prefix: string,
  model: PatchableModel,
): Promise<GoldenActivation[]> {
  const { goldens } = folder;
  const { columns, extent } = given;
  const streams =
    stack === "decoder" ? [] : goldens.names.filter((name) => name.startsWith(`${prefix}resid_post.`));
  const ofEncoder = streams.filter((name) => goldens.shape(name)[1] === extent.encoder);
  if (ofEncoder.length === 0) return await readStacks(folder, given, [["decoder", prefix]], model);
  const { sites } = model;
  const own = ofEncoder.map((name) => name.slice(prefix.length));
  const names = Object.fromEntries(own.map((name) => [name, `${STACKS.encoder}${name}` as SiteName]));
  const read = { sites, extent: extent.encoder, names };
  const rest = { sites, extent: extent.decoder, only: (site: SiteName) => !own.includes(site) };
  return [
    ...(await readActivations(goldens, prefix, columns.encoder, { ...read, stack: "encoder" })),
    ...(await readActivations(goldens, prefix, columns.decoder, { ...rest, stack: "text" })),
  ];
}

/** Runs with a vector put in place of a residual stream of either stack, or added to it. */
async function checkPatches(
  folder: CaseFolder,
  { spec }: GoldenCase,
  given: AnswerCase,
  model: PatchableModel,
): Promise<Check[]> {
  const checks: Check[] = [];
  for (const stack of ["encoder", "decoder"] as const) {
    for (const [operation, edit] of [["replace", set] as const, ["add", addVector] as const]) {
      const prefix = `${given.name}/${stack}.patch.${operation}.`;
      if (!folder.goldens.has(`${prefix}vector`)) continue;
      const patch = spec.section("patch").section(stack);
      const site: SiteName = `${stack === "encoder" ? STACKS.encoder : STACKS.text}resid_post.${patch.count("layer", undefined, 0)}`;
      const { values } = await folder.goldens.read(`${prefix}vector`, 1);
      const edits = [edit(site, patch.integer(`${operation}_position`), values as Float32Array)];
      const activations = await readPatched(folder, given, stack, prefix, model);
      const found = await runActivations(model, activations, given.prompts, edits);
      checks.push(
        ...checkActivations(activations, found, folder.tolerance),
        ...(await checkResumed(model, activations, given.prompts, edits, folder.tolerance)),
      );
    }
  }
  return checks;
}
