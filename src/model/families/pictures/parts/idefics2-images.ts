import type { VisionSetup } from "../../../checkpoint/config/vision-setup.ts";
import type { ImageRules } from "../../../prompt/image-rules.ts";
import type { PromptImage } from "../../../prompt/prompt-image.ts";
import { FAKE_TOKEN } from "./idefics-images.ts";

/** Behind a fake token what is neither blank, to Python, nor `<`. */
const GLUED = new RegExp(
  `${FAKE_TOKEN}(?=[^<\\t-\\r\\x1c- \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000])`,
  "g",
);

/**
 * How Idefics 2 prompts hold images: a token for each latent, with a fake one on either side that neighbours share; the same for
 * each tile. A blank parts the fake token from a word behind it.
 */
export function idefics2ImageRules({ imageToken, layout }: VisionSetup): ImageRules<PromptImage> {
  return {
    placeholder: imageToken,
    expand(image) {
      const { tokens, tiles = 1 } = layout(image);
      return { text: `${FAKE_TOKEN}${imageToken.repeat(tokens / tiles)}${FAKE_TOKEN}`.repeat(tiles) };
    },
    rewrites: [
      { pattern: new RegExp(`${FAKE_TOKEN}${FAKE_TOKEN}`, "g"), by: FAKE_TOKEN },
      { pattern: GLUED, by: `${FAKE_TOKEN} ` },
    ],
  };
}
