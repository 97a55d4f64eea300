/** Prefixes of the four spellings of a LLaVA, and of a bare language model, with what stands for them all. */
const SPELLINGS: readonly (readonly [prefix: RegExp, common: string])[] = [
  [/^(language_model\.model\.|model\.language_model\.)/, "text."],
  [/^(language_model\.)?lm_head\./, "head."],
  [/^(model\.)?vision_tower\.(vision_model\.)?/, "vision."],
  [/^(model\.)?multi_modal_projector\./, "projector."],
  [/^model\./, "text."],
];

/**
 * One name for the same tensor under all names that it has: published, as saved by transformers 4.52 on, as saved by 5, and
 * for the language model inside of a LLaVA also its name in that language model alone.
 */
export function commonName(tensor: string): string {
  for (const [prefix, common] of SPELLINGS) {
    if (prefix.test(tensor)) return tensor.replace(prefix, common);
  }
  return tensor;
}
