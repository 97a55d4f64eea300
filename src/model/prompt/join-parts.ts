import { PromptError } from "../../errors.ts";
import type { ImageRules, ImageText, PromptPart, Rewrite } from "./image-rules.ts";
import type { Frame } from "./prompt-frame.ts";
import type { Named } from "./prompt-spans.ts";

/** The images of a prompt: those for the placeholders of its text, and the rules by which its model writes them. */
interface GivenImages<Image> {
  readonly images?: readonly Image[];
  readonly imageRules?: ImageRules<Image>;
}

/** Parts and list of images; those of a text without placeholders are among the parts where they go in front. */
export function withImagesInFront<Image>(
  parts: readonly PromptPart<Image>[],
  { images = [], imageRules }: GivenImages<Image>,
): { parts: readonly PromptPart<Image>[]; images: readonly Image[] } {
  const texts = parts.flatMap((part) =>
    typeof part === "string" ? [part] : "text" in part ? [part.text] : [],
  );
  const places = imageRules?.leads && texts.some((text) => text.includes(imageRules.placeholder));
  if (!imageRules?.leads || places) return { parts, images };
  return { parts: [...images.map((image) => ({ image })), ...parts], images: [] };
}

/** A single text with placeholders for all of the images that go with it. */
export function placed<Image>(text: string, { images = [], imageRules }: GivenImages<Image>): string {
  const missing = imageRules ? images.length - (text.split(imageRules.placeholder).length - 1) : 0;
  return missing > 0 ? (imageRules?.placed?.(text, missing) ?? text) : text;
}

export interface Joined<Image> {
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

/** The pieces as one text, images expanded and the frame around it. */
export function joinParts<Image>(
  parts: readonly PromptPart<Image>[],
  options: GivenImages<Image>,
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

/** The images in the order of their placeholders: those of image parts, and those of the list for the text's. */
function imagesInOrder<Image>(
  parts: readonly PromptPart<Image>[],
  { images: list = [], imageRules }: GivenImages<Image>,
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
