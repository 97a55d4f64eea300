import { CheckpointError } from "../../../errors.ts";
import { ConfigReader, isObject, type JsonObject } from "../json/config-reader.ts";

/** What a config says of quantised weights that are read: 8-bit floats with scales, or matrices that are packed. */
export interface Quantisation {
  /** By which method weights are stored in fewer bits, which they are kept in. */
  readonly packed?: "bitsandbytes" | "xpatch";
  /** Rows and columns of a weight that share a scale, where the config says so. */
  readonly block?: readonly [rows: number, columns: number];
}

const FIELDS = ["quantization_config", "compression_config"];
const SECTIONS = ["text_config", "vision_config"];

/**
 * How the weights are quantised by config.json, or by a section of it; undefined for no quantisation. Activations are
 * never quantised here, whatever it says of them. Throws CheckpointError, with the method's name, for all but 8-bit
 * floats (`fp8`, `fbgemm_fp8`, `compressed-tensors` and `modelopt`), `bitsandbytes` and xpatch's own.
 */
export function readQuantisation(config: JsonObject, where: string): Quantisation | undefined {
  let found: Quantisation | undefined;
  for (const section of ["", ...SECTIONS]) {
    const values = section ? config[section] : config;
    if (!isObject(values)) continue;
    for (const field of FIELDS) {
      const given = values[field];
      if (given === undefined || given === null) continue;
      const path = `${where}: ${section && `${section}.`}${field}`;
      if (!isObject(given)) throw new CheckpointError(`${path}: expected an object`);
      found = { ...readMethod(given, field === "compression_config", path), ...found };
    }
  }
  return found;
}

/** {@link readQuantisation} for those who only list tensors: undefined for what is not supported. */
export function quantisationOrNone(config: JsonObject): Quantisation | undefined {
  try {
    return readQuantisation(config, "config.json");
  } catch {
    return undefined;
  }
}

function readMethod(given: JsonObject, isCompression: boolean, where: string): Quantisation {
  const bits = given["load_in_8bit"] || given["load_in_4bit"];
  const method =
    given["quant_method"] ?? (bits ? "bitsandbytes" : isCompression ? "compressed-tensors" : undefined);
  switch (bits ? "bitsandbytes" : method) {
    case "bitsandbytes":
      return { packed: "bitsandbytes" };
    case "xpatch":
      return { packed: "xpatch" };
    case "fbgemm_fp8":
      return {};
    case "fp8": {
      const block = given["weight_block_size"];
      if (block === undefined) return { block: [128, 128] };
      return block === null ? {} : { block: blockOf(block, `${where}.weight_block_size`) };
    }
    case "compressed-tensors":
      return readCompressedTensors(given, where);
    case "modelopt": {
      const algorithm = given["quant_algo"];
      if (algorithm === "FP8" || algorithm === "FP8_PER_CHANNEL_PER_TOKEN") return {};
      throw unsupported(where, `modelopt ${JSON.stringify(algorithm)}`);
    }
    default:
      throw unsupported(where, method === undefined ? "a method without a name" : JSON.stringify(method));
  }
}

/** https://github.com/vllm-project/compressed-tensors: groups of layers, each with a scheme for its weights. */
function readCompressedTensors(given: JsonObject, where: string): Quantisation {
  const c = new ConfigReader(given, where);
  const neutral = (key: string) => !c.has(key) || Object.keys(given[key] as object).length === 0;
  if (!neutral("transform_config")) throw unsupported(where, "compressed-tensors with a transform_config");
  const sparsity = c.section("sparsity_config").string("format", "dense");
  if (sparsity !== "dense")
    throw unsupported(where, `compressed-tensors, sparse as ${JSON.stringify(sparsity)}`);
  let block: Quantisation["block"];
  const groups = c.section("config_groups");
  for (const name of groups.keys) {
    const weights = groups.section(name).section("weights");
    const [bits, type] = [weights.number("num_bits", 8), weights.string("type", "int")];
    if (type !== "float" || bits !== 8 || !weights.boolean("symmetric", true)) {
      const symmetric = weights.boolean("symmetric", true) ? "" : ", asymmetric";
      throw unsupported(where, `compressed-tensors ${name} (${bits} bits, ${type}${symmetric})`);
    }
    const structure = weights.value("block_structure");
    if (weights.has("group_size")) block = [1, weights.count("group_size")];
    if (structure !== undefined)
      block = blockOf(structure, `${where}.config_groups.${name}.weights.block_structure`);
  }
  return block ? { block } : {};
}

/** `[128, 128]`, or `"128x128"`. */
function blockOf(value: unknown, where: string): readonly [number, number] {
  const sizes = typeof value === "string" ? value.split("x").map(Number) : value;
  if (Array.isArray(sizes) && sizes.length === 2 && sizes.every((n) => Number.isSafeInteger(n) && n > 0)) {
    return sizes as [number, number];
  }
  throw new CheckpointError(`${where}: expected two sizes, found ${JSON.stringify(value)}`);
}

function unsupported(where: string, method: string): CheckpointError {
  return new CheckpointError(
    `${where}: weights quantised by ${method} are not read; supported are 8-bit floats of fp8, fbgemm_fp8, ` +
      "compressed-tensors and modelopt, and bitsandbytes. Load the model that this one was made from (`quantise` keeps it as " +
      "small), or dequantise it in Python " +
      "(model.dequantize() of transformers) and save it; if its weights are not quantised, take the field out",
  );
}
