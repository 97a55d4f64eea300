import { expect, test } from "vitest";
import { CheckpointError } from "../../../../src/errors.ts";
import { readTensor } from "../../../../src/model/checkpoint/entries/tensor-entry.ts";
import { SafetensorsFile } from "../../../../src/model/checkpoint/safetensors/safetensors.ts";
import { writeSafetensors } from "../../../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { STORED_DTYPES } from "../../../../src/model/checkpoint/safetensors/stored-dtype.ts";
import { sizeOf } from "../../../../src/tensor/shape.ts";
import { checkpointErrorOr, collect, mutate, randomInt, watchedSource } from "../../../helpers/bytes.ts";

const MUTATIONS = 10_000;

/** What JSON.parse makes of the header: an oracle that shares nothing with the reader. */
function plainHeader(bytes: Uint8Array): Record<string, unknown> {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  return JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
}

test("a damaged file is a typed error, or loads as its header says", async () => {
  const data = (n: number) => Uint8Array.from({ length: n }, (_, i) => i);
  const whole = await collect(
    writeSafetensors(
      [
        { name: "model.embed.weight", stored: "F32", shape: [3, 4], data: data(48) },
        { name: "model.norm.weight", stored: "BF16", shape: [5], data: data(10) },
        { name: "position_ids", stored: "I64", shape: [1, 2], data: new Uint8Array(16) },
        { name: "scalar", stored: "F8_E4M3", shape: [], data: data(1) },
        { name: "empty", stored: "F16", shape: [0, 7], data: data(0) },
      ],
      { format: "pt", note: "fuzz" },
    ),
  );
  const headerBytes = 8 + Number(new DataView(whole.buffer).getBigUint64(0, true));
  let loaded = 0;
  let refused = 0;
  for (let seed = 0; seed < MUTATIONS; seed++) {
    const bytes = mutate(whole, randomInt(seed), headerBytes);
    const source = watchedSource(bytes);
    const file = await checkpointErrorOr(() => SafetensorsFile.open(source));
    if (file instanceof CheckpointError) {
      refused++;
      continue;
    }
    loaded++;
    const { __metadata__, ...tensors } = plainHeader(bytes);
    expect(Object.fromEntries(file.metadata)).toEqual(__metadata__ ?? {});
    expect([...file.names].sort()).toEqual(Object.keys(tensors).sort());
    for (const entry of file.entries) {
      const [begin, end] = (tensors[entry.name] as { data_offsets: [number, number] }).data_offsets;
      expect(tensors[entry.name]).toMatchObject({ dtype: entry.stored, shape: entry.shape });
      expect(entry.storedBytes).toBe(end - begin);
      expect(entry.storedBytes).toBe(sizeOf(entry.shape) * STORED_DTYPES.get(entry.stored)!.bytes);
      const read = await checkpointErrorOr(() => readTensor(entry));
      // Only 64-bit integers can fail now, having become too large.
      if (read instanceof CheckpointError) expect(entry.stored).toMatch(/^[IU]64$/);
      else expect(read.length).toBe(entry.byteLength);
    }
  }
  // The mutations are worth something only if many are caught and some are harmless.
  expect(refused).toBeGreaterThan(MUTATIONS / 4);
  expect(loaded).toBeGreaterThan(MUTATIONS / 100);
});
