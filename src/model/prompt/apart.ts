import { PromptError } from "../../errors.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** How a prompt is made whose text and images are tokenised by themselves. Each piece of text begins with BOS. */
export interface ApartRules {
  /** What is no text once images are expanded: these become their ids wherever they stand. BOS is one of them. */
  readonly tokens: readonly string[];
  /** Where a prompt begins with this, the blank that the tokenizer puts in front of it goes. */
  readonly dropsBlankBefore?: string;
  /** What ends a prompt with images. */
  readonly end: string;
  /** What a text with images must not have: the processor would make coordinates of it. */
  readonly refused: readonly string[];
  /** Whether a prompt without images gets the special tokens that the tokenizer adds. */
  readonly framesText: boolean;
}

/**
 * Ids of a text; where `apart` says which tokens are no text, the pieces between them are tokenised by themselves. Throws
 * PromptError for what is refused, and for a token that the tokenizer does not have.
 */
export function encodeApart(tokenizer: Tokenizer, full: string, apart: ApartRules | undefined): number[] {
  if (!apart) return tokenizer.encode(full, { specials: false });
  const refused = apart.refused.find((tag) => full.includes(tag));
  if (refused !== undefined) {
    throw new PromptError(
      `Expected no ${refused} in a prompt with images, whose coordinates this model's processor would convert; that is not supported.`,
    );
  }
  const escaped = apart.tokens.map((token) => token.replace(/[|\\{}()[\]^$+*?.]/g, "\\$&"));
  return full.split(new RegExp(`(${escaped.join("|")})`)).flatMap((piece, i) => {
    if (piece === "") return [];
    if (!apart.tokens.includes(piece)) {
      const ids = tokenizer.encode(piece, { specials: false });
      const blank = apart.dropsBlankBefore;
      return i === 0 && blank && piece.startsWith(blank) ? ids.slice(1) : ids;
    }
    const id = tokenizer.idOf(piece);
    if (id !== undefined) return [id];
    throw new PromptError(
      `Expected the tokenizer to have ${piece}, which this model's prompts need, found none.`,
    );
  });
}
