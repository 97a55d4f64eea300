import { expect, test } from "vitest";
import { CheckpointError } from "../../../../src/errors.ts";
import { readTensor } from "../../../../src/model/checkpoint/entries/tensor-entry.ts";
import { convertGguf } from "../../../../src/model/checkpoint/gguf/convert-gguf.ts";
import { GgufFile } from "../../../../src/model/checkpoint/gguf/gguf.ts";
import { SafetensorsFile } from "../../../../src/model/checkpoint/safetensors/safetensors.ts";
import { memorySource } from "../../../../src/model/checkpoint/source/sources.ts";
import { sizeOf } from "../../../../src/tensor/shape.ts";
import { checkpointErrorOr, collect, mutate, randomInt, watchedSource } from "../../../helpers/bytes.ts";
import { buildGguf, tinyLlama } from "../../../helpers/gguf-builder.ts";

const MUTATIONS = 10_000;

test("a damaged file is a typed error, or loads and converts to a sound one", async () => {
  const { metadata, tensors } = tinyLlama();
  const { bytes: whole, headerBytes } = buildGguf(metadata, tensors);
  let refused = 0;
  let listed = 0;
  let converted = 0;
  for (let seed = 0; seed < MUTATIONS; seed++) {
    const bytes = mutate(whole, randomInt(seed), headerBytes);
    const source = watchedSource(bytes);
    const file = await checkpointErrorOr(() => GgufFile.open(source));
    if (file instanceof CheckpointError) {
      refused++;
      continue;
    }
    listed++;
    for (const entry of file.entries) {
      expect(entry.storedBytes).toBeLessThanOrEqual(bytes.length);
      const read = await checkpointErrorOr(() => readTensor(entry));
      if (read instanceof CheckpointError) expect(read.message).toMatch(/supported are F32, F16/);
      else
        expect(read.length).toBe(
          sizeOf(entry.shape) * (entry.dtype === "f16" || entry.dtype === "bf16" ? 2 : 4),
        );
    }
    const files = new Map<string, Uint8Array<ArrayBuffer>>();
    const result = await checkpointErrorOr(() =>
      convertGguf(source, { write: async (name, chunks) => void files.set(name, await collect(chunks)) }),
    );
    if (result instanceof CheckpointError) continue;
    converted++;
    const written = await SafetensorsFile.open(memorySource(files.get("model.safetensors")!));
    expect(written.entry("model.layers.0.self_attn.q_proj.weight").shape).toEqual([32, 32]);
    JSON.parse(new TextDecoder().decode(files.get("tokenizer.json")!));
  }
  expect(refused).toBeGreaterThan(MUTATIONS / 4);
  expect(listed - converted).toBeGreaterThan(MUTATIONS / 50);
  expect(converted).toBeGreaterThan(MUTATIONS / 50);
});
