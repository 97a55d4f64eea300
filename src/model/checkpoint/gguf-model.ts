import { Checkpoint } from "./checkpoint.ts";
import { GgufFile } from "./gguf/gguf.ts";
import { llamaConfig, llamaTensors } from "./gguf/gguf-llama.ts";
import { tokenizerFiles } from "./gguf/gguf-tokenizer.ts";
import type { JsonObject } from "./json/config-reader.ts";
import { memoryFolder } from "./source/folder.ts";

/**
 * A lone GGUF file of architecture `llama` as a model: its metadata as config.json and tokenizer files, its tensors under
 * Hugging Face's names, quantised ones as they are. Others as they were given. Throws CheckpointError.
 */
export function ggufModel(checkpoint: Checkpoint): Checkpoint {
  const [file] = checkpoint.files;
  if (checkpoint.config || !(file instanceof GgufFile)) return checkpoint;
  const config = llamaConfig(file);
  const tokenizer = tokenizerFiles(file);
  const json = (value: object) => new TextEncoder().encode(JSON.stringify(value));
  const files = new Map([
    ["config.json", json(config)],
    ["tokenizer.json", json(tokenizer.tokenizer)],
    ["tokenizer_config.json", json(tokenizer.config)],
  ]);
  return new Checkpoint(
    {
      name: checkpoint.name,
      config: config as unknown as JsonObject,
      folder: memoryFolder(files, checkpoint.name),
      entries: new Map(llamaTensors(file, config).map((entry) => [entry.name, entry])),
      adapters: [],
      updates: new Map(),
      digests: [],
    },
    checkpoint.files,
  );
}
