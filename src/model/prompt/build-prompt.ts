import { PromptError } from "../../errors.ts";
import { type ApartRules, encodeApart } from "./apart.ts";
import { type ImageSpan, type PatchGrid, Prompt, type Span } from "./prompt.ts";
import { tokenByteRanges } from "./token-spelling.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * A piece of a prompt: text, text whose tokens get a name in `spans`, or an image. The pieces are joined before
 * anything is tokenised, so where a prompt is cut into pieces changes no token.
 */
export type PromptPart<Image = unknown> =
  | string
  | { readonly text: string; readonly name: string }
  | { readonly image: Image };

/** What an image becomes in the text of a prompt. */
export interface ImageText {
  /** Replaces the placeholder; holds the token of a feature once per position that receives one. */
  readonly text: string;
  /** Stands in front of it, at the end of the text there. */
  readonly label?: string;
  /** Set where those positions are one grid, with as many others behind each row of it but the last. */
  readonly grid?: PatchGrid;
  /** Set where they are the whole image, and then a map of its tiles: the grids of both. Behind each row comes a further position. */
  readonly parts?: { readonly whole: PatchGrid; readonly map?: PatchGrid };
  /** Set where they are those of tiles: how these lie, and what grid each is, as is the whole image behind them. */
  readonly tiles?: { readonly grid: PatchGrid; readonly each: PatchGrid };
}

/** A replacement in a text. */
export interface Rewrite {
  readonly pattern: RegExp;
  readonly by: string;
}

/** How a family writes images into its prompts, as the Hugging Face processor of that family does. */
export interface ImageRules<Image = unknown> {
  /** Token that stands for one image before expansion and for one image feature after it, e.g. `<image>`. */
  readonly placeholder: string;
  /** Token that stands for one image feature, where it is another than the one for an image (Gemma 3). */
  readonly featureToken?: string;
  /** The text of image `index` (from 0) of `count`; `follows`: whether nothing stands between it and the one before. */
  expand(image: Image, index: number, count: number, follows: boolean): ImageText;
  /** What happens to the whole text once images are expanded, one after the other; patterns are global. */
  readonly rewrites?: readonly Rewrite[];
  /** What an image is in a prompt of so many, where that differs from what it is alone. */
  among?(image: Image, count: number): Image;
  /** Whether the text before, between and behind images loses the blanks at its ends. */
  readonly strips?: boolean;
  /** Whether the processor writes BOS in front of the text itself, and has the tokenizer add nothing. */
  readonly writesBos?: boolean;
  /**
   * Set where the family's processor frames prompts, in place of the special tokens that the tokenizer adds: with BOS behind
   * the last image (in front, if there is none), and with this text at the end.
   */
  readonly bosBehindImages?: { readonly end: string };
  /**
   * Whether images with which a prompt begins stand in front of the special tokens, and those that are given for a text without
   * placeholders in front of all (BLIP-2).
   */
  readonly leads?: boolean;
  /** What a Q-Former reads of a prompt's text, from which the placeholders are gone: ids of a tokenizer of its own. */
  instruct?(text: string): readonly number[];
  /** Set where text and images are tokenised by themselves (Fuyu). */
  readonly apart?: ApartRules;
  /** A text with placeholders for the images that it has none for. Without it there have to be as many as images. */
  placed?(text: string, missing: number): string;
  /**
   * Whether the processor of prompts with images writes BOS behind those that stand in front of all text (or in front), unless the
   * text has it; the tokenizer adds its special tokens all the same.
   */
  readonly bosBehindLeadingImages?: boolean;
}

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
  const joined = join(given.parts, { ...options, images: given.images }, frame);
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

/** Parts and list of images; those of a text without placeholders are among the parts where they go in front. */
function withImagesInFront<Image>(
  parts: readonly PromptPart<Image>[],
  { images = [], imageRules }: PromptOptions<Image>,
): { parts: readonly PromptPart<Image>[]; images: readonly Image[] } {
  const texts = parts.flatMap((part) =>
    typeof part === "string" ? [part] : "text" in part ? [part.text] : [],
  );
  const places = imageRules?.leads && texts.some((text) => text.includes(imageRules.placeholder));
  if (!imageRules?.leads || places) return { parts, images };
  return { parts: [...images.map((image) => ({ image })), ...parts], images: [] };
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

/** What goes around a prompt's text. */
interface Frame {
  readonly front: string;
  /** Behind the last image; in front, if there is none. */
  readonly behindImages: string;
  readonly end: string;
  /** In front of each piece of text that it does not stand before anyhow. */
  readonly beforeText?: string;
  /** Behind the images in front of all text, unless it is in the text. */
  readonly behindLeading?: string;
}

function frameOf(
  tokenizer: Tokenizer,
  rules: Pick<ImageRules, "writesBos" | "bosBehindImages" | "bosBehindLeadingImages" | "apart"> | undefined,
  { bos, hasImages }: { bos: true | "auto"; hasImages: boolean },
): Frame | undefined {
  if (rules?.apart) {
    const none = { front: "", behindImages: "", end: "" };
    if (hasImages) return { ...none, end: rules.apart.end, beforeText: bosToken(tokenizer) };
    if (rules.apart.framesText) return undefined;
    return bos === "auto" ? none : { ...none, front: bosToken(tokenizer) };
  }
  if (rules?.writesBos) return { front: bosToken(tokenizer), behindImages: "", end: "" };
  if (rules?.bosBehindLeadingImages) {
    return { front: "", behindImages: "", end: "", behindLeading: bosToken(tokenizer) };
  }
  if (!rules?.bosBehindImages) return undefined;
  return {
    front: "",
    behindImages: tokenizer.tokenOf(requireBos(tokenizer)),
    end: rules.bosBehindImages.end,
  };
}

/** A single text with placeholders for all of the images that go with it. */
function placed<Image>(text: string, { images = [], imageRules }: PromptOptions<Image>): string {
  const missing = imageRules ? images.length - (text.split(imageRules.placeholder).length - 1) : 0;
  return missing > 0 ? (imageRules?.placed?.(text, missing) ?? text) : text;
}

interface Named extends Span {
  readonly name: string;
}

interface Joined<Image> {
  /** The text with one placeholder for each image. */
  readonly text: string;
  /** The text to tokenise, with images expanded, and framed. */
  readonly full: string;
  /** Named pieces, in UTF-16 units of `full`. */
  readonly named: readonly Named[];
  readonly images: readonly Image[];
  readonly imageTexts: readonly ImageText[];
  /** How much of `full` stands in front of the special tokens. */
  readonly lead: number;
}

function join<Image>(
  parts: readonly PromptPart<Image>[],
  options: PromptOptions<Image>,
  frame: Frame | undefined,
): Joined<Image> {
  const { imageRules } = options;
  const strips = imageRules?.strips ?? false;
  const given = imagesInOrder(parts, options);
  const images = given.map((image) => imageRules?.among?.(image, given.length) ?? image);
  let named: Named[] = [];
  const imageTexts: ImageText[] = [];
  let text = "";
  let lead = 0;
  let full = (frame?.front ?? "") + (images.length === 0 ? (frame?.behindImages ?? "") : "");
  let leading = frame?.behindLeading ?? "";
  if (images.length === 0 || parts.some((part) => textOf(part).includes(leading))) leading = "";
  const endLeading = () => {
    full += leading;
    leading = "";
  };
  let start = full.length; // of the text since the last image
  const endText = () => {
    if (!strips) return;
    full = full.slice(0, start) + full.slice(start).replace(/ +$/, "");
    const within = (position: number) => Math.min(position, full.length);
    named = named.map((span) => ({ ...span, start: within(span.start), end: within(span.end) }));
  };
  const beginText = () => {
    endLeading();
    if (!frame?.beforeText || full.length > start || full.endsWith(frame.beforeText)) return;
    full += frame.beforeText;
    start = full.length;
  };
  const appendImage = (rules: ImageRules<Image>) => {
    endText();
    const index = imageTexts.length;
    const follows = index > 0 && full.length === start;
    const imageText = rules.expand(images[index]!, index, images.length, follows);
    imageTexts.push(imageText);
    text += rules.placeholder;
    if (imageRules?.leads && full.length === lead) lead += imageText.text.length;
    if (imageText.label) beginText();
    full += (imageText.label ?? "") + imageText.text;
    if (frame && index === images.length - 1) full += frame.behindImages;
    start = full.length;
  };
  const appendText = (piece: string) => {
    for (const [i, plain] of (imageRules ? piece.split(imageRules.placeholder) : [piece]).entries()) {
      if (i > 0) appendImage(imageRules!);
      if (plain !== "") beginText();
      text += plain;
      full += strips && full.length === start ? plain.replace(/^ +/, "") : plain;
    }
  };
  for (const part of parts) {
    if (typeof part === "string") appendText(part);
    else if ("image" in part) appendImage(imageRules!);
    else {
      if (!imageRules || !part.text.startsWith(imageRules.placeholder)) beginText();
      const first = full.length;
      appendText(part.text);
      if (part.text === "")
        throw new PromptError(`Expected some text for the span "${part.name}", found none.`);
      named.push({ name: part.name, start: first, end: full.length });
    }
  }
  endLeading();
  endText();
  const gone = named.find((span) => span.start === span.end);
  if (gone) {
    throw new PromptError(
      `Expected tokens for the span "${gone.name}", found blanks at the end of the text, which this model's prompts lose.`,
    );
  }
  full += frame?.end ?? "";
  for (const rewrite of imageRules?.rewrites ?? []) ({ full, named } = rewritten(full, named, rewrite));
  return { text, full, named, images, imageTexts, lead };
}

/** A text with replacements, and where its pieces are afterwards. */
function rewritten(full: string, named: readonly Named[], { pattern, by }: Rewrite) {
  const found = [...full.matchAll(pattern)].map((match) => ({ start: match.index, length: match[0].length }));
  const moved = (position: number) => {
    let shift = 0;
    for (const { start, length } of found) {
      if (position <= start) break;
      // What lay within a match lies within what replaced it.
      if (position < start + length) return start + shift + Math.min(position - start, by.length);
      shift += by.length - length;
    }
    return position + shift;
  };
  return {
    full: full.replaceAll(pattern, () => by),
    named: named.map(({ name, start, end }) => ({ name, start: moved(start), end: moved(end) })),
  };
}

function textOf(part: PromptPart): string {
  if (typeof part === "string") return part;
  return "text" in part ? part.text : "";
}

function bosToken(tokenizer: Tokenizer): string {
  const token = tokenizer.specialTokens["bos_token"];
  if (token !== undefined) return token;
  throw new PromptError("Expected tokenizer_config.json to name a bos_token, found none.");
}

/** The images in the order of their placeholders: those of image parts, and those of the list for the text's. */
function imagesInOrder<Image>(
  parts: readonly PromptPart<Image>[],
  { images: list = [], imageRules }: PromptOptions<Image>,
): Image[] {
  const images: Image[] = [];
  let inText = 0;
  for (const part of parts) {
    if (typeof part === "object" && "image" in part) images.push(part.image);
    else if (imageRules) {
      const count = (typeof part === "string" ? part : part.text).split(imageRules.placeholder).length - 1;
      images.push(...list.slice(inText, inText + count));
      inText += count;
    }
  }
  if (!imageRules) {
    const count = images.length + list.length;
    if (count > 0) throw new PromptError(`This model takes no images, found ${count} in the prompt.`);
  } else if (inText !== list.length) {
    throw new PromptError(
      `Expected one image for each ${imageRules.placeholder} in the text, found ${inText} placeholder(s) and ${list.length} image(s).`,
    );
  }
  return images;
}

function findPiece(name: string, piece: string, text: string): Named {
  const start = text.indexOf(piece);
  const again = text.indexOf(piece, start + 1);
  if (piece === "" || start < 0 || again >= 0) {
    const found = piece === "" ? "an empty one" : start < 0 ? "none" : "several";
    throw new PromptError(
      `Expected the text to contain ${JSON.stringify(piece)} (span "${name}") once, found ${found}.`,
    );
  }
  return { name, start, end: start + piece.length };
}

function specialsInFront(tokenizer: Tokenizer, bos: true | "auto"): readonly number[] {
  const { prefix } = tokenizer;
  if (bos === "auto") return prefix;
  const bosId = requireBos(tokenizer);
  return prefix[0] === bosId ? prefix : [bosId, ...prefix];
}

function requireBos({ bosId }: Tokenizer): number {
  if (bosId !== undefined) return bosId;
  throw new PromptError("Expected tokenizer_config.json to name a bos_token, found none.");
}

/** Where the placeholders of each image went: from its first to its last, whatever the family puts between. */
function imageSpans(
  tokenizer: Tokenizer,
  body: readonly number[],
  imageTexts: readonly ImageText[],
  rules: Pick<ImageRules, "placeholder" | "featureToken"> | undefined,
): (Named & ImageSpan)[] {
  if (!rules || imageTexts.length === 0) return [];
  const { placeholder, featureToken = placeholder } = rules;
  const id = tokenizer.idOf(featureToken);
  const positions = [...body.keys()].filter((position) => body[position] === id);
  const counts = imageTexts.map(({ text }) => text.split(featureToken).length - 1);
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (positions.length !== total || counts.includes(0)) {
    throw new PromptError(
      `Expected ${counts.join(" + ")} tokens ${featureToken} for ${counts.length} image(s), at least one each, found ${positions.length}.`,
    );
  }
  return imageTexts.map(({ grid, tiles, parts }, i) => {
    const own = positions.splice(0, counts[i]!);
    if (parts) return { name: "image", ...gridSpan(own), parts: partSpans(own, parts) };
    if (!tiles) return { name: "image", ...gridSpan(own, grid) };
    const { each } = tiles;
    const size = each.rows * each.columns;
    const spans = Array.from({ length: own.length / size }, (_, tile) =>
      gridSpan(own.slice(tile * size, (tile + 1) * size), each),
    );
    return { name: "image", ...gridSpan(own), tiles: { grid: tiles.grid, spans } };
  });
}

/** The whole image, and the map of its tiles, each row of which has a further position behind it. */
function partSpans(positions: readonly number[], { whole, map }: NonNullable<ImageText["parts"]>) {
  const size = whole.rows * whole.columns;
  const ofMap = positions
    .slice(size)
    .filter((_, i) => map !== undefined && i % (map.columns + 1) < map.columns);
  return {
    whole: gridSpan(positions.slice(0, size), whole),
    ...(map && { map: gridSpan(ofMap, map) }),
  };
}

/** The same span behind `count` further positions. */
function movedBy(count: number, { start, end, tiles, parts, ...rest }: ImageSpan): ImageSpan {
  return {
    start: start + count,
    end: end + count,
    ...rest,
    ...(tiles && { tiles: { ...tiles, spans: tiles.spans.map((tile) => movedBy(count, tile)) } }),
    ...(parts && {
      parts: {
        whole: movedBy(count, parts.whole),
        ...(parts.map && { map: movedBy(count, parts.map) }),
      },
    }),
  };
}

/** The span of these positions, which are a grid if one is given. */
function gridSpan(positions: readonly number[], grid?: PatchGrid): ImageSpan {
  const span = { start: positions[0]!, end: positions.at(-1)! + 1 };
  if (!grid) return span;
  const { rows, columns } = grid;
  const stride = rows > 1 ? positions[columns]! - positions[0]! : columns;
  const fits = (position: number, i: number) =>
    position === span.start + Math.floor(i / columns) * stride + (i % columns);
  if (rows * columns !== positions.length || !positions.every(fits)) {
    throw new PromptError(
      `Expected a grid of ${positions.length} patches, found ${rows} by ${columns}, or others between those of a row.`,
    );
  }
  return { ...span, grid, ...(stride !== columns && { rowStride: stride }) };
}

/** The tokens that cover each named piece. */
function textSpans(
  tokenizer: Tokenizer,
  body: readonly number[],
  text: string,
  named: readonly Named[],
): Named[] {
  if (named.length === 0) return [];
  const tokens = body.map((id) => tokenizer.tokenOf(id));
  const ranges = tokenByteRanges(text, tokens, tokenizer.spell, tokenizer.unknownCharacter);
  const byteLength = (length: number) => new TextEncoder().encode(text.slice(0, length)).length;
  return named.map((piece) => {
    const from = byteLength(piece.start);
    const to = byteLength(piece.end);
    const inside = [...ranges.keys()].filter((i) => ranges[i]!.start < to && ranges[i]!.end > from);
    if (inside.length === 0) {
      throw new PromptError(
        `Expected tokens for the span "${piece.name}", found none: the tokenizer drops that text.`,
      );
    }
    return { name: piece.name, start: inside[0]!, end: inside.at(-1)! + 1 };
  });
}

/** `name` if it is free, otherwise `name2`, `name3`, … */
function freeName(name: string, taken: object): string {
  let free = name;
  for (let n = 2; Object.hasOwn(taken, free); n++) free = `${name}${n}`;
  return free;
}
