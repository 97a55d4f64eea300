import { aListOf, checkArgument, checkOptions } from "../arguments.ts";
import { LifetimeError } from "../errors.ts";
import { INSPECT } from "../inspect.ts";
import { adapterName } from "../tensor/adapter-name.ts";
import type { Device } from "../tensor/device.ts";
import type { Scope } from "../tensor/scope.ts";
import type { DecoderConfig } from "./checkpoint/config/decoder-config.ts";
import type { LoadedParts } from "./checkpoint/weights/parameters.ts";
import { type PromptOptions, prompt, promptFromIds } from "./prompt/build-prompt.ts";
import { type ChatMessage, type ChatOptions, chatPrompt } from "./prompt/chat-template.ts";
import { checkPrompt } from "./prompt/check-prompt.ts";
import { decoderSequence } from "./prompt/decoder-sequence.ts";
import type { ChatTemplates } from "./prompt/find-chat-template.ts";
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
import type { Tokenizer } from "./prompt/tokenizer.ts";
import { showModel } from "./show-model.ts";
import type { Network } from "./walk/network.ts";
import { type SiteMap, siteMapOf } from "./walk/site-shapes.ts";

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

/** A model without its weights: what it is, what there is to look at, and prompts for it. */
export class ModelOutline {
  /** What it was loaded by: a name, path, URL or hub id. */
  readonly name: string;
  /** Name of its family: `llama`, `llava`, … */
  readonly family: string;
  /** Sizes and rules of the network. */
  readonly config: DecoderConfig;
  /** Its tokenizer. */
  readonly tokenizer: Tokenizer;
  /** Tokens that end a generation. */
  readonly endIds: ReadonlySet<number>;
  /** Dtypes of the weights as stored, most bytes first. */
  readonly storedDtypes: readonly string[];
  /** LoRA adapters on top, in order. */
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

  /** @internal Throws LifetimeError when the model has been disposed of. */
  get network(): Network {
    if (this.#isDisposed) throw new LifetimeError(`${this.name}: this model has been disposed of`);
    return this.#network;
  }

  /** The device that its weights are on. */
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
