import { CheckpointError } from "../tensor/errors.ts";
import { ConfigReader, isObject, type JsonObject } from "./config.ts";

/** What an adapter_config.json says, as far as it matters for a model that is only run. */
export interface AdapterConfig {
  /** `base_model_name_or_path` */
  readonly base: string | undefined;
  /** Modules that were trained as a whole and lie in the file as such. */
  readonly savedModules: readonly string[];
  /** Rank and scale of the update of a module (`model.layers.0.self_attn.q_proj`). */
  of(module: string): { readonly rank: number; readonly scale: number };
}

/** Fields that are read here, describe the training, or follow from the tensors' names. */
const KNOWN = new Set([
  ...["peft_type", "base_model_name_or_path", "r", "lora_alpha", "use_rslora", "rank_pattern"],
  ...["alpha_pattern", "modules_to_save", "bias", "fan_in_fan_out"],
  ...["task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "target_modules"],
  ...["exclude_modules", "lora_dropout", "layers_to_transform", "layers_pattern", "megatron_core"],
  ...["init_lora_weights", "qalora_group_size", "ensure_weight_tying", "runtime_config"],
]);

/** Initialisations that change the base's weights, so that the adapter alone does not tell what was trained. */
const CHANGES_BASE = /^(pissa|olora|corda|loftq|lora_ga)/i;

/**
 * Reads the config of a LoRA adapter as PEFT 0.21 writes it. Throws CheckpointError naming the field for everything that
 * would make another model of it: DoRA, biases, transposed weights, other kinds of adapters, fields that are not known.
 */
export function readAdapterConfig(json: JsonObject, where: string): AdapterConfig {
  const c = new ConfigReader(json, where);
  const type = c.string("peft_type");
  if (type !== "LORA") throw unsupported(where, "peft_type", type, `"LORA"`);
  if (c.string("bias", "none") !== "none") throw unsupported(where, "bias", json["bias"], `"none"`);
  if (c.boolean("fan_in_fan_out", false)) throw unsupported(where, "fan_in_fan_out", true, "false");
  const init = json["init_lora_weights"];
  if (typeof init === "string" && CHANGES_BASE.test(init)) {
    throw unsupported(where, "init_lora_weights", init, "one that leaves the base's weights as they are");
  }
  for (const [field, value] of Object.entries(json)) {
    if (!KNOWN.has(field) && !isEmpty(value)) throw unsupported(where, field, value, "nothing");
  }
  const rank = c.count("r");
  const alpha = c.number("lora_alpha", 8);
  const rankStabilised = c.boolean("use_rslora", false);
  const ranks = readPattern(json, "rank_pattern", where);
  const alphas = readPattern(json, "alpha_pattern", where);
  return {
    base: c.has("base_model_name_or_path") ? c.string("base_model_name_or_path") || undefined : undefined,
    savedModules: strings(json["modules_to_save"] ?? [], `${where}: modules_to_save`),
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
  return !value || (typeof value === "object" && Object.keys(value).length === 0);
}

/** A pattern is a regular expression for the end of a module's path, as in PEFT; the first that fits counts. */
function readPattern(json: JsonObject, field: string, where: string): (module: string) => number | undefined {
  const given = json[field] ?? {};
  if (!isObject(given)) throw new CheckpointError(`${where}: expected ${field} to be an object`);
  const patterns = Object.entries(given).map(([pattern, value]) => {
    if (typeof value !== "number" || !(value > 0)) {
      throw new CheckpointError(
        `${where}: expected ${field}.${pattern} to be a positive number, found ${JSON.stringify(value)}`,
      );
    }
    try {
      return [new RegExp(`^(?:.*\\.)?(?:${pattern})$`), value] as const;
    } catch (cause) {
      throw new CheckpointError(`${where}: ${field}: ${(cause as Error).message}`, { cause });
    }
  });
  return (module) => patterns.find(([pattern]) => pattern.test(module))?.[1];
}

function strings(value: unknown, where: string): string[] {
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
  throw new CheckpointError(`${where}: expected a list of names`);
}
