import { PromptError } from "../../errors.ts";
import type { ImageRules } from "./image-rules.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** What goes around a prompt's text. */
export interface Frame {
  readonly front: string;
  /** Behind the last image; in front, if there is none. */
  readonly behindImages: string;
  readonly end: string;
  /** In front of each piece of text that it does not stand before anyhow. */
  readonly beforeText?: string;
  /** Behind the images in front of all text, unless it is in the text. */
  readonly behindLeading?: string;
}

export function frameOf(
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

export function specialsInFront(tokenizer: Tokenizer, bos: true | "auto"): readonly number[] {
  const { prefix } = tokenizer;
  if (bos === "auto") return prefix;
  const bosId = requireBos(tokenizer);
  return prefix[0] === bosId ? prefix : [bosId, ...prefix];
}

function bosToken(tokenizer: Tokenizer): string {
  const token = tokenizer.specialTokens["bos_token"];
  if (token !== undefined) return token;
  throw new PromptError("Expected tokenizer_config.json to name a bos_token, found none.");
}

function requireBos({ bosId }: Tokenizer): number {
  if (bosId !== undefined) return bosId;
  throw new PromptError("Expected tokenizer_config.json to name a bos_token, found none.");
}
