import type { Tokenizer } from "./tokenizer.ts";

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
    return (
      this.#rest(this.#tokenizer.decodePrefix(this.#ids, { skipSpecial: true }).text) +
      (last ? this.end() : "")
    );
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
