import { CheckpointError, PromptError } from "../../errors.ts";
import { INSPECT } from "../../inspect.ts";
import { isObject } from "../checkpoint/json/config-reader.ts";
import { type AddedToken, AddedTokenSplitter, readAddedTokens } from "./added-tokens.ts";
import { incompleteTail, type Spelling, spellingOf } from "./token-spelling.ts";
import { type Stages, type TokenizerJson, tokenizerStages } from "./tokenizer-stages.ts";

/** The library takes any other model for a plain word list. */
const MODELS = ["BPE", "Unigram", "WordPiece"];

const encoder = new TextEncoder();

/** What Python's `strip` takes off; JavaScript's `trim` takes U+FEFF too. */
const OUTER_SPACE = /^\p{White_Space}+|\p{White_Space}+$/gu;

/** Decoded text, and the first bytes of a character that follows it. */
export interface TextPrefix {
  readonly text: string;
  readonly tail: Uint8Array;
}

/** A special token in a config is its text, or an object with the text as `content`. */
function tokenText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  return isObject(value) && typeof value["content"] === "string" ? value["content"] : undefined;
}

/**
 * Text to token ids and back, by a checkpoint's tokenizer.json. That file alone decides, as in the Python
 * `tokenizers` library; of tokenizer_config.json only the names of the special tokens are read (so
 * `add_bos_token` and `clean_up_tokenization_spaces` change nothing here).
 */
export class Tokenizer {
  /** Ids the tokenizer puts in front of every text when special tokens are asked for; often just BOS. */
  readonly prefix: readonly number[];
  /** Ids it puts behind every text; empty for most decoders, `</s>` for T5. */
  readonly suffix: readonly number[];
  /** Named special tokens of the config: `{ bos_token: "<s>", eos_token: "</s>", … }`. */
  readonly specialTokens: Readonly<Record<string, string>>;
  /** Number of ids, from 0 to the largest, added tokens included. A model's embedding may have more rows, or fewer. */
  readonly size: number;
  /** The bytes of text each token string stands for. */
  readonly spell: Spelling;
  readonly #stages: Stages;
  readonly #bytesForUnknown: boolean;
  readonly #wholeWords: boolean;
  readonly #addedById: ReadonlyMap<number, AddedToken>;
  readonly #addedByContent: ReadonlyMap<string, AddedToken>;
  /** Finds added tokens in a text as it is, and in a normalised one. */
  readonly #raw: AddedTokenSplitter;
  readonly #normalized: AddedTokenSplitter;
  /** Token strings that `skipSpecial` leaves out. */
  readonly #special: ReadonlySet<string>;

  /** Use {@link createTokenizer}. */
  constructor(json: TokenizerJson, specialTokens: Record<string, string>, unnamed: readonly string[]) {
    const listed = readAddedTokens(json.added_tokens);
    const contents = new Set(listed.map(({ content }) => content));
    this.#stages = tokenizerStages(json, specialTokens, contents);
    // The vocabulary's id goes before the list's, as in Python's `tokenizers`.
    const { tokens_to_ids, vocab } = this.#stages.model;
    const added = listed.map((token) => ({ ...token, id: tokens_to_ids.get(token.content) ?? token.id }));
    this.#addedById = new Map(added.map((token) => [token.id, token]));
    this.#addedByContent = new Map(added.map((token) => [token.content, token]));
    this.#raw = new AddedTokenSplitter(
      added.filter(({ normalized }) => !normalized).map((token) => [token.content, token]),
    );
    this.#normalized = new AddedTokenSplitter(
      added.filter(({ normalized }) => normalized).map((token) => [this.#normalise(token.content), token]),
    );
    const special = added.filter((token) => token.special).map(({ content }) => content);
    this.#special = new Set([...special, ...Object.values(specialTokens), ...unnamed]);
    this.#wholeWords = json.model.type === "WordPiece";
    this.#bytesForUnknown = json.model.type === "Unigram" && json.model.byte_fallback === true;
    this.specialTokens = Object.freeze(specialTokens);
    this.spell = spellingOf(json, contents);

    const body = "\u0000";
    const framed = this.#stages.post_processor?.post_process([body], null, true).tokens ?? [body];
    const at = framed.indexOf(body);
    this.prefix = Object.freeze(framed.slice(0, at).map((token) => this.#known(token)));
    this.suffix = Object.freeze(framed.slice(at + 1).map((token) => this.#known(token)));
    this.size = added.reduce((size, { id }) => Math.max(size, id + 1), vocab.length);
  }

  [INSPECT](): string {
    const special = Object.entries(this.specialTokens).map(([name, token]) => `${name} ${token}`);
    return [`Tokenizer of ${this.size} tokens`, ...special].join(", ");
  }

  /** Id of the config's BOS token, if it names one. */
  get bosId(): number | undefined {
    return this.#named("bos_token");
  }

  /** Id of the config's EOS token, if it names one. */
  get eosId(): number | undefined {
    return this.#named("eos_token");
  }

  /** The id that stands for what the vocabulary has no token for (`<unk>`), if there is one. */
  get unknownId(): number | undefined {
    return this.#stages.model.unk_token_id ?? undefined;
  }

  /** The token for characters that the vocabulary lacks; undefined where there is none, or it stands for whole words. */
  get unknownCharacter(): string | undefined {
    const { unknownId } = this;
    return unknownId === undefined || this.#wholeWords ? undefined : this.tokenOf(unknownId);
  }

  /**
   * Ids of a text. Special tokens written in the text (`<image>`, `</s>`) become their own ids.
   * `prefix` and `suffix` are put around it unless `specials` is false.
   *
   * @throws PromptError if the tokenizer has no token, not even an unknown one, for a piece of the text, or for half of a
   *   character (a lone surrogate)
   */
  encode(text: string, { specials = true }: { specials?: boolean } = {}): number[] {
    const half = text.search(/\p{Surrogate}/u);
    if (half >= 0) throw new PromptError(`Expected whole characters, found a lone surrogate at ${half}.`);
    const body = this.#raw
      .split(text)
      .flatMap((piece, i) => (typeof piece === "string" ? this.#encodePiece(piece, i === 0) : [piece.id]));
    return specials ? [...this.prefix, ...body, ...this.suffix] : body;
  }

  /**
   * Text of ids. Ids without a token (padding rows of an embedding) are left out; bytes that are no complete
   * UTF-8 become U+FFFD. Nothing is tidied up: blanks come back as the decoder of tokenizer.json has them.
   * With `skipSpecial`, special tokens are left out.
   */
  decode(ids: Iterable<number>, { skipSpecial = false }: { skipSpecial?: boolean } = {}): string {
    const { decoder, model } = this.#stages;
    const tokens = this.#tokens(ids, { skipSpecial });
    const text = decoder ? decoder.decode_chain(tokens).join("") : tokens.join(" ");
    const suffix = decoder && model.end_of_word_suffix;
    if (!suffix) return text;
    const spaced = text.replaceAll(suffix, " ");
    return skipSpecial ? spaced.replace(OUTER_SPACE, "") : spaced;
  }

  /**
   * Text of ids that others may follow: without the last character where its bytes are not all there yet. Those are the
   * `tail`, up to three bytes.
   */
  decodePrefix(ids: readonly number[], options: { skipSpecial?: boolean } = {}): TextPrefix {
    const text = this.decode(ids, options);
    if (!text.endsWith("\ufffd")) return { text, tail: new Uint8Array() };
    const tail = incompleteTail(this.#tokens(ids, options).slice(-3).map(this.spell));
    // However many its bytes, an incomplete character is one U+FFFD.
    return { text: tail.length > 0 ? text.slice(0, -1) : text, tail };
  }

  /** The token string of an id as the vocabulary spells it (`Ġthe`, `▁the`, `<0x0A>`); `<#500>` if there is none. */
  tokenOf(id: number): string {
    return this.#token(id) ?? `<#${id}>`;
  }

  /** The id of a token string as the vocabulary spells it, if there is one. */
  idOf(token: string): number | undefined {
    return this.#addedByContent.get(token)?.id ?? this.#stages.model.tokens_to_ids.get(token);
  }

  /** The token strings that decoding goes by. */
  #tokens(ids: Iterable<number>, { skipSpecial = false }: { skipSpecial?: boolean }): string[] {
    return Array.from(ids, (id) => this.#token(id)).filter(
      (token) => token !== undefined && !(skipSpecial && this.#special.has(token)),
    ) as string[];
  }

  #token(id: number): string | undefined {
    return this.#addedById.get(id)?.content ?? this.#stages.model.vocab[id];
  }

  #normalise(text: string): string {
    return this.#stages.normalizer?.normalize(text) ?? text;
  }

  /** Ids of a piece between added tokens; `first` if the text begins with it. */
  #encodePiece(text: string, first: boolean): number[] {
    return this.#normalized.split(this.#normalise(text)).flatMap((piece, i) => {
      if (typeof piece !== "string") return [piece.id];
      const { pre_tokenizer, model } = this.#stages;
      const section_index = first && i === 0 ? 0 : 1;
      const words = pre_tokenizer ? pre_tokenizer.pre_tokenize(piece, { section_index }) : [piece];
      return this.#idsOf(model._call(words));
    });
  }

  #named(name: string): number | undefined {
    const token = this.specialTokens[name];
    return token === undefined ? undefined : this.idOf(token);
  }

  #known(token: string): number {
    const id = this.idOf(token);
    if (id === undefined) {
      throw new CheckpointError(
        `tokenizer.json: the post-processor adds ${JSON.stringify(token)}, which the vocabulary does not have.`,
      );
    }
    return id;
  }

  /** The ids of the model's tokens. The library does byte fallback for BPE only: here it is done for unigram too. */
  #idsOf(tokens: readonly string[]): number[] {
    const { tokens_to_ids, unk_token_id } = this.#stages.model;
    const ids: number[] = [];
    for (const token of tokens) {
      const id = tokens_to_ids.get(token);
      if (id !== undefined) ids.push(id);
      else
        for (const byte of this.#bytesOf(token) ?? [unk_token_id ?? this.#noTokenFor(token)]) ids.push(byte);
    }
    return ids;
  }

  /** The byte tokens of an unknown piece, where the model falls back to them and the vocabulary has them all. */
  #bytesOf(token: string): number[] | undefined {
    if (!this.#bytesForUnknown) return undefined;
    const hex = Array.from(encoder.encode(token), (byte) => byte.toString(16).toUpperCase().padStart(2, "0"));
    const bytes = hex.map((digits) => this.idOf(`<0x${digits}>`)).filter((byte) => byte !== undefined);
    return bytes.length === hex.length ? bytes : undefined;
  }

  #noTokenFor(token: string): never {
    throw new PromptError(`The tokenizer has no token for ${JSON.stringify(token)}.`);
  }
}

/**
 * A tokenizer from the parsed files of a checkpoint.
 *
 * @param tokenizerJson contents of tokenizer.json; undefined if the checkpoint has none
 * @param tokenizerConfig contents of tokenizer_config.json, for the special tokens' names
 * @throws CheckpointError if tokenizer.json is missing, damaged, or of a kind that the library does not know
 */
export function createTokenizer(tokenizerJson: unknown, tokenizerConfig: unknown = {}): Tokenizer {
  if (tokenizerJson === undefined || tokenizerJson === null) {
    throw new CheckpointError(
      "The checkpoint has no tokenizer.json. If it has a tokenizer.model (SentencePiece), convert it once in Python: AutoTokenizer.from_pretrained(folder).save_pretrained(folder).",
    );
  }
  if (!isObject(tokenizerJson) || !isObject(tokenizerJson["model"])) {
    throw new CheckpointError("tokenizer.json: expected an object with a `model`.");
  }
  const config = isObject(tokenizerConfig) ? tokenizerConfig : {};
  const { additional_special_tokens: additional, extra_special_tokens: extra } = config;
  const specialTokens: Record<string, string> = {};
  for (const [name, value] of Object.entries({ ...config, ...(isObject(extra) && extra) })) {
    const text = name.endsWith("_token") ? tokenText(value) : undefined;
    if (text) specialTokens[name] = text;
  }
  const unnamed = [additional, extra].flatMap((list) => (Array.isArray(list) ? list.map(tokenText) : []));
  const json = {
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    ...tokenizerJson,
    model: tokenizerJson["model"],
    added_tokens: Array.isArray(tokenizerJson["added_tokens"]) ? tokenizerJson["added_tokens"] : [],
  };
  const { type } = json.model as { type?: unknown };
  if (type !== undefined && !MODELS.includes(String(type))) {
    throw new CheckpointError(
      `tokenizer.json: expected a model of type ${MODELS.join(", ")}, found ${type}.`,
    );
  }
  try {
    return new Tokenizer(
      json,
      specialTokens,
      unnamed.filter((text) => text !== undefined),
    );
  } catch (cause) {
    if (cause instanceof CheckpointError) throw cause;
    throw new CheckpointError(`tokenizer.json: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}
