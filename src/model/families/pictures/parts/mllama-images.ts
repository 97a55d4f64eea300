import type { ImageLayout } from "../../../checkpoint/config/vision-setup.ts";
import type { ImageRules } from "../../../prompt/image-rules.ts";
import type { Prompt } from "../../../prompt/prompt.ts";
import { type PromptImage, picturesOf } from "../../../prompt/prompt-image.ts";
import type { KeyRange } from "../../../walk/masks.ts";

/** How prompts of Llama 3.2 Vision hold images: a token each, and BOS behind those that stand in front of all text. */
export function mllamaImageRules(placeholder: string): ImageRules<PromptImage> {
  return { placeholder, bosBehindLeadingImages: true, expand: () => ({ text: placeholder }) };
}

/** Where the rows of pictures lie among those that cross-attention reads: first those of the tiles that they have, then the others. */
export interface PictureRows {
  readonly own: KeyRange;
  readonly missing: KeyRange;
}

export function pictureRows(layouts: readonly ImageLayout[]): PictureRows[] {
  const own = layouts.map(({ ownLatents = 0 }) => ownLatents);
  const missing = layouts.map(({ latents = 0 }, i) => latents - own[i]!);
  let start = 0;
  const ranges = (counts: readonly number[]) =>
    counts.map((count) => {
      start += count;
      return { start: start - count, end: start };
    });
  const ownRanges = ranges(own);
  const missingRanges = ranges(missing);
  return layouts.map((_, i) => ({ own: ownRanges[i]!, missing: missingRanges[i]! }));
}

/** What the tokens of a prompt see. */
export interface Sight {
  /** Which rows a position reads: those of the pictures that it sees, or all, padding too, where it sees none. */
  rule(position: number, prompt: Prompt): KeyRange;
  /** Whether it sees any. */
  sees(position: number, prompt: Prompt): boolean;
}

/**
 * A picture is seen from its token up to the next picture's, and by those that follow its neighbours where several stand side by
 * side. A token that sees none reads everything, which is how transformers computes it. New tokens see what the last of the
 * prompt sees.
 */
export function sightOf(imageTokenId: number, layout: (picture: PromptImage) => ImageLayout): Sight {
  const known = new WeakMap<Prompt, readonly (KeyRange | undefined)[]>();
  const seenBy = (position: number, prompt: Prompt) => {
    const found = known.get(prompt) ?? rangesOf(prompt, imageTokenId, layout);
    known.set(prompt, found);
    return found[Math.min(position, prompt.last)];
  };
  return {
    rule(position, prompt) {
      const end = picturesOf(prompt).reduce((sum, picture) => sum + (layout(picture).latents ?? 0), 0);
      return seenBy(position, prompt) ?? { start: 0, end };
    },
    sees: (position, prompt) => seenBy(position, prompt) !== undefined,
  };
}

/** By position, the rows of the pictures that a token sees; undefined for none. */
function rangesOf(
  prompt: Prompt,
  imageTokenId: number,
  layout: (picture: PromptImage) => ImageLayout,
): (KeyRange | undefined)[] {
  const { ids } = prompt;
  const layouts = picturesOf(prompt).map(layout);
  const rows = pictureRows(layouts).filter((_, i) => layouts[i]!.tokens > 0);
  const starts = [...ids.keys()].filter((position) => ids[position] === imageTokenId);
  const ends = starts.map((_, i) => starts[i + 1] ?? ids.length);
  for (let i = ends.length - 2; i >= 0; i--) if (starts[i] === ends[i]! - 1) ends[i] = ends[i + 1]!;
  return ids.map((_, position) => {
    const seen = rows.filter((_, i) => starts[i]! <= position && position < ends[i]!);
    return seen.length === 0 ? undefined : { start: seen[0]!.own.start, end: seen.at(-1)!.own.end };
  });
}
