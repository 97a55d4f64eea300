import {
  aBoolean,
  aFunction,
  aKindOf,
  aListOf,
  checkArgument,
  checkOptions,
  type Options,
  oneOf,
} from "../arguments.ts";
import { CheckpointError, LifetimeError } from "../errors.ts";
import { INSPECT } from "../inspect.ts";
import { adapterName } from "../tensor/adapter-name.ts";
import { Device } from "../tensor/device.ts";
import type { Scope } from "../tensor/scope.ts";
import type { Checkpoint } from "./checkpoint/checkpoint.ts";
import type { IntermediateLayers } from "./checkpoint/config/canvas-tower-config.ts";
import type { DecoderConfig } from "./checkpoint/config/decoder-config.ts";
import { requireNeutral } from "./checkpoint/config/neutral-fields.ts";
import { readQuantisation } from "./checkpoint/config/quantisation.ts";
import { commonName, HEAD, isEmbedding, spellingOf } from "./checkpoint/entries/module-names.ts";
import { ggufModel } from "./checkpoint/gguf-model.ts";
import { isObject, type JsonObject } from "./checkpoint/json/config-reader.ts";
import {
  aCheckpointRef,
  CHECKPOINT_OPTIONS,
  type CheckpointOptions,
  openCheckpoint,
} from "./checkpoint/open-checkpoint.ts";
import type { Folder } from "./checkpoint/source/folder.ts";
import { loadWeights } from "./checkpoint/weights/load-weights.ts";
import type { LoadedParts } from "./checkpoint/weights/parameters.ts";
import { aQuantise } from "./checkpoint/weights/quantise.ts";
import type { WeightOptions } from "./checkpoint/weights/weights.ts";
import type { Family } from "./families/family.ts";
import { familyFiles } from "./families/pictures/parts/family-files.ts";
import { familyOf } from "./families/registry.ts";
import { type PromptOptions, prompt, promptFromIds } from "./prompt/build-prompt.ts";
import { type ChatMessage, type ChatOptions, chatPrompt } from "./prompt/chat-template.ts";
import { checkPrompt } from "./prompt/check-prompt.ts";
import { decoderSequence } from "./prompt/decoder-sequence.ts";
import { type ChatTemplates, findChatTemplates } from "./prompt/find-chat-template.ts";
import type { ImageRules, PromptPart } from "./prompt/image-rules.ts";
import type { Prompt } from "./prompt/prompt.ts";
import {
  ANSWER,
  aMessage,
  anId,
  aPicture,
  BOS,
  CHAT_OPTIONS,
  checkParts,
  SPANS,
} from "./prompt/prompt-arguments.ts";
import { type PromptImage, pictureAmong } from "./prompt/prompt-image.ts";
import { createTokenizer, type Tokenizer } from "./prompt/tokenizer.ts";
import { showModel } from "./show-model.ts";
import type { Network } from "./walk/network.ts";
import { noteIsPacked } from "./walk/shared-steps.ts";
import { type SiteMap, siteMapOf } from "./walk/site-shapes.ts";

export interface LoadOptions extends CheckpointOptions, WeightOptions, ReadOptions {
  device: Device;
}

/** How a checkpoint's config is to be understood. */
export interface ReadOptions {
  /**
   * Of Llama 3.2 Vision (`mllama`) alone: whether the projector reads what enters the layers that `intermediate_layers_indices`
   * names, as in Meta's own code and transformers 4, for which the published checkpoints were made (`"inputs"`, the default), or what
   * leaves them, as in transformers 5 (`"outputs"`), for checkpoints trained with that.
   */
  intermediateLayers?: IntermediateLayers;
}

/** Throws ArgumentError for what is no reference to a checkpoint, or no options to load it with. */
export function checkLoad(call: string, ref: unknown, options: unknown): void {
  checkArgument(call, "ref", ref, aCheckpointRef);
  const known: Options<LoadOptions> = {
    ...CHECKPOINT_OPTIONS,
    device: aKindOf(Device, "await openDevice()"),
    merge: aBoolean,
    onProgress: aFunction,
    quantise: aQuantise,
    intermediateLayers: oneOf("inputs", "outputs"),
  };
  checkOptions(call, options, known, { required: ["device"] });
}

/** What is known of a model without its weights. */
export interface OutlineParts {
  /** The folder, URL or hub id that it came from. */
  readonly name: string;
  readonly family: string;
  readonly decoder: DecoderConfig;
  readonly tokenizer: Tokenizer;
  readonly chatTemplates: ChatTemplates;
  readonly imageRules: ImageRules<PromptImage> | undefined;
  /** Ids that end an answer, from generation_config.json or config.json. */
  readonly endIds: ReadonlySet<number>;
  /** Dtypes of the weights as stored, most bytes first. */
  readonly storedDtypes: readonly string[];
  /** Folders, URLs or hub ids of the LoRA adapters that are part of it. */
  readonly adapters: readonly string[];
  /** Names of the matrices of its files, without `.weight`: every linear layer is among them. */
  readonly matrixNames: readonly string[];
}

/** The parts of a loaded model; `loadModel` of the patching room puts its methods on them. */
export interface ModelParts extends OutlineParts {
  readonly network: Network;
  /** Holds the weights. */
  readonly memory: Scope;
  /** The weights by the names that the checkpoint has them under, and the linear layers. */
  readonly loaded: LoadedParts;
}

/** Everything about a language model but its weights. */
export interface ModelFiles {
  readonly family: Family;
  /** config.json */
  readonly config: JsonObject;
  readonly decoder: DecoderConfig;
  readonly tokenizer: Tokenizer;
  readonly chatTemplates: ChatTemplates;
  /** Ids that end an answer, from generation_config.json or config.json. */
  readonly endIds: ReadonlySet<number>;
}

/** Reads and checks the files around the weights. Throws CheckpointError. */
export async function readModelFiles(
  checkpoint: Checkpoint,
  { intermediateLayers }: ReadOptions = {},
): Promise<ModelFiles> {
  const { config, name } = checkpoint;
  if (!config)
    throw new CheckpointError(
      `${name}: a lone tensor file is no model; expected a folder with a config.json ` +
        "(`xpatch convert` makes one of a GGUF file)",
    );

  const where = `${name}/config.json`;
  const family = familyOf(config, where);
  if (intermediateLayers !== undefined && family.modelType !== "mllama") {
    throw new CheckpointError(
      `${where}: the option intermediateLayers is for models of model_type mllama, found ${family.modelType}`,
    );
  }
  const { packed: method } = readQuantisation(config, where) ?? {};
  if (method && !checkpoint.entries.some(({ packed }) => packed)) {
    throw new CheckpointError(
      `${where}: quantization_config says that weights are quantised by ${method}, but none of the tensors is; take the field ` +
        'out, and have them quantised as they are read where that is wanted (quantise: "nf4")',
    );
  }
  requireNeutral(config, where, ["transformers_weights"]);
  const tokenizerConfig = await checkpoint.json("tokenizer_config.json");
  const tokenizerJson = await checkpoint.json("tokenizer.json");
  const why = tokenizerJson === undefined ? checkpoint.whyMissing("tokenizer.json") : undefined;
  if (why) throw new CheckpointError(`${name}: there is no tokenizer.json (${why})`);
  const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig ?? undefined);
  const processorConfig = await checkpoint.json("processor_config.json");
  const decoder = family.readConfig(config, where, {
    ...(await familyFiles(checkpoint, family, tokenizer, processorConfig)),
    intermediateLayers,
  });
  const files = {
    jinja: await checkpoint.text("chat_template.jinja"),
    json: await checkpoint.json("chat_template.json"),
    processorConfig,
    tokenizerConfig,
  };
  const chatTemplates = findChatTemplates(files, decoder.vision !== undefined);
  const generation = (await checkpoint.json("generation_config.json")) as Record<string, unknown> | undefined;
  const start = generation?.["decoder_start_token_id"] ?? undefined;
  if (decoder.encoder && start !== undefined && start !== decoder.encoder.startId) {
    throw new CheckpointError(
      `${name}: expected one decoder_start_token_id, found ${decoder.encoder.startId} in config.json and ` +
        `${JSON.stringify(start)} in generation_config.json`,
    );
  }
  const text = isObject(config["text_config"]) ? config["text_config"] : config;
  const endIds = generation?.["eos_token_id"] ?? config["eos_token_id"] ?? text["eos_token_id"];
  return { family, config, decoder, tokenizer, chatTemplates, endIds: idsOf(endIds, name) };
}

/**
 * Loads a Hugging Face checkpoint: a folder, a URL, a hub id such as `HuggingFaceTB/SmolLM2-135M-Instruct`, or a model that
 * comes with xpatch by its name (`xpatch:vlm`); see
 * `openCheckpoint` for assembled models and adapters. Throws CheckpointError for what is damaged, missing or not
 * supported.
 */
export async function loadParts(ref: string | Folder, options: LoadOptions): Promise<ModelParts> {
  checkLoad("loadModel", ref, options);
  const { device, merge, onProgress, quantise, ...access } = options;
  await using opened = await OpenModel.open(ref, access);
  return await opened.load({
    device,
    ...(merge !== undefined && { merge }),
    ...(onProgress && { onProgress }),
    ...(quantise !== undefined && { quantise }),
  });
}

/** A checkpoint whose config and tokenizer have been read, but not its weights: prompts can be made and checked. */
export class OpenModel {
  readonly outline: ModelOutline;
  readonly #checkpoint: Checkpoint;
  readonly #files: ModelFiles;
  readonly #parts: OutlineParts;

  private constructor(checkpoint: Checkpoint, files: ModelFiles) {
    this.#checkpoint = checkpoint;
    this.#files = files;
    this.#parts = {
      ...files,
      name: checkpoint.name,
      family: files.family.modelType,
      imageRules: files.family.imageRules?.(files.decoder),
      storedDtypes: checkpoint.storedDtypes,
      adapters: checkpoint.adapters.map(({ name }) => name),
      matrixNames: matrixNames(checkpoint),
    };
    this.outline = new ModelOutline(this.#parts);
  }

  /** Throws CheckpointError, as {@link loadParts} does. */
  static async open(
    ref: string | Folder,
    { intermediateLayers, ...options }: CheckpointOptions & ReadOptions = {},
  ): Promise<OpenModel> {
    const opened = await openCheckpoint(ref, options);
    try {
      const checkpoint = ggufModel(opened);
      const read = intermediateLayers === undefined ? {} : { intermediateLayers };
      return new OpenModel(checkpoint, await readModelFiles(checkpoint, read));
    } catch (error) {
      await opened.close();
      throw error;
    }
  }

  /** Reads the weights. */
  async load(options: WeightOptions & { device: Device }): Promise<ModelParts> {
    const { family, decoder, config } = this.#files;
    const {
      built: network,
      memory,
      ...loaded
    } = await loadWeights(
      this.#checkpoint,
      options.device,
      (weights) => family.build(weights, decoder, config),
      options,
    );
    const layers = [...loaded.linears.values()].flatMap((module) => module.layers);
    if (layers.some(({ layer }) => !layer.weight.tensor)) noteIsPacked(network);
    return { ...this.#parts, network, memory, loaded };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#checkpoint.close();
  }
}

/** With the output matrix, which a tied model's files do not name, and without the embedding, which is no linear layer. */
function matrixNames({ entries }: Checkpoint): string[] {
  const matrices = entries.filter(({ name, shape }) => shape.length === 2 && name.endsWith(".weight"));
  const names = matrices.map(({ name }) => name).filter((name) => !isEmbedding(name));
  const head = names.some((name) => commonName(name) === HEAD) ? [] : [spellingOf(names)(HEAD)!];
  return [...names, ...head].map((name) => name.slice(0, -".weight".length));
}

function idsOf(value: unknown, where: string): ReadonlySet<number> {
  const ids = (Array.isArray(value) ? value : [value]).filter((id) => id !== undefined && id !== null);
  if (ids.every((id) => Number.isInteger(id))) return new Set(ids);
  throw new CheckpointError(
    `${where}: expected eos_token_id to be an id or a list of them, found ${JSON.stringify(value)}`,
  );
}

/** A model without its weights: what it is, what there is to look at, and prompts for it. */
export class ModelOutline {
  readonly name: string;
  readonly family: string;
  readonly config: DecoderConfig;
  readonly tokenizer: Tokenizer;
  readonly endIds: ReadonlySet<number>;
  readonly storedDtypes: readonly string[];
  readonly adapters: readonly string[];
  /** Names of the matrices of its files, without `.weight`: every linear layer is among them. */
  readonly matrixNames: readonly string[];
  readonly #chatTemplates: ChatTemplates;
  readonly #imageRules: ImageRules<PromptImage> | undefined;

  constructor(parts: OutlineParts) {
    this.name = parts.name;
    this.family = parts.family;
    this.config = parts.decoder;
    this.tokenizer = parts.tokenizer;
    this.endIds = parts.endIds;
    this.storedDtypes = parts.storedDtypes;
    this.adapters = parts.adapters;
    this.matrixNames = parts.matrixNames;
    this.#chatTemplates = parts.chatTemplates;
    this.#imageRules = parts.imageRules;
  }

  /** Whether it has a template for {@link chat}. */
  get hasChat(): boolean {
    return Object.keys(this.#chatTemplates).length > 0;
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
    checkParts(parts);
    checkOptions("prompt", options, { bos: BOS, spans: SPANS, images: aListOf(aPicture), answer: ANSWER });
    const wrapped = typeof parts === "string" ? parts : parts.map(asPart);
    return this.check(prompt(this.tokenizer, wrapped, { ...options, imageRules: this.#imageRules }));
  }

  /**
   * A prompt from token ids as they are, with what the decoder of an encoder-decoder has answered so far (its start token not
   * among it). Throws PromptError as {@link check} does.
   */
  promptFromIds(
    ids: readonly number[],
    images: readonly PromptImage[] = [],
    answer: readonly number[] = [],
  ): Prompt<PromptImage> {
    checkArgument("promptFromIds", "ids", ids, aListOf(anId));
    checkArgument("promptFromIds", "images", images, aListOf(aPicture));
    checkArgument("promptFromIds", "answer", answer, aListOf(anId));
    const answered = answer.length > 0 ? promptFromIds<PromptImage>(this.tokenizer, answer) : undefined;
    const { vision } = this.config;
    const seen = images.map((image) =>
      vision ? pictureAmong(image, images.length, vision.processor) : image,
    );
    return this.check(
      promptFromIds(this.tokenizer, ids, {
        images: seen,
        answer: answered,
        instruction: images.length > 0 ? this.#instructionOf(ids) : undefined,
      }),
    );
  }

  /** What a Q-Former reads of a prompt of which only the ids are known: their text, without special tokens. */
  #instructionOf(ids: readonly number[]): readonly number[] | undefined {
    const { instruct, placeholder } = this.#imageRules ?? {};
    const image = placeholder === undefined ? undefined : this.tokenizer.idOf(placeholder);
    const text = () =>
      this.tokenizer.decode(
        ids.filter((id) => id !== image),
        { skipSpecial: true },
      );
    return instruct?.(text());
  }

  /** A conversation by the checkpoint's chat template, up to where the assistant answers. */
  chat(
    messages: readonly ChatMessage<PromptImage>[],
    options: Omit<ChatOptions<PromptImage>, "imageRules"> = {},
  ): Prompt<PromptImage> {
    checkArgument("chat", "messages", messages, aListOf(aMessage));
    checkOptions("chat", options, CHAT_OPTIONS);
    const rules = { imageRules: this.#imageRules };
    return this.check(chatPrompt(this.#chatTemplates, this.tokenizer, messages, { ...options, ...rules }));
  }

  /**
   * The prompt itself, if it means on this model what it says: it may have been made by another. Throws PromptError for
   * ids beyond the embedding, ids that are other tokens here, and pictures or places for them that do not fit.
   */
  check<P extends Prompt>(prompt: P): P {
    checkPrompt(prompt, this);
    return prompt;
  }

  /**
   * The sequence that the layers without prefix run over: the prompt itself, or where an encoder reads that, what the decoder
   * reads. Throws PromptError as {@link check} does.
   */
  sequenceOf(prompt: Prompt): Prompt {
    this.check(prompt);
    const { encoder } = this.config;
    return encoder ? decoderSequence(prompt, encoder.startId, this.tokenizer) : prompt;
  }

  /** Where its weights are, for the console. */
  protected get place(): string {
    return "without weights";
  }

  [INSPECT](): string {
    const { vocab, context } = this.config;
    const facts = [`${vocab} tokens`, ...(Number.isFinite(context) ? [`context ${context}`] : [])];
    return showModel(this.constructor.name, this, facts, this.place);
  }
}

/** A checkpoint on a device, with its tokenizer: builds prompts and holds the network. */
export class LanguageModel extends ModelOutline {
  readonly #network: Network;
  /** @internal What the checkpoint's tensors have become. */
  readonly loaded: LoadedParts;
  readonly #memory: Scope;
  #isDisposed = false;

  constructor(parts: ModelParts) {
    super(parts);
    this.loaded = parts.loaded;
    this.#network = parts.network;
    this.#memory = parts.memory;
  }

  /** Throws LifetimeError when the model has been disposed of. */
  get network(): Network {
    if (this.#isDisposed) throw new LifetimeError(`${this.name}: this model has been disposed of`);
    return this.#network;
  }

  get device(): Device {
    return this.#network.device;
  }

  protected override get place(): string {
    return this.#isDisposed ? "disposed of" : `on ${adapterName(this.device.info)}`;
  }

  /** Gives the weights' memory back. */
  dispose(): void {
    this.#isDisposed = true;
    this.#network.dispose();
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
