import { isAbsolute, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { type LoadOptions, type ModelOutline, OpenModel } from "../../model/language-model.ts";
import { PatchableModel } from "../../patching/model.ts";
import { openDevice } from "../../tensor/device.ts";
import { withProgress } from "../terminal/output.ts";
import { listed } from "./arguments.ts";
import type { CommonArguments } from "./command.ts";

/** A model by its reference, and what to put it together with. */
export interface PartArguments {
  readonly lora?: readonly string[];
  readonly base?: string;
}

export interface ModelArguments extends CommonArguments, PartArguments {
  readonly model: string;
}

/** --model, which every command that runs a model has, and the options of {@link PartArguments}. */
export function addModelOptions(command: Command, defaultModel?: string): Command {
  const model = [
    "--model <ref>",
    "a folder, the URL of one, or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct",
  ] as const;
  if (defaultModel === undefined) command.requiredOption(...model);
  else command.option(...model, defaultModel);
  return addPartOptions(command);
}

/** The model that comes with xpatch; from within the checkout by its short name. */
export function shippedModel(): string {
  return shipped("vlm");
}

/** The language model that a model was fine-tuned from, if that is known: of the one that comes with xpatch. */
export function knownLlm(model: string): string | undefined {
  return resolve(model) === resolve(shippedModel()) ? shipped("llm") : undefined;
}

function shipped(folder: "vlm" | "llm"): string {
  const path = fileURLToPath(new URL(`../../../weights/${folder}`, import.meta.url));
  const short = relative(process.cwd(), path);
  // Without the dot it could be a hub id.
  return isAbsolute(short) || short.startsWith("..") ? path : `./${short}`;
}

export function addPartOptions(command: Command): Command {
  return command
    .option("--lora <ref>", "a LoRA adapter of PEFT to put on top; may be repeated", listed)
    .option("--base <ref>", "where the base of an assembled model or of an adapter is");
}

/** The options of `loadModel` and `openCheckpoint`. Gated models of the hub need HF_TOKEN. */
export function checkpointOptions({ lora, base }: PartArguments) {
  return { adapters: lora, base, accessToken: process.env.HF_TOKEN };
}

/**
 * Reads the model's config and tokenizer, has `prepare` check the arguments and make what can be made of them (prompts,
 * pictures), and only then loads the weights; a mistake is found at once. Closes model and device behind `use`.
 */
export async function withModel<P, T>(
  args: ModelArguments,
  prepare: (model: ModelOutline) => P | Promise<P>,
  use: (model: PatchableModel, prepared: P) => Promise<T>,
): Promise<T> {
  await using opened = await OpenModel.open(args.model, checkpointOptions(args));
  const prepared = await prepare(opened.outline);
  await using device = await openDevice({ adapter: args.adapter });
  using model = await withProgress("loading the model", async (update) => {
    const onProgress: LoadOptions["onProgress"] = ({ loadedBytes, totalBytes }) =>
      update(loadedBytes, totalBytes);
    return new PatchableModel(await opened.load({ device, onProgress }));
  });
  return await use(model, prepared);
}
