import { PromptError } from "../../errors.ts";
import { encodeApart } from "./apart.ts";
import type { ImageRules, PromptPart } from "./image-rules.ts";
import { joinParts, placed, withImagesInFront } from "./join-parts.ts";
import { type ImageSpan, Prompt } from "./prompt.ts";
import { frameOf, specialsInFront } from "./prompt-frame.ts";
import { findPiece, freeName, imageSpans, movedBy, textSpans } from "./prompt-spans.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Special tokens, named spans and pictures of a prompt. */
export interface PromptOptions<Image = unknown> {
  /**
   * `"auto"` (default): the special tokens that the tokenizer adds by itself, which may be none. `true`: the same,
   * and BOS in front if they do not start with it. `false`: nothing is added. Tokens written in the text stay. Where a family
   * has a frame (PaliGemma's BOS behind the images), it stands for what the tokenizer adds.
   */
  readonly bos?: boolean | "auto";
  /** Names for pieces of the text, each of which must occur exactly once. */
  readonly spans?: Readonly<Record<string, string>>;
  /** Images for the placeholders that are written in the text, in order. */
  readonly images?: readonly Image[];
  /**
   * What the decoder of an encoder-decoder has answered so far, as text or named pieces; no special token is added. Without it,
   * the decoder begins with its start token alone.
   */
  readonly answer?: string | readonly PromptPart<Image>[];
  /** How the model writes images; without it a prompt takes none, and placeholders are ordinary text. */
  readonly imageRules?: ImageRules<Image>;
}

/**
 * Builds a prompt: joins the parts, replaces each image by its text, tokenises the whole, and finds the spans.
 *
 * A named piece spans every token that covers any of its bytes, so a token that straddles its border is inside:
 * `"Greece"` in `"Q: Greece"` spans `ĠGreece`. Pieces and images that share a name are numbered from the second
 * on: `country`, `country2`.
 *
 * @throws PromptError if images and placeholders differ in number, a named piece is empty or so rewritten by the
 *   tokenizer that its tokens cannot be told, BOS is wanted where there is none, or the prompt is empty
 */
export function prompt<Image = unknown>(
  tokenizer: Tokenizer,
  parts: string | readonly PromptPart<Image>[],
  options: PromptOptions<Image> = {},
): Prompt<Image> {
  const { bos = "auto", imageRules, spans: pieces = {} } = options;
  const given = withImagesInFront(typeof parts === "string" ? [placed(parts, options)] : parts, options);
  const hasImages =
    given.images.length > 0 || given.parts.some((part) => typeof part === "object" && "image" in part);
  const frame = bos === false ? undefined : frameOf(tokenizer, imageRules, { bos, hasImages });
  const joined = joinParts(given.parts, { ...options, images: given.images }, frame);
  const named = [
    ...joined.named,
    ...Object.entries(pieces).map(([name, piece]) => findPiece(name, piece, joined.full)),
  ];

  const isWhole = (frame !== undefined && frame.behindLeading === undefined) || bos === false;
  const front = isWhole ? [] : specialsInFront(tokenizer, bos);
  // Images in front of the special tokens are tokenised by themselves, as the text then is.
  const lead = tokenizer.encode(joined.full.slice(0, joined.lead), { specials: false });
  const body = [
    ...lead,
    ...encodeApart(tokenizer, joined.full.slice(joined.lead), hasImages ? imageRules?.apart : undefined),
  ];
  const ids = [...lead, ...front, ...body.slice(lead.length), ...(isWhole ? [] : tokenizer.suffix)];
  const place = (position: number) => (position < lead.length ? position : position + front.length);

  const spans: Record<string, ImageSpan> = {};
  const found = [
    ...imageSpans(tokenizer, body, joined.imageTexts, imageRules),
    ...textSpans(tokenizer, body, joined.full, named),
  ];
  for (const { name, ...span } of found) {
    spans[freeName(name, spans)] = Object.freeze(movedBy(place(span.start) - span.start, span));
  }
  const answer =
    options.answer === undefined || options.answer === ""
      ? undefined
      : prompt<Image>(tokenizer, options.answer, { bos: false });
  const { text, images } = joined;
  const instruction =
    images.length > 0 ? imageRules?.instruct?.(text.replaceAll(imageRules.placeholder, " ")) : undefined;
  return promptFromIds(tokenizer, ids, { text, spans, images, answer, instruction });
}

/**
 * A prompt from token ids as they are; nothing is added.
 *
 * @param fields.text what the ids stand for (default: the ids decoded)
 * @throws PromptError if an id is not a whole number of 32 bits, or there are none. A model's own method also checks them
 *   against its embedding.
 */
export function promptFromIds<Image = unknown>(
  tokenizer: Tokenizer,
  ids: Iterable<number>,
  fields: Partial<Pick<Prompt<Image>, "text" | "spans" | "images" | "answer" | "instruction">> = {},
): Prompt<Image> {
  const list = Array.from(ids);
  const wrong = list.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= 2 ** 32);
  if (wrong >= 0) {
    const found = typeof list[wrong] === "number" ? list[wrong] : `the ${typeof list[wrong]} ${list[wrong]}`;
    throw new PromptError(
      `Expected token ids to be whole numbers from 0 to 2^32 - 1, found ${found} at position ${wrong}.`,
    );
  }
  return new Prompt<Image>({
    text: fields.text ?? tokenizer.decode(list),
    ids: list,
    tokens: list.map((id) => tokenizer.tokenOf(id)),
    spans: fields.spans ?? {},
    images: fields.images ?? [],
    bos: list[0] === tokenizer.bosId,
    answer: fields.answer,
    instruction: fields.instruction,
  });
}
