import { CheckpointError } from "../errors.ts";
import type { Checkpoint } from "./checkpoint/checkpoint.ts";
import type { DecoderConfig } from "./checkpoint/config/decoder-config.ts";
import { requireNeutral } from "./checkpoint/config/neutral-fields.ts";
import { readQuantisation } from "./checkpoint/config/quantisation.ts";
import { isObject, type JsonObject } from "./checkpoint/json/config-reader.ts";
import type { Family } from "./families/family.ts";
import { familyFiles } from "./families/pictures/parts/family-files.ts";
import { familyOf } from "./families/registry.ts";
import type { ReadOptions } from "./load-options.ts";
import { type ChatTemplates, findChatTemplates } from "./prompt/find-chat-template.ts";
import { createTokenizer, type Tokenizer } from "./prompt/tokenizer.ts";
/** Everything about a language model but its weights. */
export interface ModelFiles {
  readonly family: Family;
  /** config.json */
  readonly config: JsonObject;
  readonly decoder: DecoderConfig;
  readonly tokenizer: Tokenizer;
  readonly chatTemplates: ChatTemplates;
  /** Ids that end an answer, from generation_config.json or config.json. */
  readonly endIds: ReadonlySet<number>;
}

/** Reads and checks the files around the weights. Throws CheckpointError. */
export async function readModelFiles(
  checkpoint: Checkpoint,
  { intermediateLayers }: ReadOptions = {},
): Promise<ModelFiles> {
  const { config, name } = checkpoint;
  if (!config)
    throw new CheckpointError(
      `${name}: a lone tensor file is no model; expected a folder with a config.json ` +
        "(`xpatch convert` makes one of a GGUF file)",
    );

  const where = `${name}/config.json`;
  const family = familyOf(config, where);
  if (intermediateLayers !== undefined && family.modelType !== "mllama") {
    throw new CheckpointError(
      `${where}: the option intermediateLayers is for models of model_type mllama, found ${family.modelType}`,
    );
  }
  const { packed: method } = readQuantisation(config, where) ?? {};
  if (method && !checkpoint.entries.some(({ packed }) => packed)) {
    throw new CheckpointError(
      `${where}: quantization_config says that weights are quantised by ${method}, but none of the tensors is; take the field ` +
        'out, and have them quantised as they are read where that is wanted (quantise: "nf4")',
    );
  }
  requireNeutral(config, where, ["transformers_weights"]);
  const tokenizerConfig = await checkpoint.json("tokenizer_config.json");
  const tokenizerJson = await checkpoint.json("tokenizer.json");
  const why = tokenizerJson === undefined ? checkpoint.whyMissing("tokenizer.json") : undefined;
  if (why) throw new CheckpointError(`${name}: there is no tokenizer.json (${why})`);
  const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig ?? undefined);
  const processorConfig = await checkpoint.json("processor_config.json");
  const decoder = family.readConfig(config, where, {
    ...(await familyFiles(checkpoint, family, tokenizer, processorConfig)),
    intermediateLayers,
  });
  const files = {
    jinja: await checkpoint.text("chat_template.jinja"),
    json: await checkpoint.json("chat_template.json"),
    processorConfig,
    tokenizerConfig,
  };
  const chatTemplates = findChatTemplates(files, decoder.vision !== undefined);
  const generation = (await checkpoint.json("generation_config.json")) as Record<string, unknown> | undefined;
  const start = generation?.["decoder_start_token_id"] ?? undefined;
  if (decoder.encoder && start !== undefined && start !== decoder.encoder.startId) {
    throw new CheckpointError(
      `${name}: expected one decoder_start_token_id, found ${decoder.encoder.startId} in config.json and ` +
        `${JSON.stringify(start)} in generation_config.json`,
    );
  }
  const text = isObject(config["text_config"]) ? config["text_config"] : config;
  const endIds = generation?.["eos_token_id"] ?? config["eos_token_id"] ?? text["eos_token_id"];
  return { family, config, decoder, tokenizer, chatTemplates, endIds: idsOf(endIds, name) };
}

function idsOf(value: unknown, where: string): ReadonlySet<number> {
  const ids = (Array.isArray(value) ? value : [value]).filter((id) => id !== undefined && id !== null);
  if (ids.every((id) => Number.isInteger(id))) return new Set(ids);
  throw new CheckpointError(
    `${where}: expected eos_token_id to be an id or a list of them, found ${JSON.stringify(value)}`,
  );
}
