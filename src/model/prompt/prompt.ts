import { PromptError } from "../../errors.ts";

/** Positions `start` up to but not including `end` of a prompt. */
export interface Span {
  /** Its first position. */
  readonly start: number;
  /** The position behind its last. */
  readonly end: number;
}

/** Image features laid out row by row, one position each. */
export interface PatchGrid {
  /** Patches from top to bottom. */
  readonly rows: number;
  /** Patches from left to right. */
  readonly columns: number;
}

/** The positions of an image; with `grid` where they are one grid of patches, first row first. */
export interface ImageSpan extends Span {
  readonly grid?: PatchGrid;
  /** Positions from the first patch of a row to that of the next, where others stand between the rows. Default `grid.columns`. */
  readonly rowStride?: number;
  /**
   * Where its tiles are one map: the positions of the whole image, which come first, and those of the map, if there is one. Each
   * is a grid.
   */
  readonly parts?: { readonly whole: ImageSpan; readonly map?: ImageSpan };
  /**
   * Where an image is cut into tiles that stand by themselves: how they lie, and of each its own positions, one plain grid of
   * patches. They come row by row; behind them comes the whole image once more, as the last.
   */
  readonly tiles?: { readonly grid: PatchGrid; readonly spans: readonly ImageSpan[] };
}

/** A prompt as a value: immutable, independent of any model run. Positions count from 0, BOS and images included. */
export class Prompt<Image = unknown> {
  /** What was asked for; an image is one placeholder here. */
  readonly text: string;
  /** Token ids after image expansion. */
  readonly ids: readonly number[];
  /** Token strings as the vocabulary spells them, one per id. */
  readonly tokens: readonly string[];
  /** Named positions: pieces of text by their name, images as `image`, `image2`, … */
  readonly spans: Readonly<Record<string, ImageSpan>>;
  readonly images: readonly Image[];
  /** Whether the first token is BOS. */
  readonly bos: boolean;
  /** What the decoder of an encoder-decoder has answered so far, if anything; its start token is not counted in. */
  readonly answer?: Prompt<Image> | undefined;
  /** Ids of what a Q-Former reads of it beside its images, by a tokenizer of its own; absent where nothing does. */
  readonly instruction?: readonly number[] | undefined;
  /** Of a decoder's sequence, which `decoderSequence` makes: the prompt that the encoder reads. */
  readonly source?: Prompt<Image> | undefined;

  /** Use `prompt` or `promptFromIds` of build-prompt.ts. */
  constructor(
    fields: Pick<
      Prompt<Image>,
      "text" | "ids" | "tokens" | "spans" | "images" | "bos" | "answer" | "instruction" | "source"
    >,
  ) {
    if (fields.ids.length === 0) throw new PromptError("A prompt needs at least one token, found none.");
    this.text = fields.text;
    this.ids = Object.freeze([...fields.ids]);
    this.tokens = Object.freeze([...fields.tokens]);
    this.spans = Object.freeze({ ...fields.spans });
    this.images = Object.freeze([...fields.images]);
    this.bos = fields.bos;
    if (fields.answer) this.answer = fields.answer;
    if (fields.instruction) this.instruction = Object.freeze([...fields.instruction]);
    if (fields.source) this.source = fields.source;
    Object.freeze(this);
  }

  /** Number of tokens. */
  get length(): number {
    return this.ids.length;
  }

  /** Position of the last token. */
  get last(): number {
    return this.ids.length - 1;
  }

  /** The absolute position of `position`; negative ones count from the end. Throws PromptError outside the sequence. */
  at(position: number): number {
    return resolvePosition(position, this.length);
  }

  /**
   * The span of that name.
   * @throws PromptError if there is none; the message lists those there are
   */
  span(name: string): ImageSpan {
    const span = Object.hasOwn(this.spans, name) ? this.spans[name] : undefined;
    if (span) return span;
    const names = Object.keys(this.spans);
    throw new PromptError(
      `The prompt has no span "${name}"; it has ${names.length ? names.join(", ") : "none"}.`,
    );
  }
}

/**
 * The absolute form of a position; negative ones count from the end, −1 is the last token.
 * @throws PromptError if it is not a whole number or lies outside the sequence
 */
export function resolvePosition(position: number, length: number): number {
  const absolute = position < 0 ? length + position : position;
  if (!Number.isInteger(position) || absolute < 0 || absolute >= length) {
    throw new PromptError(
      `Expected a position from ${-length} to ${length - 1} (${length} tokens), found ${position}.`,
    );
  }
  return absolute;
}

/**
 * The positions of one row of an image's patches.
 * @throws PromptError if the image has no grid or no such row (negative rows count from the last)
 */
export function patchRow(image: ImageSpan, row: number): Span {
  const { rows, columns, stride } = gridOf(image);
  const start = image.start + resolvePosition(row, rows) * stride;
  return { start, end: start + columns };
}

/**
 * The positions of one column of an image's patches, from the top.
 * @throws PromptError if the image has no grid or no such column (negative columns count from the last)
 */
export function patchColumn(image: ImageSpan, column: number): number[] {
  const { rows, columns, stride } = gridOf(image);
  const first = image.start + resolvePosition(column, columns);
  return Array.from({ length: rows }, (_, row) => first + row * stride);
}

/**
 * The positions of all of an image's patches, row by row.
 * @throws PromptError if the image has no grid
 */
export function patchPositions(image: ImageSpan): number[] {
  const { rows, columns, stride } = gridOf(image);
  return Array.from(
    { length: rows * columns },
    (_, i) => image.start + Math.floor(i / columns) * stride + (i % columns),
  );
}

/** The positions of an image as a whole, where it is cut into tiles, which have others; else its own. */
export function wholeSpan(image: ImageSpan): ImageSpan {
  return image.parts?.whole ?? image.tiles?.spans.at(-1) ?? image;
}

function gridOf(image: ImageSpan): PatchGrid & { stride: number } {
  const { grid, rowStride, parts, tiles, start, end } = image;
  if (grid) return { ...grid, stride: rowStride ?? grid.columns };
  const hint = parts ? "; its parts have one each" : tiles ? "; each of its tiles.spans has one" : "";
  throw new PromptError(`Expected a span with a grid of patches, found none at ${start} to ${end}${hint}.`);
}

/**
 * Checks that a sequence fits a model.
 * @param length tokens of the prompt, plus those to be generated
 * @throws PromptError with both numbers if it does not
 */
export function checkContext(length: number, context: number): void {
  if (length > context)
    throw new PromptError(`Expected at most ${context} tokens (the model's context), found ${length}.`);
}

/**
 * Throws PromptError when a prompt and the new tokens that are to be computed do not fit into the context, or when they grow past
 * the length from which on RoPE turns all tokens otherwise: keys that were computed before would be another prompt's.
 */
export function checkGrowth(length: number, newTokens: number, { context, rope }: Growth): void {
  checkContext(length + newTokens, context);
  const border = rope?.beyond?.tokens ?? Number.POSITIVE_INFINITY;
  if (length > border || length + newTokens <= border) return;
  throw new PromptError(
    `Expected at most ${border - length} computed new tokens (maxNewTokens ${border - length + 1}) after a prompt of ${length}, found ` +
      `${newTokens}: beyond ${border} tokens (original_max_position_embeddings) this model's LongRoPE turns all tokens otherwise, ` +
      "and their keys would have to be computed anew. Continue in a new prompt that has the answer so far.",
  );
}

/** What bounds how far a prompt may grow. */
interface Growth {
  /** Most positions that the model was made for. */
  readonly context: number;
  readonly rope?: { readonly beyond?: { readonly tokens: number } } | undefined;
}

/**
 * A hash of the token ids of some prompts, in order, to tell later what a task vector was made from: 64-bit FNV-1a
 * over each prompt's length and ids as little-endian 32-bit words (and then those of an encoder-decoder's answer so far), as 16
 * hex digits. Not cryptographic, and blind to the pixels of images.
 */
export function hashPrompts(prompts: Iterable<Pick<Prompt, "ids" | "answer">>): string {
  let hash = 0xcbf29ce484222325n;
  const addWord = (word: number) => {
    for (let shift = 0; shift < 32; shift += 8) {
      hash = BigInt.asUintN(64, (hash ^ BigInt((word >>> shift) & 0xff)) * 0x100000001b3n);
    }
  };
  for (const { ids, answer } of prompts) {
    for (const list of answer ? [ids, answer.ids] : [ids]) {
      addWord(list.length);
      for (const id of list) addWord(id);
    }
  }
  return hash.toString(16).padStart(16, "0");
}
