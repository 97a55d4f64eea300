import type { ImageRules } from "../../../prompt/image-rules.ts";
import type { Prompt } from "../../../prompt/prompt.ts";
import type { PromptImage } from "../../../prompt/prompt-image.ts";
import type { AttentionRule } from "../../../walk/masks.ts";

/** Stands around every image. */
export const FAKE_TOKEN = "<fake_token_around_image>";
export const IMAGE_TOKEN = "<image>";

/** How Idefics prompts hold images: one token for each, with a fake one on either side that neighbours share. */
export const ideficsImageRules: ImageRules<PromptImage> = {
  placeholder: IMAGE_TOKEN,
  strips: true,
  writesBos: true,
  expand: (_image, _index, _count, follows) => ({
    text: `${follows ? "" : FAKE_TOKEN}${IMAGE_TOKEN}${FAKE_TOKEN}`,
  }),
};

/**
 * The mask of Idefics' cross-attention: a token sees the latest image up to its own position, and none before the first one
 * nor from behind an end token up to the next. New tokens see what the last of the prompt sees.
 */
export function latestImage(imageTokenId: number, eosId: number | undefined, latents: number): AttentionRule {
  const seen = new WeakMap<Prompt, readonly number[]>();
  return (position, { prompt }) => {
    const images = seen.get(prompt!) ?? imagesSeen(prompt!, imageTokenId, eosId);
    seen.set(prompt!, images);
    const image = images[Math.min(position, prompt!.last)]!;
    return image < 0 ? { start: 0, end: 0 } : { start: image * latents, end: (image + 1) * latents };
  };
}

/** By position, the number of the image that a token sees; -1 for none. */
function imagesSeen({ ids }: Prompt, imageTokenId: number, eosId: number | undefined): number[] {
  let latest = -1;
  let ended = false;
  return ids.map((id) => {
    if (id === imageTokenId) {
      latest++;
      ended = false;
    }
    const own = ended ? -1 : latest;
    if (id === eosId) ended = true;
    return own;
  });
}
