import { readFileSync } from "node:fs";

export const IMAGES = new URL("../fixtures/images/", import.meta.url);

/** The bytes of a file under test/fixtures/images. */
export function imageFile(name: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(readFileSync(new URL(name, IMAGES)));
}

export const preprocessCase = JSON.parse(
  readFileSync(new URL("../fixtures/preprocess/case.json", import.meta.url), "utf8"),
) as {
  configs: Record<string, Record<string, unknown>>;
  images: { name: string }[];
  resize: { image: string; width: number; height: number; filter: string }[];
};

interface Golden {
  dtype: string;
  shape: number[];
  data: Uint8Array | Float32Array;
}

/** What transformers made of the images, by name (test/fixtures/preprocess/golden.safetensors): U8 and F32 tensors. */
export const preprocessGoldens: ReadonlyMap<string, Golden> = readGoldens();

function readGoldens(): Map<string, Golden> {
  const file = Uint8Array.from(
    readFileSync(new URL("../fixtures/preprocess/golden.safetensors", import.meta.url)),
  );
  const start = 8 + Number(new DataView(file.buffer).getBigUint64(0, true));
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> =
    JSON.parse(new TextDecoder().decode(file.subarray(8, start)));
  const goldens = new Map<string, Golden>();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (dtype !== "U8" && dtype !== "F32") continue;
    const bytes = file.slice(start + data_offsets[0], start + data_offsets[1]);
    goldens.set(name, { dtype, shape, data: dtype === "U8" ? bytes : new Float32Array(bytes.buffer) });
  }
  return goldens;
}
