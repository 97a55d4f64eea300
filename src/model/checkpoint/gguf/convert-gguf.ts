import type { ByteSource } from "../../../platform/platform.ts";
import { asFloats } from "../entries/float-chunks.ts";
import { writeSafetensors } from "../safetensors/safetensors-writer.ts";
import { type FolderSink, jsonFile } from "../source/folder-sink.ts";
import { GgufFile } from "./gguf.ts";
import { llamaConfig, llamaTensors } from "./gguf-llama.ts";
import { tokenizerFiles } from "./gguf-tokenizer.ts";

/**
 * Writes a GGUF file of architecture `llama` as a Hugging Face folder: model.safetensors, tokenizer.json,
 * tokenizer_config.json and config.json. Every tensor is dequantised to f32 and rounded to the nearest f16, ties to
 * even. The same input gives the same bytes. config.json comes last, so a folder that has it is complete. Leaves
 * `source` open. Throws CheckpointError, for a weight beyond f16's range too.
 */
export async function convertGguf(source: ByteSource, sink: FolderSink): Promise<void> {
  const file = await GgufFile.open(source);
  for (const entry of file.entries) entry.expect();
  const config = llamaConfig(file);
  const tokenizer = tokenizerFiles(file);
  const tensors = llamaTensors(file, config).map((entry) => ({
    name: entry.name,
    stored: "F16",
    shape: entry.shape,
    data: () => asFloats(entry, "f16", source.name),
  }));
  await sink.write("model.safetensors", writeSafetensors(tensors, { format: "pt" }));
  await sink.write("tokenizer.json", jsonFile(tokenizer.tokenizer));
  await sink.write("tokenizer_config.json", jsonFile(tokenizer.config));
  await sink.write("config.json", jsonFile(config));
}
