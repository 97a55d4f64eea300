import * as library from "@huggingface/tokenizers";
import { CheckpointError } from "../../errors.ts";
import type { TextDecoder as Utf8Decoder } from "../../platform/global-types.ts";
import { type Behavior, behaviorOf, split } from "./split-stage.ts";
import { byteLevelBytes } from "./token-spelling.ts";

/** The parts of a tokenizer.json that are read here; the rest is the tokenizer library's business. */
export interface TokenizerJson {
  readonly model: { readonly type?: string; readonly byte_fallback?: boolean };
  readonly added_tokens: readonly unknown[];
  readonly pre_tokenizer?: PreTokenizerConfig | null;
  readonly decoder: unknown;
}

interface PreTokenizerConfig {
  readonly type?: string;
  readonly behavior?: unknown;
  readonly invert?: boolean;
  readonly individual_digits?: boolean;
  readonly split?: boolean;
  readonly replacement?: string;
  readonly pretokenizers?: readonly PreTokenizerConfig[];
}

/** A stage of the library; sequences hold others. */
interface Stage {
  readonly config?: { readonly type?: string };
  readonly tokenizers?: readonly (Stage | null)[];
  readonly decoders?: readonly (Stage | null)[];
}

interface PreTokenizer extends Stage {
  pattern?: RegExp | null;
  pre_tokenize_text?(text: string, options: { section_index: number }): string[];
  pre_tokenize(text: string, options: { section_index: number }): string[];
}

interface Decoder extends Stage {
  text_decoder?: Utf8Decoder;
  decode_chain(tokens: string[]): string[];
}

interface Model {
  readonly vocab: readonly string[];
  readonly tokens_to_ids: ReadonlyMap<string, number>;
  readonly unk_token_id?: number | null;
  readonly end_of_word_suffix?: string | null;
  encode(tokens: string[]): string[];
  tokenize?(text: string): string[];
  _call(tokens: string[]): string[];
}

/**
 * The stages of the tokenizer library. Its own `Tokenizer` only strings them together, and ignores flags of added tokens
 * while doing so; its declarations do not resolve under Node's module rules.
 */
export interface Stages {
  readonly normalizer: { normalize(text: string): string } | null;
  readonly pre_tokenizer: PreTokenizer | null;
  readonly model: Model;
  readonly post_processor: {
    post_process(tokens: string[], pair: null, specials: boolean): { tokens: string[] };
  } | null;
  readonly decoder: Decoder | null;
}

const LibraryTokenizer: new (json: object, config: object) => Stages = library.Tokenizer;

const encoder = new TextEncoder();

/**
 * The stages of a tokenizer.json, with the library's faults mended that FEATURES.md lists.
 *
 * @param standalone contents of tokens that stand for themselves in decoded text
 */
export function tokenizerStages(
  json: TokenizerJson,
  config: object,
  standalone: ReadonlySet<string>,
): Stages {
  const stages = new LibraryTokenizer({ ...json, added_tokens: [] }, config);
  for (const [stage, config] of withConfigs(stages.pre_tokenizer, json.pre_tokenizer))
    mendSplit(stage, config);
  for (const stage of flat(stages.pre_tokenizer, "tokenizers") as PreTokenizer[]) {
    // In JavaScript \s has U+FEFF and lacks U+0085.
    if (stage.config?.type === "ByteLevel" && stage.pattern) {
      const source = stage.pattern.source.replaceAll("\\s", "\\p{White_Space}");
      stage.pattern = new RegExp(source.replaceAll("\\S", "\\P{White_Space}"), stage.pattern.flags);
    }
  }
  for (const stage of flat(stages.decoder, "decoders") as Decoder[]) {
    const type = stage.config?.type;
    if (type === "ByteFallback") stage.text_decoder = lossyDecoder();
    if (type === "ByteLevel") stage.decode_chain = (tokens) => [decodeBytes(tokens, standalone)];
  }
  const { model } = stages;
  if (model.tokenize) {
    // The library's spreads a text's tokens as arguments, of which there may be some 120,000.
    model.encode = (tokens) => tokens.flatMap((token) => model.tokenize!(token));
  }
  return stages;
}

/** What Python's `tokenizers` takes for punctuation: the Unicode category, and all of ASCII's. */
const PUNCTUATION = /[\p{P}$+<=>^`|~]/gu;
/** `\w+|[^\w\s]+` of Rust's regular expressions. */
const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}";
const WORDS = new RegExp(`[${WORD}]+|[^${WORD}\\p{White_Space}]+`, "gu");

/** Pre-tokenizers whose options the library ignores, or whose characters are not Python's. */
function mendSplit(stage: PreTokenizer, config: PreTokenizerConfig): void {
  const { type, behavior, invert = false, individual_digits, split: splits = true } = config;
  const cut = (pattern: RegExp, how: Behavior, inverted = false) => {
    stage.pre_tokenize_text = (text) => split(text, pattern, how, inverted);
  };
  if (type === "Digits") cut(/\p{N}/gu, individual_digits ? "Isolated" : "Contiguous");
  else if (type === "Whitespace") cut(WORDS, "Removed", true);
  else if (type === "Metaspace" && splits) {
    const replaced = stage.pre_tokenize_text!.bind(stage);
    const mark = new RegExp(config.replacement ?? "▁", "gu");
    stage.pre_tokenize_text = (...args) =>
      replaced(...args).flatMap((text) => split(text, mark, "MergedWithNext"));
  } else if (type === "Split" || type === "Punctuation") {
    const known = behaviorOf(behavior ?? "Isolated");
    const pattern = type === "Punctuation" ? PUNCTUATION : stage.pattern;
    if (!known || !pattern) {
      throw new CheckpointError(
        `tokenizer.json: expected a ${type} with a pattern and a known behavior, found ${JSON.stringify(config)}`,
      );
    }
    cut(pattern, known, invert);
  }
}

/** The stages of a pre-tokenizer beside what the file says of each; some stages do not keep it. */
function withConfigs(
  stage: PreTokenizer | null,
  config: PreTokenizerConfig | null | undefined,
): [PreTokenizer, PreTokenizerConfig][] {
  if (!stage || !config) return [];
  const inner = (config.pretokenizers ?? []).flatMap((each, i) =>
    withConfigs((stage.tokenizers?.[i] ?? null) as PreTokenizer | null, each),
  );
  return [[stage, config], ...inner];
}

function flat(stage: Stage | null, key: "tokenizers" | "decoders"): Stage[] {
  return stage ? [stage, ...(stage[key] ?? []).flatMap((inner) => flat(inner, key))] : [];
}

/** Bytes that are no UTF-8 become U+FFFD; U+FEFF stays. */
const lossyDecoder = () => new TextDecoder("utf-8", { ignoreBOM: true });

function decodeBytes(tokens: readonly string[], standalone: ReadonlySet<string>): string {
  const parts = tokens.map((token) =>
    standalone.has(token) ? encoder.encode(token) : byteLevelBytes(token),
  );
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return lossyDecoder().decode(bytes);
}
