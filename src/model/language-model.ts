import type { Device } from "../tensor/device.ts";
import { CheckpointError } from "../tensor/errors.ts";
import type { Scope } from "../tensor/scope.ts";
import {
  type ImageRules,
  type PromptOptions,
  type PromptPart,
  prompt,
  promptFromIds,
} from "./build-prompt.ts";
import { type ChatMessage, type ChatOptions, chatPrompt, findChatTemplate } from "./chat-template.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { isObject, type JsonObject } from "./config.ts";
import type { DecoderConfig } from "./decoder-config.ts";
import type { Family } from "./family.ts";
import type { Folder } from "./folder.ts";
import type { Network } from "./network.ts";
import { requireNeutral } from "./neutral-fields.ts";
import { type CheckpointOptions, openCheckpoint } from "./open-checkpoint.ts";
import type { Prompt } from "./prompt.ts";
import { readQuantisation } from "./quantisation.ts";
import { familyOf } from "./registry.ts";
import { type SiteMap, siteMapOf } from "./site-shapes.ts";
import { createTokenizer, type Tokenizer } from "./tokenizer.ts";
import type { PromptImage } from "./vision-setup.ts";
import { loadWeights, type WeightOptions } from "./weights.ts";

export interface LoadOptions extends CheckpointOptions, WeightOptions {
  device: Device;
}

/** The parts of a loaded model; `loadModel` of the patching room puts its methods on them. */
export interface ModelParts {
  /** The folder, URL or hub id that it came from. */
  readonly name: string;
  readonly family: string;
  readonly network: Network;
  readonly tokenizer: Tokenizer;
  readonly chatTemplate: string | undefined;
  readonly imageRules: ImageRules<PromptImage> | undefined;
  /** Ids that end an answer, from generation_config.json or config.json. */
  readonly endIds: ReadonlySet<number>;
  /** Dtypes of the weights as stored, most bytes first. */
  readonly storedDtypes: readonly string[];
  /** Folders, URLs or hub ids of the LoRA adapters that are part of it. */
  readonly adapters: readonly string[];
  /** Holds the weights. */
  readonly memory: Scope;
}

/** Everything about a language model but its weights. */
export interface ModelFiles {
  readonly family: Family;
  /** config.json */
  readonly config: JsonObject;
  readonly decoder: DecoderConfig;
  readonly tokenizer: Tokenizer;
  readonly chatTemplate: string | undefined;
  /** Ids that end an answer, from generation_config.json or config.json. */
  readonly endIds: ReadonlySet<number>;
}

/** Reads and checks the files around the weights. Throws CheckpointError. */
export async function readModelFiles(checkpoint: Checkpoint): Promise<ModelFiles> {
  const { config, name } = checkpoint;
  if (!config)
    throw new CheckpointError(
      `${name}: a lone tensor file is no model; expected a folder with a config.json ` +
        "(`xpatch convert` makes one of a GGUF file)",
    );

  const where = `${name}/config.json`;
  const family = familyOf(config, where);
  readQuantisation(config, where);
  requireNeutral(config, where, ["transformers_weights"]);
  const tokenizerConfig = await checkpoint.json("tokenizer_config.json");
  const tokenizer = createTokenizer(await checkpoint.json("tokenizer.json"), tokenizerConfig ?? undefined);
  const processorConfig = await checkpoint.json("processor_config.json");
  const decoder = family.readConfig(config, where, {
    preprocessor: (await checkpoint.json("preprocessor_config.json")) ?? processorConfig,
    tokenOf: (id) => tokenizer.tokenOf(id),
  });
  const chatTemplate = findChatTemplate({
    jinja: await checkpoint.text("chat_template.jinja"),
    json: await checkpoint.json("chat_template.json"),
    processorConfig,
    tokenizerConfig,
  });
  const generation = (await checkpoint.json("generation_config.json")) as Record<string, unknown> | undefined;
  const text = isObject(config["text_config"]) ? config["text_config"] : config;
  const endIds = generation?.["eos_token_id"] ?? config["eos_token_id"] ?? text["eos_token_id"];
  return { family, config, decoder, tokenizer, chatTemplate, endIds: idsOf(endIds) };
}

/**
 * Loads a Hugging Face checkpoint: a folder, a URL, or a hub id such as `HuggingFaceTB/SmolLM2-135M-Instruct`; see
 * `openCheckpoint` for assembled models and adapters. Throws CheckpointError for what is damaged, missing or not
 * supported.
 */
export async function loadParts(ref: string | Folder, options: LoadOptions): Promise<ModelParts> {
  await using checkpoint = await openCheckpoint(ref, options);
  const { family, config, decoder, ...files } = await readModelFiles(checkpoint);
  const { built: network, memory } = await loadWeights(
    checkpoint,
    options.device,
    (weights) => family.build(weights, decoder, config),
    options,
  );
  return {
    ...files,
    name: checkpoint.name,
    family: family.modelType,
    network,
    imageRules: family.imageRules?.(decoder),
    storedDtypes: checkpoint.storedDtypes,
    adapters: checkpoint.adapters.map(({ name }) => name),
    memory,
  };
}

function idsOf(value: unknown): ReadonlySet<number> {
  const ids = Array.isArray(value) ? value : [value];
  return new Set(ids.filter((id): id is number => typeof id === "number"));
}

/** A checkpoint on a device, with its tokenizer: builds prompts and holds the network. */
export class LanguageModel {
  readonly name: string;
  readonly family: string;
  readonly network: Network;
  readonly tokenizer: Tokenizer;
  readonly endIds: ReadonlySet<number>;
  readonly storedDtypes: readonly string[];
  readonly adapters: readonly string[];
  readonly #chatTemplate: string | undefined;
  readonly #imageRules: ImageRules<PromptImage> | undefined;
  readonly #memory: Scope;

  constructor(parts: ModelParts) {
    this.name = parts.name;
    this.family = parts.family;
    this.network = parts.network;
    this.tokenizer = parts.tokenizer;
    this.endIds = parts.endIds;
    this.storedDtypes = parts.storedDtypes;
    this.adapters = parts.adapters;
    this.#chatTemplate = parts.chatTemplate;
    this.#imageRules = parts.imageRules;
    this.#memory = parts.memory;
  }

  get device(): Device {
    return this.network.device;
  }

  get config(): DecoderConfig {
    return this.network.config;
  }

  /** What there is to tap and edit. */
  get sites(): SiteMap {
    return siteMapOf(this.config);
  }

  /**
   * A prompt from text, or from parts: strings, strings with a name, and pictures. `model.prompt(["Q: ", { text: "Greece",
   * name: "x" }, "\nA:"])` has `spans.x`; `model.prompt(["Q:", image, "\nA:"])` has `spans.image`, the positions of the
   * picture's features. Pictures come from `loadImage`. See `prompt` in build-prompt.ts for BOS and for what throws.
   */
  prompt(
    parts: string | readonly (PromptPart<PromptImage> | PromptImage)[],
    options: Omit<PromptOptions<PromptImage>, "imageRules"> = {},
  ): Prompt<PromptImage> {
    const wrapped = typeof parts === "string" ? parts : parts.map(asPart);
    return prompt(this.tokenizer, wrapped, { ...options, imageRules: this.#imageRules });
  }

  /** A prompt from token ids as they are. */
  promptFromIds(ids: readonly number[], images: readonly PromptImage[] = []): Prompt<PromptImage> {
    return promptFromIds(this.tokenizer, ids, { images });
  }

  /** A conversation by the checkpoint's chat template, up to where the assistant answers. */
  chat(
    messages: readonly ChatMessage<PromptImage>[],
    options: Omit<ChatOptions<PromptImage>, "imageRules"> = {},
  ): Prompt<PromptImage> {
    const rules = { imageRules: this.#imageRules };
    return chatPrompt(this.#chatTemplate, this.tokenizer, messages, { ...options, ...rules });
  }

  /** Gives the weights' memory back. */
  dispose(): void {
    this.network.dispose();
    this.#memory.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** A bare picture among the parts of a prompt. */
function asPart(part: PromptPart<PromptImage> | PromptImage): PromptPart<PromptImage> {
  return typeof part === "object" && "data" in part ? { image: part } : part;
}
