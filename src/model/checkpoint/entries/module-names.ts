/** Prefixes of the four spellings of a LLaVA, and of a bare language model, with what stands for them all. */
const SPELLINGS: readonly (readonly [prefix: RegExp, common: string])[] = [
  [/^(language_model\.model\.|model\.language_model\.)/, "text."],
  [/^(language_model\.)?lm_head\./, "head."],
  [/^(model\.)?vision_tower\.(vision_model\.)?/, "vision."],
  [/^(model\.)?multi_modal_projector\./, "projector."],
  [/^model\./, "text."],
];

/** The common names of the matrices that a model may tie. */
export const EMBEDDING = "text.embed_tokens.weight";
export const HEAD = "head.weight";

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

/** What stands before the names of a model's parts in one spelling; a bare language model has no vision. */
type Spelling = Readonly<Record<"text" | "head" | "vision" | "projector", string | undefined>>;

const BARE: Spelling = { text: "model.", head: "lm_head.", vision: undefined, projector: undefined };
const PUBLISHED: Spelling = {
  text: "language_model.model.",
  head: "language_model.lm_head.",
  vision: "vision_tower.vision_model.",
  projector: "multi_modal_projector.",
};
const SAVED_BY_5: Spelling = {
  text: "model.language_model.",
  head: "lm_head.",
  vision: "model.vision_tower.",
  projector: "model.multi_modal_projector.",
};

/**
 * Gives tensors, by their {@link commonName}, the names that they have in the spelling of `names`; undefined for one that
 * such a model does not have.
 */
export function spellingOf(names: Iterable<string>): (common: string) => string | undefined {
  const all = [...names];
  const isSaved = all.some((name) =>
    /^model\.(language_model|vision_tower|multi_modal_projector)\./.test(name),
  );
  const isPublished = all.some((name) => /^(language_model|vision_tower|multi_modal_projector)\./.test(name));
  const spelling = isSaved ? SAVED_BY_5 : isPublished ? PUBLISHED : BARE;
  return (common) => spelt(common, spelling);
}

function spelt(common: string, spelling: Spelling): string | undefined {
  const [, part, rest] = /^(text|head|vision|projector)\.(.*)$/.exec(common) ?? [];
  if (part === undefined) return common;
  const prefix = spelling[part as keyof Spelling];
  return prefix === undefined ? undefined : prefix + rest;
}

/**
 * The name of a LLaVA's tensor, by any name or by {@link commonName}, in published checkpoints, which every version of
 * transformers knows.
 */
export function publishedName(tensor: string): string {
  return spelt(commonName(tensor), PUBLISHED)!;
}
