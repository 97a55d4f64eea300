import { createHash } from "node:crypto";
import { posix } from "node:path";
import {
  decodeTaskVectors,
  encodeTaskVectors,
  extractTaskVectors,
  type PatchableModel,
  type Prompt,
  type PromptImage,
  type SpecificationKind,
  type Tensor,
  upToLastExample,
  XpatchError,
} from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { Lab } from "../framework/lab.ts";
import { instructionOf, specifiedQueries } from "../framework/prompts.ts";

/** Whose activations: those of the model, or of the language model that it was fine-tuned from. */
export type Source = "model" | "llm";

export interface VectorsParams {
  readonly source: Source;
  readonly task: string;
  readonly specification: SpecificationKind;
  readonly seed: number;
  /** The lab's unless given. */
  readonly template?: string;
}

/** Prompts that differ in one thing from those of the task's own vectors: what controls are made of. */
export type PromptVariant = "permuted-answers" | "other-template";

/** Shares no word with the usual templates. */
export const OTHER_TEMPLATE = "Input = {x}\nOutput = {y}\n\n";

export interface VectorsResult {
  /** Safetensors file in the run's folder, as `xpatch patch --vectors` takes it. */
  readonly file: string;
  /** The prompts averaged, up to the token where the vector is read. */
  readonly prompts: readonly string[];
}

/**
 * Extracts the task vectors of all layers. Of examples: the mean, over prompts for the validation items, at the answer cue
 * of the last example, where neither its answer nor the query is seen. Of an instruction: at its last token.
 */
export const taskVectors = defineCell("vectors", (lab, params: VectorsParams) => extracted(lab, params));

/** The same of prompts that differ from those in one thing. */
export const variantVectors = defineCell(
  "variant-vectors",
  (lab, { variant, ...params }: VectorsParams & { readonly variant: PromptVariant }) =>
    extracted(lab, params, variant),
);

async function extracted(
  lab: Lab,
  { source, specification, seed, task: name, template }: VectorsParams,
  variant?: PromptVariant,
): Promise<VectorsResult> {
  const model = modelOf(lab, source);
  const task = lab.task(name);
  const asked = {
    split: "validation",
    specification,
    query: "text",
    seed,
    template,
    answers: variant === "permuted-answers" ? "permuted" : "own",
    ...(variant === "other-template" && { template: OTHER_TEMPLATE }),
  } as const;
  const whole =
    specification === "instruction"
      ? [model.prompt(instructionOf(task))]
      : await specifiedQueries(lab, task, asked, model);
  const prompts =
    specification === "instruction" ? whole : whole.map((prompt) => upToLastExample(model, prompt));
  lab.spendPasses(prompts, model, whole);
  const parts = [source, encodeURIComponent(task.name), specification, seed, ...(variant ? [variant] : [])];
  return extractInto(lab, `${parts.join("-")}${markOf(template)}`, prompts, model);
}

/** The mean over prompts at their last tokens, behind each layer, as a file of the run's folder. */
export async function extractInto(
  lab: Lab,
  name: string,
  prompts: readonly Prompt<PromptImage>[],
  model = lab.model,
): Promise<VectorsResult> {
  using vectors = extractTaskVectors(model, prompts, { site: lab.stream });
  const file = posix.join("vectors", `${name}.safetensors`);
  await lab.store.keepFile(file, await encodeTaskVectors(vectors));
  return { file, prompts: prompts.map(({ text }) => text) };
}

/** The task vectors of a cell, or of a variant, by layer, each [width]. */
export async function vectorsOf(
  lab: Lab,
  params: VectorsParams,
  variant?: PromptVariant,
): Promise<readonly Float32Array[]> {
  const cell = variant ? variantVectors({ ...params, variant }) : taskVectors(params);
  return vectorsIn(lab, await lab.run(cell));
}

/** Those of a file in the run's folder. */
export async function vectorsIn(
  lab: Lab,
  { file }: Pick<VectorsResult, "file">,
): Promise<readonly Float32Array[]> {
  using loaded = await decodeTaskVectors(lab.store.file(file), lab.model.device, file);
  const { site } = loaded.origin;
  if (site !== lab.stream) {
    throw new XpatchError(`${file}: expected vectors of ${lab.stream}, found those of ${site}`);
  }
  return rowsOf(loaded.vectors);
}

/** Part of a file's name that tells templates apart; none for the lab's own. */
function markOf(template: string | undefined): string {
  if (template === undefined) return "";
  return `-${createHash("sha256").update(template).digest("hex").slice(0, 8)}`;
}

/** The rows of a matrix on the host. */
export async function rowsOf(matrix: Tensor): Promise<Float32Array[]> {
  const [rows = 0, width = 0] = matrix.shape;
  const values = (await matrix.read()) as Float32Array;
  return Array.from({ length: rows }, (_, row) => values.slice(row * width, (row + 1) * width));
}

export function modelOf(lab: Lab, source: Source): PatchableModel {
  const model = source === "llm" ? lab.llm : lab.model;
  if (model) return model;
  throw new XpatchError("this needs the language model that the model was fine-tuned from");
}
