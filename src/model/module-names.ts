/** Prefixes of the four spellings of a LLaVA, and of a bare language model, with what stands for them all. */
const SPELLINGS: readonly (readonly [prefix: RegExp, common: string])[] = [
  [/^(language_model\.model\.|model\.language_model\.)/, "text."],
  [/^(language_model\.)?lm_head\./, "head."],
  [/^(model\.)?vision_tower\.(vision_model\.)?/, "vision."],
  [/^(model\.)?multi_modal_projector\./, "projector."],
  [/^model\./, "text."],
];

const PUBLISHED: readonly (readonly [common: string, published: string])[] = [
  ["text.", "language_model.model."],
  ["head.", "language_model.lm_head."],
  ["vision.", "vision_tower.vision_model."],
  ["projector.", "multi_modal_projector."],
];

/** The name of a LLaVA's tensor, by any name or by {@link commonName}, in published checkpoints, which every version of transformers knows. */
export function publishedName(tensor: string): string {
  const common = commonName(tensor);
  const [prefix, published] = PUBLISHED.find(([start]) => common.startsWith(start)) ?? [];
  return prefix === undefined ? tensor : published + common.slice(prefix.length);
}

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
