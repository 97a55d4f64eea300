import type { EncodedPrompt, TokenList } from "../../../src/session/messages/results.ts";

/** What the positions of what is computed are: the decoder's where an encoder reads the prompt. */
export function tokensComputed(encoded: EncodedPrompt): TokenList {
  return encoded.sequence ?? encoded;
}
