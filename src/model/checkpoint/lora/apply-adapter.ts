import { CheckpointError } from "../../../errors.ts";
import { nearest } from "../../../nearest.ts";
import { isFloat } from "../../../tensor/dtype.ts";
import { sameShape, showShape } from "../../../tensor/shape.ts";
import { commonName, EMBEDDING, HEAD, spellingOf } from "../entries/module-names.ts";
import { renamed, type TensorEntry } from "../entries/tensor-entry.ts";
import {
  ADAPTER_CONFIG,
  ADAPTER_PREFIX,
  ADAPTER_WEIGHTS,
  type AdapterBase,
  type LoraAdapter,
} from "./adapter.ts";
import type { AdapterConfig } from "./adapter-config.ts";
import { declaresTied, embeddingsWith } from "./adapter-embeddings.ts";
import { inPlaceOf } from "./adapter-entry.ts";

/** Problems that a message spells out. */
const MAX_LISTED = 8;
/** Buffers that older versions of transformers saved; they follow from the config. The biases are causal masks. */
const STALE = /\.(position_ids|inv_freq|(attn|attention)\.(masked_)?bias)$/;

/** The two halves of an update. */
interface Pair {
  readonly module: string;
  readonly a: TensorEntry;
  readonly b: TensorEntry;
}

/** What an adapter's tensors are, by the common name of the weight that they change. */
interface Contents {
  /** Tensors that take a weight's place. */
  readonly whole: ReadonlyMap<string, TensorEntry>;
  readonly pairs: ReadonlyMap<string, Pair>;
}

/**
 * The checkpoint with an adapter on top, as PEFT puts it there. One that was trained on a language model also fits that
 * model inside of a LLaVA, under each of the names that it may have there. Throws one CheckpointError that lists tensors that
 * match no weight (with the nearest name), that PEFT would ignore, that lack their other half, or that have the wrong shape,
 * and trained modules that lack a tensor.
 */
export async function applyAdapter<Parts extends AdapterBase>(
  parts: Parts,
  adapter: LoraAdapter,
): Promise<Parts> {
  const problems: string[] = [];
  const { whole, pairs } = sort(adapter, problems);
  const base = await embeddingsWith(
    parts,
    adapter.config,
    {
      embedding: whole.get(EMBEDDING),
      head: whole.get(HEAD),
      saves: (entry) => adapter.config.saves(keyOf(entry).replace(/(\.base_layer)?\.weight$/, "")),
      hasHeadUpdate: pairs.has(HEAD),
    },
    problems,
  );
  const names = new Map([...base.keys()].map((name) => [commonName(name), name]));
  const entries = new Map(base);
  const updates = new Map(parts.updates);
  const nameOf = (common: string, key: string, weight = key): string | undefined => {
    const name = names.get(common);
    if (name === undefined) {
      const near = nearest(weight, parts.entries.keys());
      problems.push(`${key} matches no weight of ${parts.name}${near ? ` (the nearest is ${near})` : ""}`);
    }
    return name;
  };

  for (const [common, entry] of whole) {
    if (STALE.test(common)) continue;
    const key = keyOf(entry);
    const isShared = common === HEAD && !names.has(HEAD) && declaresTied(parts.config);
    const name = nameOf(isShared ? EMBEDDING : common, key);
    if (name === undefined) continue;
    // An output matrix that the base does not have is the embedding.
    const { shape, dtype } = parts.entries.get(name) ?? parts.entries.get(names.get(EMBEDDING)!)!;
    if (!sameShape(shape, entry.shape)) {
      problems.push(`${key} is ${showShape(entry.shape)} instead of ${showShape(shape)}`);
    } else if (!isFloat(entry.dtype)) problems.push(`${key}: expected floats, found ${entry.stored}`);
    if (common !== EMBEDDING && common !== HEAD) entries.set(name, renamed(inPlaceOf(dtype, entry), name));
    updates.delete(name); // as a whole it stands for what adapters before it did
  }
  for (const [common, { module, a, b }] of pairs) {
    const name = nameOf(common, keyOf(a), `${module}.weight`);
    if (name === undefined) continue;
    const { rank, scale } = adapter.config.of(module);
    const problem = shapeProblem(entries.get(name)!, a, b, rank);
    if (problem) problems.push(`${module}: ${problem}`);
    updates.set(name, [...(updates.get(name) ?? []), { a, b, scale, adapter: adapter.name }]);
  }
  const weights = new Set(names.keys());
  if (declaresTied(parts.config)) weights.add(HEAD);
  problems.push(...missing(weights, adapter, whole));

  if (adapter.entries.size === 0) problems.push("there are no tensors");
  if (problems.length > 0) {
    const more = problems.length > MAX_LISTED ? `; and ${problems.length - MAX_LISTED} more` : "";
    const listed = problems.slice(0, MAX_LISTED).join("; ");
    throw new CheckpointError(`${adapter.name}/${ADAPTER_WEIGHTS}: ${listed}${more}`);
  }
  return { ...parts, entries, updates, adapters: [...parts.adapters, adapter] };
}

/** A tensor's name without PEFT's prefix. */
const keyOf = (entry: TensorEntry): string => entry.name.replace(ADAPTER_PREFIX, "");

/** Tells updates from whole tensors. What PEFT would leave out without a word is a problem. */
function sort({ config, entries }: LoraAdapter, problems: string[]): Contents {
  const whole = new Map<string, TensorEntry>();
  const halves = new Map<string, { module: string; A?: TensorEntry; B?: TensorEntry }>();
  const twice = (key: string) => problems.push(`${key} is there under two names`);
  for (const [key, entry] of entries) {
    // PEFT calls an adapter "default" unless told otherwise, and also reads names that have that in them.
    const [, module, half] = /^(.+)\.lora_([AB])\.(?:default\.)?weight$/.exec(key) ?? [];
    if (module !== undefined) {
      const common = commonName(`${module}.weight`);
      if (!halves.has(common)) problems.push(...targetProblem(module, common, config));
      const found = halves.get(common) ?? { module };
      if (found[half as "A" | "B"] || found.module !== module) twice(key);
      halves.set(common, { ...found, [half!]: entry });
      continue;
    }
    const [, path, isWrapped, parameter] = /^(.+?)(\.base_layer)?\.([^.]+)$/.exec(key) ?? [];
    const unknown = path === undefined ? "is no parameter of a module" : kindOf(key);
    if (unknown) {
      problems.push(`${key} ${unknown}`);
      continue;
    }
    const common = commonName(`${path}.${parameter}`);
    if (config.targets(path!) !== (isWrapped !== undefined)) {
      problems.push(
        isWrapped
          ? `${key}: ${path} is not among the target_modules of ${ADAPTER_CONFIG}`
          : `${key}: expected ${path}.base_layer.${parameter}, as ${path} has a LoRA by ${ADAPTER_CONFIG}`,
      );
    }
    if (whole.has(common)) twice(key);
    whole.set(common, entry);
  }
  const pairs = new Map<string, Pair>();
  for (const [common, { module, A, B }] of halves) {
    if (A && B) pairs.set(common, { module, a: A, b: B });
    else problems.push(`${keyOf((A ?? B)!)} is there without its lora_${A ? "B" : "A"}`);
  }
  return { whole, pairs };
}

function targetProblem(module: string, common: string, config: AdapterConfig): string[] {
  if (common === EMBEDDING) return [`${module} is an embedding, whose LoRA has other tensors`];
  if (!config.targets(module)) {
    return [`${module} has a LoRA, but is not among the target_modules of ${ADAPTER_CONFIG}`];
  }
  return config.saves(module) ? [`${module} has a LoRA, but is among modules_to_save as well`] : [];
}

/** Tensors that the config says were trained as a whole, and that are not there. */
function missing(
  weights: Iterable<string>,
  { config, entries }: LoraAdapter,
  whole: ReadonlyMap<string, TensorEntry>,
): string[] {
  const spell = spellingOf(entries.keys());
  const problems: string[] = [];
  for (const common of weights) {
    const name = spell(common);
    if (name === undefined || whole.has(common) || STALE.test(common)) continue;
    const at = name.lastIndexOf(".");
    const module = name.slice(0, at);
    const isBias = name.slice(at) === ".bias";
    if (config.saves(module)) problems.push(`${name} is missing, although modules_to_save has its module`);
    else if (
      isBias &&
      (config.biases === "all" || (config.biases === "lora_only" && config.targets(module)))
    ) {
      problems.push(`${name} is missing, although bias is "${config.biases}"`);
    }
  }
  return problems;
}

function shapeProblem(weight: TensorEntry, a: TensorEntry, b: TensorEntry, rank: number): string | undefined {
  if (weight.shape.length !== 2) return `only linear layers are supported, not ${showShape(weight.shape)}`;
  const [out, width] = weight.shape as [number, number];
  const show = (x: TensorEntry) => showShape(x.shape);
  const fits = (out: number, width: number) =>
    sameShape(a.shape, [rank, width]) && sameShape(b.shape, [out, rank]);
  // Some weights are stored as [in, out]. Which, the model's family knows, and looks at it again (`Weights.linear`).
  if (!fits(out, width) && !fits(width, out)) {
    return (
      `expected lora_A ${showShape([rank, width])} and lora_B ${showShape([out, rank])} (rank ${rank} by ` +
      `${ADAPTER_CONFIG}, weight ${show(weight)}), found ${show(a)} and ${show(b)}`
    );
  }
  if (!isFloat(a.dtype) || !isFloat(b.dtype)) return `expected floats, found ${a.stored} and ${b.stored}`;
  return undefined;
}

/** What a tensor is that is neither a half of an update nor a module's parameter; undefined if it looks like one. */
function kindOf(key: string): string | undefined {
  if (key.includes("lora_embedding_")) return "is a LoRA of an embedding, which is not supported";
  if (key.includes("lora_magnitude_vector")) return "is of DoRA, which is not supported";
  if (key.includes(".token_adapter.")) return "trains single tokens, which is not supported";
  if (/\.lora_[AB]\./.test(key)) {
    return "is not named as PEFT's save_pretrained names it, <module>.lora_A.weight or <module>.lora_B.weight";
  }
  return undefined;
}
