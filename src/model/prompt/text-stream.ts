import type { Tokenizer } from "./tokenizer.ts";

/** Tokens that are decoded again with each new one, so that it is decoded as what it follows. */
const CONTEXT = 32;

/**
 * Text of tokens as they come, so that the pieces joined are the text of all: blanks between words are there, and the
 * bytes of a character are held back until it is complete. Special tokens are left out.
 */
export class TextStream {
  readonly #tokenizer: Tokenizer;
  readonly #ids: number[] = [];
  #given = "";

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** What the text has grown by with this token; if it is the last, all that was held back too. */
  next(id: number, last = false): string {
    this.#ids.push(id);
    const { text, tail } = this.#tokenizer.decodePrefix(this.#ids, { skipSpecial: true });
    const piece = this.#rest(text);
    if (last) return piece + this.end();
    if (this.#ids.length >= 4 * CONTEXT && tail.length === 0) {
      this.#ids.splice(0, this.#ids.length - CONTEXT);
      this.#given = this.#tokenizer.decode(this.#ids, { skipSpecial: true });
    }
    return piece;
  }

  /** What was held back, when no more tokens come. */
  end(): string {
    return this.#rest(this.#tokenizer.decode(this.#ids, { skipSpecial: true }));
  }

  #rest(text: string): string {
    if (!text.startsWith(this.#given)) return "";
    const rest = text.slice(this.#given.length);
    this.#given = text;
    return rest;
  }
}
