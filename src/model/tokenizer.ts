import * as library from "@huggingface/tokenizers";
import { CheckpointError, PromptError } from "../tensor/errors.ts";
import { type Spelling, spellingOf } from "./token-spelling.ts";

/** The parts of a tokenizer.json that are read here; the rest is the tokenizer library's business. */
interface TokenizerJson {
  readonly model: { readonly type?: string; readonly byte_fallback?: boolean };
  readonly added_tokens: readonly { readonly id: number; readonly content: string }[];
  readonly decoder: unknown;
}

/** What is used of the tokenizer library, whose own declarations do not resolve under Node's module rules. */
interface Upstream {
  readonly model: { readonly vocab: readonly string[] };
  readonly post_processor: {
    post_process(tokens: string[], pair: null, specials: boolean): { tokens: string[] };
  } | null;
  encode(
    text: string,
    options: { add_special_tokens: boolean },
  ): { ids: (number | null | undefined)[]; tokens: string[] };
  decode(ids: number[], options: { skip_special_tokens: boolean }): string;
  id_to_token(id: number): string | undefined;
  token_to_id(token: string): number | undefined;
}

const UpstreamTokenizer: new (json: object, config: object) => Upstream = library.Tokenizer;

/** The library takes any other model for a plain word list. */
const MODELS = ["BPE", "Unigram", "WordPiece"];

const encoder = new TextEncoder();

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

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
  /** The bytes of text each token string stands for. */
  readonly spell: Spelling;
  readonly #upstream: Upstream;
  readonly #bytesForUnknown: boolean;

  /** Use {@link createTokenizer}. */
  constructor(json: TokenizerJson, specialTokens: Record<string, string>, additional: readonly string[]) {
    this.#upstream = new UpstreamTokenizer(json, {
      ...specialTokens,
      additional_special_tokens: additional,
      clean_up_tokenization_spaces: false,
    });
    this.#bytesForUnknown = json.model.type === "Unigram" && json.model.byte_fallback === true;
    this.specialTokens = Object.freeze(specialTokens);
    this.spell = spellingOf(json, new Set(json.added_tokens.map((token) => token.content)));

    const body = "\u0000";
    const framed = this.#upstream.post_processor?.post_process([body], null, true).tokens ?? [body];
    const at = framed.indexOf(body);
    this.prefix = Object.freeze(framed.slice(0, at).map((token) => this.#known(token)));
    this.suffix = Object.freeze(framed.slice(at + 1).map((token) => this.#known(token)));
  }

  /** Number of ids, from 0 to the largest, added tokens included. A model's embedding may have more rows. */
  get size(): number {
    return this.#upstream.model.vocab.length;
  }

  /** Id of the config's BOS token, if it names one. */
  get bosId(): number | undefined {
    return this.#named("bos_token");
  }

  /** Id of the config's EOS token, if it names one. */
  get eosId(): number | undefined {
    return this.#named("eos_token");
  }

  /**
   * Ids of a text. Special tokens written in the text (`<image>`, `</s>`) become their own ids.
   *
   * @param options.specials put `prefix` and `suffix` around it (default true)
   * @throws PromptError if the tokenizer has no token, not even an unknown one, for a piece of the text
   */
  encode(text: string, { specials = true }: { specials?: boolean } = {}): number[] {
    const { ids, tokens } = this.#upstream.encode(text, { add_special_tokens: false });
    const body = tokens.flatMap((token, i) => this.#idsOf(token, ids[i]));
    return specials ? [...this.prefix, ...body, ...this.suffix] : body;
  }

  /**
   * Text of ids. Ids without a token (padding rows of an embedding) are left out; bytes that are no complete
   * UTF-8 become U+FFFD. Nothing is tidied up: blanks come back as the decoder of tokenizer.json has them.
   *
   * @param options.skipSpecial leave special tokens out (default false)
   */
  decode(ids: Iterable<number>, { skipSpecial = false }: { skipSpecial?: boolean } = {}): string {
    const known = Array.from(ids).filter((id) => this.#upstream.id_to_token(id) !== undefined);
    return known.length === 0 ? "" : this.#upstream.decode(known, { skip_special_tokens: skipSpecial });
  }

  /** The token string of an id as the vocabulary spells it (`Ġthe`, `▁the`, `<0x0A>`); `<#500>` if there is none. */
  tokenOf(id: number): string {
    return this.#upstream.id_to_token(id) ?? `<#${id}>`;
  }

  /** The id of a token string as the vocabulary spells it, if there is one. */
  idOf(token: string): number | undefined {
    return this.#upstream.token_to_id(token);
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

  /** The ids of a token of the library, which does byte fallback for BPE only: here it is done for unigram too. */
  #idsOf(token: string, id: number | null | undefined): number[] {
    if (typeof id !== "number")
      throw new PromptError(`The tokenizer has no token for ${JSON.stringify(token)}.`);
    const unknown = this.tokenOf(id) !== token;
    if (!this.#bytesForUnknown || !unknown) return [id];
    const hex = Array.from(encoder.encode(token), (byte) => byte.toString(16).toUpperCase().padStart(2, "0"));
    const bytes = hex.map((digits) => this.idOf(`<0x${digits}>`)).filter((byte) => byte !== undefined);
    return bytes.length === hex.length ? bytes : [id];
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
  const specialTokens: Record<string, string> = {};
  for (const [name, value] of Object.entries(config)) {
    const text = name.endsWith("_token") ? tokenText(value) : undefined;
    if (text) specialTokens[name] = text;
  }
  const extra = config["additional_special_tokens"];
  const additional = Array.isArray(extra) ? extra.map(tokenText).filter((text) => text !== undefined) : [];
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
    return new Tokenizer(json, specialTokens, additional);
  } catch (cause) {
    if (cause instanceof CheckpointError) throw cause;
    throw new CheckpointError(`tokenizer.json: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}
