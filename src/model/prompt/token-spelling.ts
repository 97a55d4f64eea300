import { PromptError } from "../../errors.ts";

/** Gives the UTF-8 bytes of input text that a token stands for; `<0x0A>` or `Ċ` gives one byte. */
export type Spelling = (token: string) => Uint8Array;

const encoder = new TextEncoder();

/**
 * GPT-2's alphabet: every byte as one printable character. Printable Latin-1 bytes stand for themselves, the
 * other 68 are numbered from U+0100 on in order.
 */
function byteAlphabet(): Map<string, number> {
  const alphabet = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    alphabet.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return alphabet;
}

const ALPHABET = byteAlphabet();

/** The bytes of a token in GPT-2's alphabet; one with other characters stands for itself. */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = ALPHABET.get(token[i]!);
    if (byte === undefined) return encoder.encode(token);
    bytes[i] = byte;
  }
  return bytes;
}

/** The types of a tokenizer.json pipeline stage, sequences flattened: `["Replace", "ByteFallback", …]`. */
function stageTypes(stage: unknown): string[] {
  if (typeof stage !== "object" || stage === null) return [];
  const { type, decoders } = stage as { type?: unknown; decoders?: unknown };
  return [
    ...(typeof type === "string" ? [type] : []),
    ...(Array.isArray(decoders) ? decoders.flatMap(stageTypes) : []),
  ];
}

/**
 * How the tokens of a tokenizer.json are spelt, read off its decoder: byte-level alphabet, SentencePiece with
 * `▁` for a blank and `<0x0A>` for a byte, or WordPiece with `##`.
 *
 * @param added contents of the added tokens, which stand for themselves
 */
export function spellingOf(
  tokenizerJson: { decoder?: unknown; model?: unknown },
  added: ReadonlySet<string>,
): Spelling {
  const stages = stageTypes(tokenizerJson.decoder);
  const model = tokenizerJson.model as { end_of_word_suffix?: string | null } | undefined;
  const suffix = model?.end_of_word_suffix ?? "";
  const byteLevel = stages.includes("ByteLevel");
  const spellPiece = (piece: string): Uint8Array => {
    if (byteLevel) return byteLevelBytes(piece);
    const byte = stages.includes("ByteFallback") ? /^<0x([0-9A-F]{2})>$/.exec(piece) : null;
    if (byte) return Uint8Array.of(Number.parseInt(byte[1]!, 16));
    if (stages.includes("WordPiece")) return encoder.encode(piece.replace(/^##/, ""));
    return encoder.encode(piece.replaceAll("▁", " "));
  };
  return (token) => {
    if (added.has(token)) return encoder.encode(token);
    return spellPiece(suffix && token.endsWith(suffix) ? token.slice(0, -suffix.length) : token);
  };
}

/** The bytes at the end of some pieces that begin a character and do not complete it; at most three, mostly none. */
export function incompleteTail(pieces: readonly Uint8Array[]): Uint8Array {
  const bytes = Uint8Array.from(pieces.flatMap((piece) => [...piece.slice(-3)]));
  for (let length = 1; length <= Math.min(3, bytes.length); length++) {
    const tail = bytes.slice(-length);
    try {
      if (new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(tail, { stream: true }) === "")
        return tail;
    } catch {
      // No beginning of a character.
    }
  }
  return new Uint8Array();
}

/** Half-open ranges of UTF-8 bytes, one per token; empty for a token that stands for no byte of the text. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

const BLANK = 0x20;
const isBlank = (byte: number | undefined) =>
  byte === BLANK || (byte !== undefined && byte >= 0x09 && byte <= 0x0d);

function startsWith(text: Uint8Array, at: number, piece: Uint8Array, from: number): boolean {
  for (let i = from; i < piece.length; i++) if (text[at + i - from] !== piece[i]) return false;
  return true;
}

/**
 * Finds which bytes of `text` each token covers, by spelling the tokens out along the text. Blanks that a
 * tokenizer puts in front of a word or drops between words are allowed for; other rewriting (lower case, Unicode
 * normalisation) is not, and throws. An unknown token covers what lies up to the next known one: it stands for characters
 * that no other token has.
 *
 * The library that tokenises gives no offsets, and tokenising pieces on their own would give other tokens.
 *
 * @param unknown the token for characters that the vocabulary lacks, if there is one
 * @throws PromptError where a token does not spell what comes next in the text
 */
export function tokenByteRanges(
  text: string,
  tokens: readonly string[],
  spell: Spelling,
  unknown?: string,
): ByteRange[] {
  const bytes = encoder.encode(text);
  let at = 0;
  const place = (piece: Uint8Array): ByteRange | undefined => {
    for (let from = 0; from <= piece.length; from++) {
      if (startsWith(bytes, at, piece, from)) return { start: at, end: at + piece.length - from };
      if (piece[from] !== BLANK) return undefined;
    }
    return undefined;
  };
  const ranges: ByteRange[] = [];
  let open = 0; // unknown tokens at the end of the ranges, of which it is not known yet where they end
  const close = (end: number) => {
    for (; open > 0; open--)
      ranges[ranges.length - open] = { start: ranges[ranges.length - open]!.start, end };
  };
  for (const token of tokens) {
    const piece = spell(token);
    const literal = encoder.encode(token); // a token for a byte may be written out in the text
    const placed = () => place(piece) ?? place(literal);
    if (token === unknown && !startsWith(bytes, at, literal, 0)) {
      while (open === 0 && isBlank(bytes[at])) at++;
      ranges.push({ start: at, end: at });
      open++;
      continue;
    }
    // Behind unknown characters a token that is all blanks stands for some that are there.
    const first = open > 0 ? at + 1 : at;
    const isThere = (range: ByteRange | undefined) =>
      range && (range.end > range.start || isBlank(bytes[at]));
    for (at = first; open > 0 && at < bytes.length && !isThere(placed()); at++);
    let range = placed();
    while (!range && isBlank(bytes[at])) {
      at++;
      range = placed();
    }
    if (!range) {
      const rest = new TextDecoder().decode(bytes.subarray(at, at + 24));
      throw new PromptError(
        `Cannot tell which tokens a named piece of text became: expected token ${JSON.stringify(token)} to spell what follows at byte ${at}, found ${JSON.stringify(rest)}; this tokenizer rewrites such text.`,
      );
    }
    close(range.start);
    at = range.end;
    ranges.push(range);
  }
  close(bytes.length);
  return ranges;
}
