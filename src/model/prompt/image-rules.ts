import type { ApartRules } from "./apart.ts";
import type { PatchGrid } from "./prompt.ts";

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
