import { CheckpointError } from "../../errors.ts";
import { readTensor } from "../../model/checkpoint/entries/tensor-entry.ts";
import { SafetensorsFile } from "../../model/checkpoint/safetensors/safetensors.ts";
import { encodeSafetensors } from "../../model/checkpoint/safetensors/safetensors-writer.ts";
import { memorySource } from "../../model/checkpoint/source/sources.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { PlaceOrigin, VectorOrigin } from "./stored-vector.ts";

type Place = Extract<VectorOrigin, { kind: "place" }>;

/** Beside files of task vectors, which have a vector a layer. */
const FORMAT = "xpatch.activation.1";
const FIELDS = [
  "model",
  "site",
  "position",
  "promptHash",
  "weights",
] as const satisfies (keyof PlaceOrigin)[];

/** What a place of one prompt holds as the bytes of a safetensors file: `values` [positions, features], its origin as metadata. */
export async function encodePlaceVector(rows: Tensor, { origin, onePosition }: Place): Promise<Uint8Array> {
  const values = await rows.read();
  const metadata = { format: FORMAT, onePosition: `${onePosition}`, ...origin };
  const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return encodeSafetensors([{ name: "values", stored: "F32", shape: rows.shape, data }], metadata);
}

/** The inverse; undefined for files of another format. Throws CheckpointError for those that are damaged. */
export async function decodePlaceVector(
  bytes: Uint8Array<ArrayBuffer>,
  name: string,
): Promise<{ values: Float32Array; shape: readonly number[]; from: Place } | undefined> {
  const file = await SafetensorsFile.open(memorySource(bytes, name));
  const { metadata } = file;
  if (metadata.get("format") !== FORMAT) return undefined;
  const field = (key: string): string => {
    const value = metadata.get(key);
    if (value === undefined) throw new CheckpointError(`${name}: the metadata lack ${key}`);
    return value;
  };
  if (!file.has("values")) throw new CheckpointError(`${name}: there is no tensor called values`);
  const entry = file.entry("values");
  if (entry.dtype !== "f32" || entry.shape.length !== 2) {
    throw new CheckpointError(
      `${name}: expected f32 values [positions, features], found ${entry.stored} [${entry.shape.join(", ")}]`,
    );
  }
  const { buffer, byteOffset, byteLength } = await readTensor(entry);
  const origin = Object.fromEntries(FIELDS.map((key) => [key, field(key)])) as unknown as PlaceOrigin;
  const onePosition = field("onePosition") === "true";
  return {
    values: new Float32Array(buffer, byteOffset, byteLength / 4),
    shape: entry.shape,
    from: { kind: "place", origin, onePosition },
  };
}
