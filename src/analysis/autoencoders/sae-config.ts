import { CheckpointError } from "../../errors.ts";
import { ConfigReader, type JsonObject } from "../../model/checkpoint/json/config-reader.ts";
import type { SiteName } from "../../model/walk/sites.ts";
import { siteOfHook } from "./sae-site.ts";

/** How latents come of what the encoder's matrix makes of an activation. */
export type SaeArchitecture = "standard" | "gated" | "jumprelu" | "topk";

/** What is done to an activation before it is encoded, and undone after it is decoded. */
export type SaeNormalisation = "none" | "constant_norm_rescale" | "layer_norm";

/** What a SAELens folder's cfg.json says, of all versions alike. */
export interface SaeConfig {
  readonly architecture: SaeArchitecture;
  /** Width of the activation (`d_in`). */
  readonly width: number;
  /** Number of latents (`d_sae`). */
  readonly latents: number;
  /** The activation that it was trained on. */
  readonly site: SiteName;
  /** Its name in TransformerLens, as the config has it. */
  readonly hookName: string;
  /** What SAELens holds its weights in. */
  readonly dtype: "f32" | "f16" | "bf16";
  /** Whether the decoder's bias is taken from an activation before it is encoded. */
  readonly subtractBias: boolean;
  readonly normalisation: SaeNormalisation;
  /** Whether SAELens would rescale by a mean norm that the folder does not have (`expected_average_only_in`). */
  readonly expectsNormScale: boolean;
  /** What of the standard architecture stands in the place of ReLU. */
  readonly activation: "relu" | "tanh-relu";
  /** Of topk: latents that are left to each activation. */
  readonly k?: number;
  /** Of topk: pre-activations are compared, and latents given, in units of the decoder's norms. */
  readonly rescaleByDecoderNorm: boolean;
  /** A factor for each latent on its way to the decoder (versions 3 to 5). */
  readonly finetuningScale: boolean;
  /** Whether the model's writing weights were centred by TransformerLens; undefined where the config does not say. */
  readonly centred?: boolean;
  /** The model's name in TransformerLens, if it is said. */
  readonly model?: string;
  /** Whether BOS stood in front of what it was trained on, and how long the contexts were, if that is said. */
  readonly prependBos?: boolean;
  readonly contextSize?: number;
}

const FAMILIAR: readonly string[] = ["standard", "gated", "jumprelu", "topk"] satisfies SaeArchitecture[];

/** Why others are refused. */
const OTHERS: Readonly<Record<string, string>> = {
  batchtopk: "a training architecture; SAELens' save_inference_model writes it as jumprelu",
  matryoshka_batchtopk: "a training architecture; SAELens' save_inference_model writes it as jumprelu",
  transcoder: "transcoders read one activation and write another",
  skip_transcoder: "transcoders read one activation and write another",
  jumprelu_transcoder: "transcoders read one activation and write another",
  jumprelu_skip_transcoder: "transcoders read one activation and write another",
};

const DTYPES: Readonly<Record<string, SaeConfig["dtype"]>> = {
  float32: "f32",
  float64: "f32",
  float16: "f16",
  bfloat16: "bf16",
};

/** What versions before 6 called fields, or called them first. */
const RENAMED: Readonly<Record<string, string>> = {
  hook_point: "hook_name",
  hook_point_head_index: "hook_head_index",
  activation_fn: "activation_fn_str",
};

/** Fields of version 6 that say what an autoencoder computes, and those of its training alone. Others are unknown. */
const ARITHMETIC_6 =
  "architecture d_in d_sae dtype device apply_b_dec_to_input normalize_activations reshape_activations metadata k " +
  "rescale_acts_by_decoder_norm sae_lens_version";
const TRAINING_6 =
  "decoder_init_norm l1_coefficient lp_norm l1_warm_up_steps l0_coefficient l0_warm_up_steps jumprelu_init_threshold " +
  "jumprelu_bandwidth jumprelu_sparsity_loss_mode jumprelu_tanh_scale pre_act_loss_coefficient use_sparse_activations " +
  "aux_loss_coefficient";
const KNOWN_6: ReadonlySet<string> = new Set(`${ARITHMETIC_6} ${TRAINING_6}`.split(" "));

/** Options of TransformerLens' `from_pretrained` that leave activations as they are, whatever they say. */
const HARMLESS_KWARGS: ReadonlySet<string> = new Set([
  ...["fold_ln", "center_unembed", "dtype", "device", "n_devices", "move_to_device", "trust_remote_code"],
  ...["low_cpu_mem_usage", "torch_dtype", "revision", "cache_dir", "local_files_only", "token"],
]);

/**
 * Reads the cfg.json of SAELens 3 to 6. Throws CheckpointError naming the field for what is missing, makes no sense, or stands for
 * something that is computed otherwise than here.
 */
export function readSaeConfig(values: JsonObject, where: string): SaeConfig {
  const metadata = new ConfigReader(values, where).section("metadata");
  const version = versionOf(values, metadata, where);
  const renamed = Object.fromEntries(
    Object.entries(values).map(([key, value]) => [version < 6 ? (RENAMED[key] ?? key) : key, value]),
  );
  const c = new ConfigReader(renamed, where);
  const about = version < 6 ? c : metadata;
  if (version >= 6) requireKnown(c, where);
  const { architecture, k } = architectureOf(c, version, where);
  const hookName = about.string("hook_name");
  const site = siteOfHook(hookName, where);
  if (about.has("hook_head_index"))
    reject(where, "hook_head_index", about.value("hook_head_index"), "null: of single heads none are read");
  const reshape = c.string("reshape_activations", /hook_z$/.test(hookName) ? "hook_z" : "none");
  if (reshape !== "none" && !(reshape === "hook_z" && site.startsWith("z.")))
    reject(where, "reshape_activations", reshape, `"none", or "hook_z" at hook_z`);
  const centred = centringOf(about, site, where);
  const normalise = normalisationOf(c, version, where);
  return {
    architecture,
    width: c.count("d_in"),
    latents: c.count("d_sae"),
    site,
    hookName,
    dtype: dtypeOf(c, where),
    subtractBias: c.boolean("apply_b_dec_to_input", true),
    normalisation: normalise === "expected_average_only_in" ? "none" : normalise,
    expectsNormScale: normalise === "expected_average_only_in",
    activation: version < 6 && c.value("activation_fn_str") === "tanh-relu" ? "tanh-relu" : "relu",
    ...(k !== undefined && { k }),
    rescaleByDecoderNorm:
      architecture === "topk" && version >= 6 && c.boolean("rescale_acts_by_decoder_norm", false),
    finetuningScale: version < 6 && c.boolean("finetuning_scaling_factor", false),
    ...(centred !== undefined && { centred }),
    ...(about.has("model_name") && { model: about.string("model_name") }),
    ...(about.has("prepend_bos") && { prependBos: about.boolean("prepend_bos") }),
    ...(about.has("context_size") && { contextSize: about.count("context_size") }),
  };
}

/** The major version that wrote the file. Those before 6 may not say, and have no metadata. */
function versionOf(values: JsonObject, metadata: ConfigReader, where: string): number {
  const said = metadata.value("sae_lens_version") ?? values["sae_lens_version"];
  if (said === undefined) return 5;
  const [, major] = /^v?(\d+)\./.exec(String(said)) ?? [];
  if (major === undefined || Number(major) > 6)
    reject(where, "sae_lens_version", said, "a version from 3 to 6");
  return Number(major);
}

function requireKnown(c: ConfigReader, where: string): void {
  // What begins with a line is a remark of whoever converted it.
  const unknown = c.keys.filter((key) => !KNOWN_6.has(key) && !key.startsWith("_"));
  if (c.has("d_out"))
    throw new CheckpointError(`${where}: d_out is that of a transcoder, and these are not read`);
  if (unknown.length === 0) return;
  throw new CheckpointError(
    `${where}: ${unknown.join(", ")}: no field of SAELens 6.54 that is known here, and what it changes neither`,
  );
}

function architectureOf(
  c: ConfigReader,
  version: number,
  where: string,
): { architecture: SaeArchitecture; k?: number } {
  const named = c.string("architecture", version < 6 ? "standard" : undefined);
  if (!FAMILIAR.includes(named)) {
    const why = Object.hasOwn(OTHERS, named) ? ` (${OTHERS[named]})` : "";
    reject(where, "architecture", named, `one of ${FAMILIAR.join(", ")}`, why);
  }
  if (version >= 6)
    return named === "topk"
      ? { architecture: named, k: c.count("k", 100) }
      : { architecture: named as SaeArchitecture };
  const activation = c.string("activation_fn_str", "relu");
  const kwargs = c.section("activation_fn_kwargs");
  const strange = kwargs.keys.filter((key) => !(activation === "topk" && key === "k") && kwargs.has(key));
  if (strange.length > 0)
    throw new CheckpointError(
      `${where}: activation_fn_kwargs has ${strange.join(", ")}; only k, of topk, is read`,
    );
  if (activation === "topk") {
    // Without k it is SAELens' own default that is meant by nobody.
    if (named !== "standard" && named !== "topk")
      reject(where, "activation_fn_str", activation, `"relu", in architecture ${named}`);
    return { architecture: "topk", k: kwargs.count("k") };
  }
  if (named === "topk") reject(where, "activation_fn_str", activation, `"topk", in architecture topk`);
  const allowed = named === "standard" ? ["relu", "tanh-relu"] : ["relu"];
  if (!allowed.includes(activation))
    reject(where, "activation_fn_str", activation, `${allowed.join(" or ")} in architecture ${named}`);
  return { architecture: named as SaeArchitecture };
}

function normalisationOf(
  c: ConfigReader,
  version: number,
  where: string,
): SaeNormalisation | "expected_average_only_in" {
  const said = c.value("normalize_activations");
  // A flag, once.
  if (version < 6 && typeof said === "boolean") return said ? "expected_average_only_in" : "none";
  const named = c.string("normalize_activations", "none");
  switch (named) {
    case "none":
    case "constant_norm_rescale":
    case "layer_norm":
    case "expected_average_only_in":
      return named;
  }
  const why =
    named === "covariance_whitening" ? " (SAELens folds it into the weights when training is done)" : "";
  return reject(
    where,
    "normalize_activations",
    named,
    "none, constant_norm_rescale, layer_norm or expected_average_only_in",
    why,
  );
}

function dtypeOf(c: ConfigReader, where: string): SaeConfig["dtype"] {
  const said = c.string("dtype", "float32");
  const dtype = DTYPES[said.replace(/^torch\./, "")];
  return dtype ?? reject(where, "dtype", said, Object.keys(DTYPES).join(", "));
}

/**
 * Whether the activations are those of weights that TransformerLens has centred. Throws CheckpointError for what else it may have
 * done to them.
 */
function centringOf(about: ConfigReader, site: SiteName, where: string): boolean | undefined {
  const kwargs = about.section("model_from_pretrained_kwargs");
  const inStream = /^(resid_|attn_out|mlp_out)/.test(site);
  for (const key of kwargs.keys) {
    const value = kwargs.value(key);
    if (
      HARMLESS_KWARGS.has(key) ||
      value === undefined ||
      value === false ||
      key === "center_writing_weights"
    )
      continue;
    // These only move what the stream does not show.
    if (inStream && /^(fold_value_biases|refactor_factored_attn_matrices)$/.test(key)) continue;
    reject(where, `model_from_pretrained_kwargs.${key}`, value, "false: it changes what the site holds");
  }
  if (!inStream || !kwargs.has("center_writing_weights")) return undefined;
  return kwargs.boolean("center_writing_weights");
}

function reject(where: string, field: string, found: unknown, expected: string, why = ""): never {
  throw new CheckpointError(
    `${where}: expected ${field} to be ${expected}, found ${JSON.stringify(found)}${why}`,
  );
}
