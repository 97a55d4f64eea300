import { CheckpointError } from "../../../errors.ts";
import { ConfigReader, isObject, type JsonObject } from "../json/config-reader.ts";
import { type AdapterTargets, readTargets } from "./adapter-targets.ts";
import { pythonRegex } from "./python-regex.ts";

/** What an adapter_config.json says, as far as it matters for a model that is only run. */
export interface AdapterConfig extends AdapterTargets {
  /** `base_model_name_or_path` */
  readonly base: string | undefined;
  /** `revision`: that of the base. */
  readonly baseRevision: string | undefined;
  /** `bias`: which biases were trained. */
  readonly biases: (typeof BIASES)[number];
  /** `ensure_weight_tying` */
  readonly tiesWeights: boolean;
  /** Whether that concerns `modules_to_save`: the embedding stays the output matrix where the base ties them. */
  readonly tiesSaved: boolean;
  /** Rank and scale of the update of a module (`model.layers.0.self_attn.q_proj`). */
  of(module: string): { readonly rank: number; readonly scale: number };
}

const BIASES = ["none", "all", "lora_only"] as const;

/** Fields that are read here or in `readTargets`, that describe the training, or that do nothing to a linear layer. */
const KNOWN = new Set([
  ...["peft_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "use_rslora"],
  ...["rank_pattern", "alpha_pattern", "bias", "ensure_weight_tying", "modules_to_save"],
  ...["target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"],
  ...["task_type", "auto_mapping", "peft_version", "inference_mode", "lora_dropout", "runtime_config"],
  ...["init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config"],
  ...["fan_in_fan_out", "megatron_core", "qalora_group_size"],
]);

/** Fields that turn a variant on with whatever value but null. */
const OFF_ONLY_BY_NULL = new Set([
  ...["kasa_config", "arrow_config", "velora_config", "monteclora_config", "use_bdlora"],
  "trainable_token_indices",
]);

/** Initialisations that leave the base's weights alone. With others the adapter does not tell what was trained. */
const KEEPS_BASE: readonly unknown[] = [true, false, "gaussian", "eva", "orthogonal", "mica"];

/**
 * Reads the config of a LoRA adapter as PEFT 0.21 writes it. Throws CheckpointError naming the field for everything that
 * would make another model of it: DoRA, tokens of their own, other kinds of adapters, fields that are not known.
 */
export function readAdapterConfig(json: JsonObject, where: string): AdapterConfig {
  const c = new ConfigReader(json, where);
  const type = c.string("peft_type");
  if (type !== "LORA") throw unsupported(where, "peft_type", type, `"LORA"`);
  const bias = c.string("bias", "none");
  const biases = BIASES.find((kind) => kind === bias);
  if (!biases) throw unsupported(where, "bias", bias, BIASES.map((kind) => `"${kind}"`).join(", "));
  const init = json["init_lora_weights"] ?? true;
  if (!KEEPS_BASE.includes(typeof init === "string" ? init.toLowerCase() : init)) {
    throw unsupported(where, "init_lora_weights", init, "one that leaves the base's weights as they are");
  }
  for (const [field, value] of Object.entries(json)) {
    const isOff = OFF_ONLY_BY_NULL.has(field) ? value === null || value === false : isEmpty(value);
    if (!KNOWN.has(field) && !isOff) throw unsupported(where, field, value, "nothing");
  }
  const rank = c.count("r");
  if (json["lora_alpha"] === null) throw unsupported(where, "lora_alpha", null, "a number");
  const alpha = c.number("lora_alpha", 8);
  const rankStabilised = c.boolean("use_rslora", false);
  const ranks = readPattern(json, "rank_pattern", where, (values, key) => values.count(key));
  const tiesWeights = c.boolean("ensure_weight_tying", false);
  const targets = readTargets(json, where);
  const alphas = readPattern(json, "alpha_pattern", where, (values, key) => values.number(key));
  return {
    ...targets,
    base: c.string("base_model_name_or_path", "") || undefined,
    baseRevision: c.string("revision", "") || undefined,
    biases,
    tiesWeights,
    tiesSaved: tiesWeights && targets.namesEmbeddings,
    of(module) {
      const r = ranks(module) ?? rank;
      return { rank: r, scale: (alphas(module) ?? alpha) / (rankStabilised ? Math.sqrt(r) : r) };
    },
  };
}

function unsupported(where: string, field: string, found: unknown, expected: string): CheckpointError {
  return new CheckpointError(
    `${where}: ${field} ${JSON.stringify(found)} is not supported; expected ${expected}`,
  );
}

function isEmpty(value: unknown): boolean {
  if (value === null || value === false || value === "") return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}

/** A pattern is a regular expression for the end of a module's path, as in PEFT; the first that fits counts. */
function readPattern(
  json: JsonObject,
  field: string,
  where: string,
  read: (values: ConfigReader, pattern: string) => number,
): (module: string) => number | undefined {
  const given = json[field] ?? {};
  if (!isObject(given)) throw new CheckpointError(`${where}: expected ${field} to be an object`);
  const values = new ConfigReader(given, `${where}: ${field}`);
  const patterns = Object.keys(given).map((pattern) => {
    const regex = pythonRegex(`(?:.*\\.)?(?:${pattern})`, `${where}: ${field}`);
    return [regex, read(values, pattern)] as const;
  });
  return (module) => patterns.find(([pattern]) => pattern.test(module))?.[1];
}
