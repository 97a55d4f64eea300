import { commonName, EMBEDDING, HEAD, headBeside } from "../entries/module-names.ts";
import { sameTensor } from "../entries/same-tensor.ts";
import { renamed, type TensorEntry } from "../entries/tensor-entry.ts";
import { isObject, type JsonObject } from "../json/config-reader.ts";
import type { AdapterBase } from "./adapter.ts";
import type { AdapterConfig } from "./adapter-config.ts";
import { inPlaceOf } from "./adapter-entry.ts";

/** An adapter's tensors for the two matrices that a model may tie, if it has any. */
export interface AdapterEmbeddings {
  readonly embedding?: TensorEntry;
  readonly head?: TensorEntry;
  /** Whether these two are modules of `modules_to_save`. */
  readonly saves: (entry: TensorEntry) => boolean;
  /** Whether the output matrix has a LoRA. */
  readonly hasHeadUpdate: boolean;
}

/**
 * The base's tensors with the embedding and the output matrix that an adapter leaves. Where the base ties the two, they are
 * one tensor until the adapter trains one of them as a whole or has a LoRA on the output matrix. As in PEFT,
 *
 * - a module of `modules_to_save` gets a matrix of its own, and the other keeps the base's;
 * - with `ensure_weight_tying` both get that matrix;
 * - a tensor that the file has without saying so (PEFT saves the embeddings when the vocabulary was resized, and the
 *   `base_layer` of a LoRA on the output matrix) is written into the base's, so that both change.
 */
export async function embeddingsWith(
  parts: AdapterBase,
  { tiesWeights, tiesSaved }: AdapterConfig,
  { embedding: given, head: givenHead, saves, hasHeadUpdate }: AdapterEmbeddings,
  problems: string[],
): Promise<ReadonlyMap<string, TensorEntry>> {
  const nameOf = (common: string) => [...parts.entries.keys()].find((key) => commonName(key) === common);
  const name = nameOf(EMBEDDING);
  if (name === undefined || !(given || givenHead || hasHeadUpdate)) return parts.entries;
  const headName = nameOf(HEAD) ?? headBeside(name);
  const base = parts.entries.get(name)!;
  const own = given && inPlaceOf(base.dtype, given);
  const ownHead = givenHead && inPlaceOf(base.dtype, givenHead);
  const baseHead = parts.entries.get(headName);
  const entries = new Map(parts.entries);
  if (parts.updates.has(headName) || !(await isTied(parts.config, base, baseHead))) {
    if (own) entries.set(name, renamed(own, name));
    if (ownHead && baseHead) entries.set(headName, renamed(ownHead, headName));
    return entries;
  }

  const [savesOwn, savesHead] = [own && saves(own), ownHead && saves(ownHead)];
  let [embedding, head] = [base, base];
  if (tiesSaved && (savesOwn || savesHead)) {
    if (!own || !ownHead) {
      const lacking = own ? "lm_head" : "embed_tokens";
      problems.push(`${lacking}.weight is missing, although ensure_weight_tying asks for both`);
    }
    embedding = head = ownHead ?? base; // PEFT reads it last, into the one that both share
  } else {
    const shared = (!savesHead && ownHead) || (!savesOwn && own) || base;
    [embedding, head] = [savesOwn ? own! : shared, savesHead ? ownHead! : shared];
  }
  if (tiesWeights && hasHeadUpdate) {
    problems.push("a LoRA of tied matrices (ensure_weight_tying) is not supported");
  }
  entries.set(name, renamed(embedding, name));
  if (head !== embedding || hasHeadUpdate) entries.set(headName, renamed(head, headName));
  else entries.delete(headName);
  return entries;
}

/** Families that tie unless their config.json says otherwise. */
const TIED_BY_DEFAULT: readonly unknown[] = ["gpt2", "gemma2"];

/** Whether a config says that the output matrix is the embedding. */
export function declaresTied(config: JsonObject | undefined): boolean {
  const text = isObject(config?.["text_config"]) ? config["text_config"] : undefined;
  return [config, text].some(
    (json) => (json?.["tie_word_embeddings"] ?? TIED_BY_DEFAULT.includes(json?.["model_type"])) === true,
  );
}

/** transformers ties what the config ties, unless the file has an output matrix that differs. */
async function isTied(
  config: JsonObject | undefined,
  embedding: TensorEntry,
  head: TensorEntry | undefined,
): Promise<boolean> {
  return declaresTied(config) && (!head || (await sameTensor(embedding, head)));
}
