import { CheckpointError } from "../../../errors.ts";
import type { JsonObject } from "../json/config-reader.ts";
import { pythonRegex } from "./python-regex.ts";

/** Which modules an adapter changes, by their paths (`model.layers.0.self_attn.q_proj`) in the model it was made for. */
export interface AdapterTargets {
  /** Whether PEFT puts a LoRA on the module; it ignores LoRA tensors of all others. */
  targets(module: string): boolean;
  /** Whether the module, or one that it is part of, was trained as a whole. */
  saves(module: string): boolean;
  /** Whether `modules_to_save` has the embedding or the output matrix by its own name. */
  readonly namesEmbeddings: boolean;
}

/** What PEFT takes of each family where a config names no modules; of a LLaVA it takes none. */
const DEFAULT_TARGETS =
  /^(model\.layers\..*\.(q_proj|v_proj)|transformer\.h\..*\.c_attn|gpt_neox\.layers\..*\.query_key_value)$/;

type Rule = (module: string) => boolean;

/**
 * PEFT's rules of `target_modules`, `exclude_modules`, `layers_to_transform`, `layers_pattern` and `modules_to_save`. Throws
 * CheckpointError naming the field.
 */
export function readTargets(json: JsonObject, where: string): AdapterTargets {
  const saved = names(json, "modules_to_save", where);
  if (saved.includes("")) throw new CheckpointError(`${where}: modules_to_save has an empty name`);
  const savedPaths = saved.map((name) =>
    pythonRegex(`(?:.*\\.)?${name}(?:\\..*)?`, `${where}: modules_to_save`),
  );
  const excluded = readExcluded(json, where);
  const listed = readListed(json, where);
  return {
    targets: (module) =>
      listed(module) && !excluded(module) && !savedPaths.some((pattern) => pattern.test(module)),
    saves: (module) => pathsOf(module).some((path) => saved.some((name) => path.endsWith(name))),
    namesEmbeddings: saved.some((name) => /(^|\.)(embed_tokens|lm_head)$/.test(name)),
  };
}

/** The module and all that it is part of. */
function pathsOf(module: string): string[] {
  const parts = module.split(".");
  return parts.map((_, i) => parts.slice(0, i + 1).join("."));
}

function readExcluded(json: JsonObject, where: string): Rule {
  const given = json["exclude_modules"];
  if (typeof given === "string" && given !== "") return matching(given, `${where}: exclude_modules`);
  return namedIn(given === "" ? [] : names(json, "exclude_modules", where));
}

function readListed(json: JsonObject, where: string): Rule {
  const given = json["target_modules"] ?? undefined;
  const inLayers = readLayers(json, where);
  if (typeof given === "string") {
    if (inLayers) {
      throw new CheckpointError(`${where}: expected layers_to_transform only with a list of target_modules`);
    }
    if (given.toLowerCase() === "all-linear") return (module) => !/(^|\.)(lm_head|embed_out)$/.test(module);
    return matching(given, `${where}: target_modules`);
  }
  const listed = names(json, "target_modules", where);
  const named: Rule = given === undefined ? (module) => DEFAULT_TARGETS.test(module) : namedIn(listed);
  // A module that is named by its whole path counts in every layer.
  return (module) => named(module) && (!inLayers || listed.includes(module) || inLayers(module));
}

const matching = (pattern: string, where: string): Rule => {
  const regex = pythonRegex(pattern, where);
  return (module) => regex.test(module);
};

const namedIn =
  (list: readonly string[]): Rule =>
  (module) =>
    list.some((name) => module === name || module.endsWith(`.${name}`));

/** Whether a module lies in one of `layers_to_transform`; undefined where that names none. */
function readLayers(json: JsonObject, where: string): Rule | undefined {
  const given = json["layers_to_transform"] ?? [];
  const layers = Array.isArray(given) ? given : [given];
  if (!layers.every((layer) => Number.isSafeInteger(layer))) {
    throw new CheckpointError(
      `${where}: expected layers_to_transform to be whole numbers, found ${JSON.stringify(given)}`,
    );
  }
  const prefixes = names(json, "layers_pattern", where);
  if (layers.length === 0) return undefined;
  const patterns = prefixes.length > 0 ? prefixes.map((p) => `(?:.*?\\.)?${p}`) : [".*?\\.[^.]*"];
  const regexes = patterns.map((p) => pythonRegex(`${p}\\.(\\d+)\\..*`, `${where}: layers_pattern`));
  return (module) => {
    const found = regexes.map((regex) => regex.exec(module)).find((match) => match);
    return found !== undefined && layers.includes(Number(found!.at(-1)));
  };
}

/** A list of names, or one name; none where the field is absent or null. */
function names(json: JsonObject, field: string, where: string): string[] {
  const value = json[field] ?? [];
  const list = typeof value === "string" && field === "layers_pattern" ? [value].filter(Boolean) : value;
  if (Array.isArray(list) && list.every((item) => typeof item === "string")) return list;
  throw new CheckpointError(`${where}: ${field}: expected a list of names, found ${JSON.stringify(value)}`);
}
