import { CheckpointError } from "../../../errors.ts";

const MAX_DEPTH = 64;
const INTEGER = /(?:0|[1-9]\d*)(?![\d.eE])/y;
const SCALAR = /true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;

/**
 * Pulls values out of JSON text one by one. For files that may be hostile it beats `JSON.parse`: a duplicate key is an
 * error instead of the last one winning, nothing is allocated for values that the caller did not ask for, depth is
 * bounded, and integers that a double cannot hold are refused. Throws CheckpointError with the character position.
 */
export class JsonReader {
  readonly #text: string;
  readonly #where: string;
  #at = 0;
  #depth = 0;

  /** `where` names the text in messages. */
  constructor(text: string, where: string) {
    this.#text = text;
    this.#where = where;
  }

  /** An object; `member` is called for every key and has to consume its value. */
  object(member: (key: string) => void): void {
    const seen = new Set<string>();
    this.#items("{", "}", () => {
      const key = this.string();
      if (seen.has(key)) throw this.#error(`duplicate key ${JSON.stringify(key)}`);
      seen.add(key);
      this.#expect(":");
      member(key);
    });
  }

  /** An array; `item` is called where each element starts and has to consume it. */
  array(item: () => void): void {
    this.#items("[", "]", item);
  }

  string(): string {
    this.#expect('"');
    const start = this.#at;
    let escaped = false;
    for (; ; this.#at++) {
      const code = this.#text.charCodeAt(this.#at);
      if (code === 0x22) break;
      if (code === 0x5c) {
        escaped = true;
        this.#at++;
      } else if (!(code >= 0x20)) throw this.#error("unterminated string");
    }
    const body = this.#text.slice(start, this.#at++);
    if (!escaped) return body;
    let value: string;
    try {
      value = JSON.parse(`"${body}"`);
    } catch {
      throw this.#error("bad escape in string");
    }
    // No UTF-8 spells it, so the name would be another to every other reader.
    if (/\p{Surrogate}/u.test(value)) throw this.#error("lone surrogate in string");
    return value;
  }

  /** A whole number of at least zero that a double holds exactly. */
  integer(): number {
    return Number(this.#integer(BigInt(Number.MAX_SAFE_INTEGER)));
  }

  /** A whole number from zero to 2^64 - 1. */
  unsigned64(): bigint {
    return this.#integer(2n ** 64n - 1n);
  }

  #integer(largest: bigint): bigint {
    this.#space();
    INTEGER.lastIndex = this.#at;
    const digits = INTEGER.exec(this.#text)?.[0];
    if (digits === undefined) throw this.#error(`expected a whole number, found ${this.#found()}`);
    // Of a million digits no number is made.
    if (digits.length > 20 || BigInt(digits) > largest) throw this.#error(`${digits} is too large`);
    this.#at += digits.length;
    return BigInt(digits);
  }

  /** True, and it is passed over, where the value is null. */
  isNull(): boolean {
    this.#space();
    if (!this.#text.startsWith("null", this.#at)) return false;
    this.#at += "null".length;
    return true;
  }

  /** Any value, which is checked and thrown away. */
  skip(): void {
    this.#space();
    const next = this.#text[this.#at];
    if (next === "{") this.object(() => this.skip());
    else if (next === "[") this.array(() => this.skip());
    else if (next === '"') this.string();
    else {
      SCALAR.lastIndex = this.#at;
      const scalar = SCALAR.exec(this.#text)?.[0];
      if (scalar === undefined) throw this.#error(`expected a value, found ${this.#found()}`);
      this.#at += scalar.length;
    }
  }

  /** Nothing but white space may be left. */
  end(): void {
    this.#space();
    if (this.#at < this.#text.length) throw this.#error(`expected the end, found ${this.#found()}`);
  }

  #items(open: string, close: string, item: () => void): void {
    this.#expect(open);
    if (++this.#depth > MAX_DEPTH) throw this.#error(`nested deeper than ${MAX_DEPTH}`);
    if (!this.#take(close)) {
      do item();
      while (this.#take(","));
      this.#expect(close);
    }
    this.#depth--;
  }

  #space(): void {
    for (; ; this.#at++) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
    }
  }

  #take(character: string): boolean {
    this.#space();
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #expect(character: string): void {
    if (!this.#take(character)) throw this.#error(`expected ${character}, found ${this.#found()}`);
  }

  #found(): string {
    return this.#at < this.#text.length ? JSON.stringify(this.#text[this.#at]) : "the end";
  }

  #error(what: string): CheckpointError {
    return new CheckpointError(`${this.#where}: ${what} at character ${this.#at}`);
  }
}
