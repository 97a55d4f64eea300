import { resolve } from "node:path";
import type { Command } from "commander";
import type { CheckpointOptions } from "../../model/checkpoint/open-checkpoint.ts";
import {
  SHIPPED_MODELS,
  type ShippedModel,
  shippedPlace,
} from "../../model/checkpoint/source/shipped-models.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { LoadOptions, ReadOptions } from "../../model/load-options.ts";
import { OpenModel } from "../../model/open-model.ts";
import { PatchableModel } from "../../patching/model.ts";
import { adapterChoice } from "../../platform/node-adapter.ts";
import { packageFolder } from "../../platform/node-package.ts";
import { type DeviceOptions, openDevice } from "../../tensor/open-device.ts";
import { type Update, withProgress } from "../terminal/progress.ts";
import { choice, listed } from "./arguments.ts";
import type { CommonArguments } from "./command.ts";

/** A model by its reference, and what to put it together with. */
export interface PartArguments {
  readonly lora?: readonly string[];
  readonly base?: string;
}

export interface ModelArguments extends CommonArguments, PartArguments, ReadOptions {
  readonly model: string;
}

/** What all commands run unless told otherwise, and the language model that it was fine-tuned from. */
const DEFAULT_MODEL: ShippedModel = "xpatch:vlm";
const ITS_LLM: ShippedModel = "xpatch:llm";

const MODEL = `a folder, the URL of one, a hub id such as org/name, or one of ${SHIPPED_MODELS.join(", ")}`;

/** --model, which every command that runs a model has, how its config is read, and the options of {@link PartArguments}. */
export function addModelOptions(command: Command): Command {
  return addReadOptions(addStoredModelOptions(command));
}

/** The same without adapters on top. */
export function addBareModelOptions(command: Command): Command {
  return addReadOptions(addBaseOptions(command));
}

/** The same without how its config is read: for what is said of a model as it is stored. */
export function addStoredModelOptions(command: Command): Command {
  return addBaseOptions(command).option(
    "--lora <ref>",
    "a LoRA adapter of PEFT to put on top; may be repeated",
    listed,
  );
}

/** For commands about the model itself: it may be given without the word --model as well; see {@link givenModel}. */
export function addModelArgument(command: Command, also = ""): Command {
  return addStoredModelOptions(command.argument("[model]", `the same as --model${also}`));
}

function addBaseOptions(command: Command): Command {
  return command
    .option("--model <ref>", MODEL, DEFAULT_MODEL)
    .option("--base <ref>", "where the base of an assembled model or of an adapter is");
}

/** Adds the {@link ReadOptions}. */
export function addReadOptions(command: Command): Command {
  return command.addOption(
    choice(
      "--intermediate-layers <which>",
      "of Llama 3.2 Vision: whether the projector reads the inputs of the layers that its config names, as published " +
        "checkpoints were made for (default), or their outputs, as transformers 5 does",
      ["inputs", "outputs"],
    ),
  );
}

/** Those that are given. */
export function readOptions({ intermediateLayers }: ReadOptions): ReadOptions {
  return intermediateLayers === undefined ? {} : { intermediateLayers };
}

/** The arguments with the model that was given, in one way or the other. Both are a usage error. */
export function givenModel<T extends ModelArguments>(
  argument: string | undefined,
  args: T,
  command: Command,
): T {
  if (argument === undefined) return args;
  if (command.getOptionValueSource("model") === "default") return { ...args, model: argument };
  return command.error(`error: expected one model, found ${argument} and --model ${args.model}`);
}

/** The language model that a model was fine-tuned from, if that is known: of the one that comes with xpatch. */
export function knownLlm(model: string): ShippedModel | undefined {
  const folder = resolve(packageFolder(), shippedPlace(DEFAULT_MODEL));
  return model === DEFAULT_MODEL || resolve(model) === folder ? ITS_LLM : undefined;
}

/** The options of `loadModel` and `openCheckpoint`. Gated models of the hub need HF_TOKEN. */
export function checkpointOptions({ lora, base }: PartArguments) {
  return { adapters: lora, base, accessToken: process.env.HF_TOKEN };
}

/** The `onDownload` of `openCheckpoint` that shows it. */
export function downloadShower(update: Update): NonNullable<CheckpointOptions["onDownload"]> {
  return ({ file, downloadedBytes, totalBytes }) =>
    update(downloadedBytes, totalBytes, `downloading ${file}`);
}

/**
 * Reads the model's config and tokenizer, has `prepare` check the arguments and make what can be made of them (prompts,
 * pictures), and only then loads the weights. Whoever calls it has checked what can be checked without a model: opening one
 * may take requests. Closes model and device behind `use`.
 */
export async function withModel<P, T>(
  args: ModelArguments,
  prepare: (model: ModelOutline) => P | Promise<P>,
  use: (model: PatchableModel, prepared: P) => Promise<T>,
  deviceOptions: Pick<DeviceOptions, "toggles"> = {},
): Promise<T> {
  adapterChoice(args);
  // Weights of the hub are downloaded when they are loaded.
  let show: Update = () => {};
  const onDownload = downloadShower((...progress) => show(...progress));
  await using opened = await OpenModel.open(args.model, {
    ...checkpointOptions(args),
    ...readOptions(args),
    onDownload,
  });
  const prepared = await prepare(opened.outline);
  await using device = await openDevice({ adapter: args.adapter, ...deviceOptions });
  using model = await withProgress("loading the model", async (update) => {
    show = update;
    const onProgress: LoadOptions["onProgress"] = ({ loadedBytes, totalBytes }) =>
      update(loadedBytes, totalBytes);
    return new PatchableModel(await opened.load({ device, onProgress }));
  });
  return await use(model, prepared);
}
