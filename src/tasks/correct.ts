import type { Tokenizer } from "../model/prompt/tokenizer.ts";

/** How answers are compared. */
export interface ScoreOptions {
  /** Whether upper and lower case count as the same. Default true. */
  readonly ignoreCase?: boolean;
}

/**
 * Whether an answer is right by the rule of Luo et al. 2025: it starts with a right output, or such an output starts with
 * it (an answer of one token is often only the beginning of a word). White space around both is ignored; an empty answer
 * is wrong. For an answer of tokens see {@link isCorrectTokens}.
 */
export function isCorrect(
  answer: string,
  outputs: readonly string[],
  { ignoreCase = true }: ScoreOptions = {},
): boolean {
  const given = normaliseAnswer(answer, ignoreCase);
  if (given === "") return false;
  return outputs.some((output) => {
    const right = normaliseAnswer(output, ignoreCase);
    return given.startsWith(right) || right.startsWith(given);
  });
}

/**
 * Whether a whole answer, of as many tokens as it takes, is a right output: the same but for case (unless it counts), white
 * space, quotation marks around it and punctuation at its end.
 */
export function isWholeAnswer(
  answer: string,
  outputs: readonly string[],
  { ignoreCase = true }: ScoreOptions = {},
): boolean {
  const bare = (text: string) =>
    normaliseAnswer(text, ignoreCase)
      .replace(/\s+/g, " ")
      .replace(/^["'“”‘’]+|[\s"'“”‘’.,;:!?]+$/g, "");
  const given = bare(answer);
  return given !== "" && outputs.some((output) => bare(output) === given);
}

/** A text as answers are compared: without white space around it, and in small letters unless case counts. */
export function normaliseAnswer(text: string, ignoreCase: boolean): string {
  const trimmed = text.normalize("NFC").trim();
  return ignoreCase ? trimmed.toLowerCase() : trimmed;
}

/**
 * Whether an answer of tokens is right by the rule of {@link isCorrect}, also where its text alone does not tell. Bytes at
 * its end that only begin a character count where the output goes on with them: the first token of "Łódź" may be C5, a
 * byte of Ł. Blanks alone count where the output, written behind other text, begins with just these tokens.
 */
export function isCorrectTokens(
  tokenizer: Tokenizer,
  ids: readonly number[],
  outputs: readonly string[],
  options: ScoreOptions = {},
): boolean {
  return tokenAnswer(tokenizer, ids, options).isCorrect(outputs);
}

/** An answer that is to be compared with the outputs of many items. */
export interface JudgedAnswer {
  /** Answers with the same key are the same. */
  readonly key: string;
  isCorrect(outputs: readonly string[]): boolean;
}

export function tokenAnswer(
  tokenizer: Tokenizer,
  ids: readonly number[],
  options: ScoreOptions = {},
): JudgedAnswer {
  const { text, tail } = tokenizer.decodePrefix(ids, { skipSpecial: true });
  const key = normaliseAnswer(text, options.ignoreCase ?? true);
  if (tail.length > 0) {
    return {
      key: `${key} + ${tail.join(" ")}`,
      isCorrect: (outputs) => outputs.some((output) => goesOnWith(output, text, tail, options)),
    };
  }
  return {
    key,
    isCorrect: (outputs) =>
      key === ""
        ? ids.length > 0 && outputs.some((output) => beginsWith(tokenizer, output, ids))
        : isCorrect(text, outputs, options),
  };
}

/** Whether `text` and the bytes `tail` are how `output` begins; or `text` goes beyond the output. */
function goesOnWith(
  output: string,
  text: string,
  tail: Uint8Array,
  { ignoreCase = true }: ScoreOptions,
): boolean {
  // Both forms: the bytes may begin an accent that the other form has inside a letter.
  return (["NFC", "NFD"] as const).some((form) => {
    const fold = (part: string) => {
      const normal = part.normalize(form).trimStart();
      return ignoreCase ? normal.toLowerCase() : normal;
    };
    const given = fold(text);
    const letters = [...output.trim().normalize(form)];
    if (given.startsWith(fold(letters.join("")))) return true;
    return letters.some((letter, i) => {
      if (fold(letters.slice(0, i).join("")) !== given) return false;
      const spellings = ignoreCase ? [letter, letter.toLowerCase(), letter.toUpperCase()] : [letter];
      return spellings.some((spelling) => startsWith(new TextEncoder().encode(spelling), tail));
    });
  });
}

const startsWith = (bytes: ArrayLike<number>, start: ArrayLike<number>) =>
  Array.from(start).every((byte, i) => bytes[i] === byte);

/** Whether these are the first tokens of `output` behind other text, with or without a blank between. */
function beginsWith(tokenizer: Tokenizer, output: string, ids: readonly number[]): boolean {
  const encode = (text: string) => tokenizer.encode(text, { specials: false });
  const before = encode(":");
  return ["", " "].some((blank) => {
    const all = encode(`:${blank}${output.trim()}`);
    return startsWith(all, before) && startsWith(all.slice(before.length), ids);
  });
}
