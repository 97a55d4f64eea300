import { readFileSync } from "node:fs";
import { createTokenizer, type Tokenizer } from "../../src/model/prompt/tokenizer.ts";

/**
 * Kinds whose tokenizer.json is that of a model's fixture; the others have theirs beside their goldens. Of the character map of
 * SentencePiece (nmt_nfkc, 225,276 rules) the files keep the rules for Latin, punctuation and what is in the goldens.
 */
const OF_MODEL = ["t5", "siglip"];

/** The parsed tokenizer.json of a kind, a folder of test/fixtures/tokenizers. */
// biome-ignore lint/suspicious/noExplicitAny: tests change whatever they like in it
export function tokenizerJson(kind: string): any {
  const path = OF_MODEL.includes(kind) ? `${kind}/model` : `tokenizers/${kind}`;
  return JSON.parse(readFileSync(new URL(`../fixtures/${path}/tokenizer.json`, import.meta.url), "utf8"));
}

export function tokenizerOf(kind: string, config: object = {}): Tokenizer {
  return createTokenizer(tokenizerJson(kind), config);
}
