import { ArgumentError } from "../errors.ts";
import type { ModelOutline } from "../model/language-model.ts";

/** A token: its id, or a text that is one token. */
export type OneToken = number | string;

/**
 * The id of a token. Throws ArgumentError for a text that is not exactly one token, with the tokens that it is, and for an id
 * that the model does not have.
 */
export function oneTokenId(call: string, { tokenizer, config }: ModelOutline, token: OneToken): number {
  if (typeof token === "number") {
    if (Number.isInteger(token) && token >= 0 && token < config.vocab) return token;
    throw new ArgumentError(`${call}: expected a token id from 0 to ${config.vocab - 1}, found ${token}`);
  }
  const ids = tokenizer.encode(token, { specials: false });
  if (ids.length === 1) return ids[0]!;
  const spelt = ids.map((id) => `${id} ${JSON.stringify(tokenizer.tokenOf(id))}`).join(", ");
  throw new ArgumentError(
    `${call}: expected a text that is one token, found ${JSON.stringify(token)}, which is ${ids.length} (${spelt}); ` +
      "take a blank in front of it or away, or give the id",
  );
}
