import { CheckpointError } from "../../errors.ts";
import { isObject } from "../checkpoint/json/config-reader.ts";

/** A token that is looked for in a text as it stands, before the model cuts the rest into pieces. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Left out of decoded text where special tokens are skipped. */
  readonly special: boolean;
  /** Only where no letter, digit or `_` touches it. */
  readonly singleWord: boolean;
  /** Takes the white space in front of it, or behind it, along. */
  readonly leftStrip: boolean;
  readonly rightStrip: boolean;
  /** Looked for in normalised text, by its normalised content. */
  readonly normalized: boolean;
}

/** The `added_tokens` of a tokenizer.json. Throws CheckpointError for an entry without an id or content. */
export function readAddedTokens(list: readonly unknown[]): AddedToken[] {
  return list.map((item, i) => {
    const { id, content, ...flags } = isObject(item) ? item : {};
    if (!Number.isInteger(id) || Number(id) < 0 || typeof content !== "string") {
      throw new CheckpointError(
        `tokenizer.json: expected added token ${i} to have an id and a content, found ${JSON.stringify(item)}`,
      );
    }
    const special = flags["special"] === true;
    return {
      id: Number(id),
      content,
      special,
      singleWord: flags["single_word"] === true,
      leftStrip: flags["lstrip"] === true,
      rightStrip: flags["rstrip"] === true,
      normalized: typeof flags["normalized"] === "boolean" ? flags["normalized"] : !special,
    };
  });
}

// Rust's \w and \s, which Python's `tokenizers` goes by; JavaScript's \s has U+FEFF and lacks U+0085.
const WORD = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u;
const SPACE = /^\p{White_Space}$/u;

interface TrieNode {
  readonly next: Map<string, TrieNode>;
  token?: AddedToken;
}

/** Finds added tokens in text: of those that begin first the longest, as Python's `tokenizers` does. */
export class AddedTokenSplitter {
  readonly #root: TrieNode = { next: new Map() };

  /** @param spellings what to look for; of equal ones the first counts, empty ones do not */
  constructor(spellings: Iterable<readonly [spelling: string, token: AddedToken]>) {
    for (const [spelling, token] of spellings) {
      if (spelling === "") continue;
      let node = this.#root;
      for (const unit of spelling.split("")) {
        let next = node.next.get(unit);
        if (!next) {
          next = { next: new Map() };
          node.next.set(unit, next);
        }
        node = next;
      }
      node.token ??= token;
    }
  }

  /** The added tokens of a text and the pieces between them, none of them empty. */
  split(text: string): (AddedToken | string)[] {
    const pieces: (AddedToken | string)[] = [];
    let done = 0;
    for (const { token, start, end } of this.#matches(text)) {
      if (token.singleWord && (WORD.test(before(text, start)) || WORD.test(behind(text, end)))) continue;
      let from = start;
      let to = end;
      if (token.leftStrip) while (from > done && SPACE.test(text[from - 1]!)) from--;
      if (token.rightStrip) while (to < text.length && SPACE.test(text[to]!)) to++;
      if (done < from) pieces.push(text.slice(done, from));
      pieces.push(token);
      done = to;
    }
    if (done < text.length) pieces.push(text.slice(done));
    return pieces;
  }

  *#matches(text: string): Generator<{ token: AddedToken; start: number; end: number }> {
    for (let start = 0; start < text.length; ) {
      let end = start;
      let token: AddedToken | undefined;
      let node = this.#root.next.get(text[start]!);
      for (let at = start + 1; node; node = node.next.get(text[at++] ?? "")) {
        if (node.token) [token, end] = [node.token, at];
      }
      if (token) yield { token, start, end };
      start = token ? end : start + 1;
    }
  }
}

/** The character that ends before `at`, or begins there; "" at the ends of the text. */
function before(text: string, at: number): string {
  const pair = /[\uDC00-\uDFFF]/.test(text[at - 1] ?? "");
  return text.slice(Math.max(0, at - (pair ? 2 : 1)), at);
}

function behind(text: string, at: number): string {
  const code = text.codePointAt(at);
  return code === undefined ? "" : String.fromCodePoint(code);
}
