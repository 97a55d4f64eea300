import type { ByteSource } from "../platform/platform.ts";
import { decode, f16Bits } from "../tensor/dtype.ts";
import { CheckpointError } from "../tensor/errors.ts";
import { GgufFile } from "./gguf.ts";
import { llamaConfig, llamaTensors } from "./gguf-llama.ts";
import { tokenizerFiles } from "./gguf-tokenizer.ts";
import { writeSafetensors } from "./safetensors-writer.ts";
import type { TensorEntry } from "./tensor-entry.ts";

/** Takes one file after the other; has to have consumed the chunks when its promise resolves. */
export interface FolderSink {
  write(fileName: string, chunks: AsyncIterable<Uint8Array>): Promise<void>;
}

/**
 * Writes a GGUF file of architecture `llama` as a Hugging Face folder: model.safetensors, tokenizer.json,
 * tokenizer_config.json and config.json. Every tensor is dequantised to f32 and rounded to the nearest f16, ties to
 * even. The same input gives the same bytes. config.json comes last, so a folder that has it is complete. Leaves
 * `source` open. Throws CheckpointError, for a weight beyond f16's range too.
 */
export async function convertGguf(source: ByteSource, sink: FolderSink): Promise<void> {
  const file = await GgufFile.open(source);
  const config = llamaConfig(file);
  const tokenizer = tokenizerFiles(file);
  const tensors = llamaTensors(file, config).map((entry) => ({
    name: entry.name,
    stored: "F16",
    shape: entry.shape,
    data: () => asF16(entry, source.name),
  }));
  await sink.write("model.safetensors", writeSafetensors(tensors, { format: "pt" }));
  await sink.write("tokenizer.json", jsonFile(tokenizer.tokenizer));
  await sink.write("tokenizer_config.json", jsonFile(tokenizer.config));
  await sink.write("config.json", jsonFile(config));
}

async function* asF16(entry: TensorEntry, file: string): AsyncGenerator<Uint8Array, void, undefined> {
  const { name, dtype } = entry;
  for await (const chunk of entry.stream()) {
    if (dtype === "f16") {
      yield chunk;
      continue;
    }
    if (dtype !== "f32" && dtype !== "bf16") throw new CheckpointError(`${file}: ${name} holds ${dtype}`);
    const values =
      dtype === "f32"
        ? new Float32Array(chunk.buffer, chunk.byteOffset, chunk.length / 4)
        : decode(chunk, dtype, chunk.length / 2);
    const halves = new Uint16Array(values.length);
    for (let i = 0; i < values.length; i++) {
      const half = f16Bits(values[i]!);
      if ((half & 0x7c00) === 0x7c00) {
        throw new CheckpointError(`${file}: ${name} has ${values[i]}, not a finite f16`);
      }
      halves[i] = half;
    }
    yield new Uint8Array(halves.buffer);
  }
}

async function* jsonFile(value: object): AsyncGenerator<Uint8Array, void, undefined> {
  yield new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
}
