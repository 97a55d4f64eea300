/** Prefixes that tensors have, by model and by who saved it, with what stands for them all. */
const SPELLINGS: readonly (readonly [prefix: RegExp, common: string])[] = [
  [/^(language_model\.model\.|model\.language_model\.|model\.text_model\.)/, "text."],
  [/^((language_model\.)?lm_head|embed_out)\./, "head."],
  [/^(model\.)?vision_tower\.(vision_model\.)?/, "vision."],
  [/^(model\.)?multi_modal_projector\./, "projector."],
  [/^(model\.)?vision_embed_tokens\./, "patches."],
  [/^(model\.)?visual\./, "visual."],
  [/^(model\.)?vision_model\./, "vision_model."],
  [/^(model\.)?image_newline$/, "image_newline"],
  // GPT-2, whose first files have no prefix, and GPT-NeoX.
  [/^((transformer\.)?wte|gpt_neox\.embed_in)\./, "text.embed_tokens."],
  [/^(transformer\.|gpt_neox\.|(?=(h\.\d+|wpe|ln_f)\.))/, "text."],
  // Idefics 1, 2 and 3, in which these have one name everywhere.
  [/^model\.(?=(vision_model|connector|perceiver_resampler)\.)/, "model."],
  [/^model\./, "text."],
];

/** The common names of the matrices that a model may tie. */
export const EMBEDDING = "text.embed_tokens.weight";
export const HEAD = "head.weight";

/**
 * One name for the same tensor under all names that it has: published, as saved by transformers 4.52 on, as saved by 5, and
 * for the language model inside of a LLaVA also its name in that language model alone. Embeddings and output matrices have one
 * name in all families.
 */
export function commonName(tensor: string): string {
  for (const [prefix, common] of SPELLINGS) {
    if (prefix.test(tensor)) return tensor.replace(prefix, common);
  }
  return tensor;
}

/** Whether it holds the vectors of tokens, in any spelling: OPT's and T5's have no common name. */
export function isEmbedding(tensor: string): boolean {
  return commonName(tensor) === EMBEDDING || /(^|\.)(embed_tokens|shared)\.weight$/.test(tensor);
}

/** What stands before the names of a model's parts in one spelling; a bare language model has no vision. */
interface Spelling {
  readonly text: string;
  /** Default `embed_tokens.` within the text. */
  readonly embedding?: string;
  readonly head: string;
  readonly vision?: string;
  readonly projector?: string;
  /** Fuyu's projection of patches. */
  readonly patches?: string;
  /** Qwen2-VL's tower. */
  readonly visual?: string;
  /** The tower of Llama 3.2 Vision, of Idefics and of a dual encoder. */
  readonly visionModel: string;
}

const BARE: Spelling = {
  text: "model.",
  head: "lm_head.",
  visual: "visual.",
  visionModel: "model.vision_model.",
};
const GPT2: Spelling = {
  text: "transformer.",
  embedding: "transformer.wte.",
  head: "lm_head.",
  visionModel: "vision_model.",
};
const GPT_NEOX: Spelling = {
  text: "gpt_neox.",
  embedding: "gpt_neox.embed_in.",
  head: "embed_out.",
  visionModel: "vision_model.",
};
const IDEFICS: Spelling = {
  text: "model.text_model.",
  head: "lm_head.",
  visionModel: "model.vision_model.",
};
const PUBLISHED: Spelling = {
  text: "language_model.model.",
  head: "language_model.lm_head.",
  vision: "vision_tower.vision_model.",
  projector: "multi_modal_projector.",
  patches: "vision_embed_tokens.",
  visionModel: "vision_model.",
};
const DUAL: Spelling = { ...BARE, visionModel: "vision_model." };
const SAVED_BY_5: Spelling = {
  text: "model.language_model.",
  head: "lm_head.",
  vision: "model.vision_tower.",
  projector: "model.multi_modal_projector.",
  patches: "model.vision_embed_tokens.",
  visual: "model.visual.",
  visionModel: "model.vision_model.",
};

/**
 * Gives tensors, by their {@link commonName}, the names that they have in the spelling of `names`; undefined for one that
 * such a model does not have.
 */
export function spellingOf(names: Iterable<string>): (common: string) => string | undefined {
  const all = [...names];
  const has = (pattern: RegExp) => all.some((name) => pattern.test(name));
  const spelling = [
    has(/^model\.(language_model|vision_tower|multi_modal_projector|visual)\./) && SAVED_BY_5,
    has(/^(language_model|vision_tower|multi_modal_projector)\./) && PUBLISHED,
    has(/^model\.text_model\./) && IDEFICS,
    has(/^vision_model\./) && DUAL,
    has(/^transformer\./) && GPT2,
    has(/^gpt_neox\./) && GPT_NEOX,
  ].find((found) => found !== false);
  return (common) => spelt(common, spelling || BARE);
}

function spelt(common: string, spelling: Spelling): string | undefined {
  const [, part, rest] =
    /^(text|head|vision|projector|patches|visual|vision_model)\.(.*)$/.exec(common) ?? [];
  if (part === undefined) return common;
  if (common === EMBEDDING && spelling.embedding) return `${spelling.embedding}weight`;
  const key = part === "vision_model" ? "visionModel" : part;
  const prefix =
    spelling[key as "text" | "head" | "vision" | "projector" | "patches" | "visual" | "visionModel"];
  return prefix === undefined ? undefined : prefix + rest;
}

/** How transformers 5 names the modules of a family, by its `model_type`; those of T5 and Idefics are as files have them. */
const MODULES: Readonly<Record<string, Spelling>> = {
  ...Object.fromEntries(
    [
      "llama",
      "mistral",
      "qwen2",
      "qwen3",
      "gemma",
      "gemma2",
      "gemma3_text",
      "olmo2",
      "opt",
      "phi3",
      "persimmon",
      "t5",
      "idefics",
    ].map((type) => [type, BARE]),
  ),
  gpt2: GPT2,
  gpt_neox: { ...GPT_NEOX, head: "lm_head." },
  ...Object.fromEntries(
    [
      "llava",
      "llava_next",
      "paligemma",
      "gemma3",
      "internvl",
      "llava_onevision",
      "qwen2_vl",
      "qwen2_5_vl",
      "qwen3_vl",
      "fuyu",
      "mllama",
    ].map((type) => [type, SAVED_BY_5]),
  ),
  ...Object.fromEntries(["idefics2", "idefics3", "smolvlm"].map((type) => [type, IDEFICS])),
  ...Object.fromEntries(["blip-2", "instructblip"].map((type) => [type, PUBLISHED])),
};

/**
 * The path of a module within transformers' model of a family, by its name in a checkpoint (`h.0.attn.c_attn`); undefined where
 * that is not known.
 */
export function modulePath(family: string, module: string): string | undefined {
  const spelling = Object.hasOwn(MODULES, family) ? MODULES[family] : undefined;
  return spelling && spelt(commonName(`${module}.`), spelling)?.slice(0, -1);
}

/** The tensor of the output matrix of a model whose embedding is this tensor. */
export function headBeside(embedding: string): string {
  return spellingOf([embedding])(HEAD)!;
}

/**
 * The name of a LLaVA's tensor, by any name or by {@link commonName}, in published checkpoints, which every version of
 * transformers knows.
 */
export function publishedName(tensor: string): string {
  return spelt(commonName(tensor), PUBLISHED)!;
}
