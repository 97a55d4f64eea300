import { CheckpointError } from "../../../errors.ts";
import type { RopeScaling } from "../../../kernels/attention/rope.ts";
import { ConfigReader, isObject, type JsonObject } from "../json/config-reader.ts";

/** Base and scaling of RoPE. */
export interface RopeConfig {
  readonly theta: number;
  /** Dimensions of a head that are rotated, the first ones. Default all. */
  readonly rotaryDim?: number;
  readonly scaling?: RopeScaling;
  /** The scaling of prompts of more than so many tokens, in place of the other (LongRoPE). */
  readonly beyond?: { readonly tokens: number; readonly scaling: RopeScaling };
  /** What the first token's position counts as. Default 0; 1 in PaliGemma. */
  readonly firstPosition?: number;
}

/**
 * The parameters in the spelling of transformers 5: `rope_scaling` if it says anything, else `rope_parameters`; what it
 * lacks comes from the fields beside it. Keys that mean nothing stay.
 */
export function ropeParameters(values: JsonObject): JsonObject {
  const said = [values["rope_scaling"], values["rope_parameters"]].find(
    (section) => isObject(section) && Object.keys(section).length > 0,
  );
  const section = (said ?? {}) as JsonObject;
  const type = section["rope_type"] ?? section["type"] ?? "default";
  // A field of its own stands above what the parameters say.
  const context =
    values["original_max_position_embeddings"] ??
    section["original_max_position_embeddings"] ??
    values["max_position_embeddings"];
  const given = "rope_theta" in values ? values["rope_theta"] : 10000;
  return {
    ...section,
    rope_type: type,
    ...(type === "llama3" && context !== undefined && { original_max_position_embeddings: context }),
    rope_theta: "rope_theta" in section ? section["rope_theta"] : given,
  };
}

/**
 * The same for GPT-NeoX, whose published configs have names of their own for the base and for the share of a head that is
 * rotated; `rope_theta` and `partial_rotary_factor` beside them are not read.
 */
export function neoxRopeParameters(values: JsonObject): JsonObject {
  const own = {
    rope_scaling: values["rope_scaling"],
    rope_parameters: values["rope_parameters"],
    max_position_embeddings: values["max_position_embeddings"],
    original_max_position_embeddings: values["original_max_position_embeddings"],
    rope_theta: values["rotary_emb_base"] ?? 10000,
  };
  return { partial_rotary_factor: values["rotary_pct"] ?? 0.25, ...ropeParameters(own) };
}

/** Reads RoPE as transformers 5 does. Throws CheckpointError for kinds of scaling that are not supported, by name. */
export function readRope(values: JsonObject, context: number, where: string): RopeConfig {
  for (const key of ["rope_scaling", "rope_parameters"]) {
    const section = values[key] ?? {};
    if (!isObject(section)) {
      throw new CheckpointError(
        `${where}: expected ${key} to be an object, found ${JSON.stringify(section)}`,
      );
    }
  }
  const name = isObject(values["rope_scaling"]) ? "rope_scaling" : "rope_parameters";
  const r = new ConfigReader(ropeParameters(values), `${where}: ${name}`);
  const theta = r.number("rope_theta");
  if (theta <= 0) throw new CheckpointError(`${where}: expected rope_theta to be positive, found ${theta}`);
  const type = r.string("rope_type");
  if (type === "default") return { theta };
  const partial = r.number("partial_rotary_factor", Number(values["partial_rotary_factor"] ?? 1));
  if (partial !== 1) {
    throw new CheckpointError(
      `${where}: partial_rotary_factor ${partial} is not supported with RoPE scaling; expected 1`,
    );
  }
  switch (type) {
    case "dynamic": // differs from the default only beyond the context, where no prompt reaches
      r.number("factor");
      return { theta };
    case "linear":
      return { theta, scaling: { type, factor: r.number("factor") } };
    case "llama3":
      return {
        theta,
        scaling: {
          type,
          factor: r.number("factor"),
          lowFreqFactor: r.number("low_freq_factor"),
          highFreqFactor: r.number("high_freq_factor"),
          originalContext: r.count("original_max_position_embeddings", context),
        },
      };
    default:
      throw new CheckpointError(
        `${where}: RoPE scaling (rope_type) ${JSON.stringify(type)} is not supported; supported are default, linear, dynamic, llama3`,
      );
  }
}

/** The kinds of layers that have a RoPE each (Gemma 3). */
export type LayerKind = "full_attention" | "sliding_attention";

/** What a config calls the base of each kind, and what it is where that is silent. */
const BASES = {
  full_attention: { field: "rope_theta", base: 1e6 },
  sliding_attention: { field: "rope_local_base_freq", base: 1e4 },
} as const;

/**
 * The parameters of the layers of one kind in the spelling of transformers 5: what `rope_parameters` have under its name, and for
 * the layers without a window also `rope_scaling`, which published files have.
 */
export function ropeParametersOfKind(values: JsonObject, kind: LayerKind): JsonObject {
  const byKind = values["rope_parameters"];
  const [parameters, scaling] = [isObject(byKind) && byKind[kind], values["rope_scaling"]];
  const section = {
    ...(isObject(parameters) && parameters),
    ...(kind === "full_attention" && isObject(scaling) && scaling),
  };
  const { field, base } = BASES[kind];
  return ropeParameters({
    max_position_embeddings: values["max_position_embeddings"],
    rope_parameters: section,
    rope_theta: values[field] ?? base,
  });
}

/**
 * Reads the RoPE of the layers of one kind as transformers 5 does. Throws CheckpointError as {@link readRope} does, and where
 * transformers 4 and 5 differ.
 */
export function readRopeOfKind(
  values: JsonObject,
  kind: LayerKind,
  context: number,
  where: string,
): RopeConfig {
  const c = new ConfigReader(values, where);
  const scaling = c.object("rope_scaling");
  if ("type" in scaling && !("rope_type" in scaling)) {
    throw new CheckpointError(
      `${where}: expected rope_scaling to say its kind as rope_type, found type, which transformers 4 reads and 5 does not`,
    );
  }
  const parameters = c.section("rope_parameters");
  if (c.has("rope_scaling") && c.has("rope_parameters") && !parameters.has("full_attention")) {
    throw new CheckpointError(
      `${where}: expected rope_parameters beside rope_scaling to have full_attention`,
    );
  }
  parameters.object(kind); // nothing else
  const fields = { rope_parameters: ropeParametersOfKind(values, kind) };
  const { partial_rotary_factor } = values;
  return readRope({ ...fields, partial_rotary_factor }, context, `${where}: ${kind}`);
}
