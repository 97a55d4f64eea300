import { FileError } from "../errors.ts";
import { isObject } from "../model/checkpoint/json/config-reader.ts";
import type { ImageSpan, Prompt } from "../model/prompt/prompt.ts";

/** A prompt of a store, as far as it is kept: what was asked, and its tokens; of pictures only their places. */
export interface StoredPrompt {
  /** Counted from the store's first. */
  readonly prompt: number;
  readonly text: string;
  readonly ids: readonly number[];
  /** As the vocabulary spells them. */
  readonly tokens: readonly string[];
  /** Named positions, those of pictures among them. */
  readonly spans: Readonly<Record<string, ImageSpan>>;
}

/** A line of a shard's prompts. */
export function encodePrompt(
  index: number,
  { text, ids, tokens, spans }: Pick<Prompt, "text" | "ids" | "tokens" | "spans">,
): string {
  return JSON.stringify({ prompt: index, text, ids, tokens, spans });
}

/** The inverse of {@link encodePrompt}. Throws FileError. */
export function parsePrompt(line: string, where: string): StoredPrompt {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch {
    // Told below.
  }
  const fits =
    isObject(json) &&
    Number.isInteger(json["prompt"]) &&
    typeof json["text"] === "string" &&
    Array.isArray(json["ids"]) &&
    Array.isArray(json["tokens"]) &&
    json["tokens"].length === json["ids"].length &&
    isObject(json["spans"]);
  if (fits) return json as unknown as StoredPrompt;
  throw new FileError(`${where}: expected a prompt with text, ids and tokens, found ${line.slice(0, 60)}`);
}
