import * as library from "@huggingface/tokenizers";
import { byteLevelBytes } from "./token-spelling.ts";

/** The parts of a tokenizer.json that are read here; the rest is the tokenizer library's business. */
export interface TokenizerJson {
  readonly model: { readonly type?: string; readonly byte_fallback?: boolean };
  readonly added_tokens: readonly unknown[];
  readonly decoder: unknown;
}

/** A stage of the library; sequences hold others. */
interface Stage {
  readonly config?: { readonly type?: string };
  readonly tokenizers?: readonly (Stage | null)[];
  readonly decoders?: readonly (Stage | null)[];
}

interface PreTokenizer extends Stage {
  pattern?: RegExp;
  pre_tokenize(text: string, options: { section_index: number }): string[];
}

interface Decoder extends Stage {
  text_decoder?: TextDecoder;
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
