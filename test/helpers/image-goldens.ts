import { readFileSync } from "node:fs";
import { expand, readThinned } from "../../src/parity/thinned.ts";

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
  shape: readonly number[];
  /** `OMITTED` where the file is thinned. */
  data: Uint8Array | Float32Array;
}

/** What transformers made of the images, by name (test/fixtures/preprocess/golden.safetensors): U8 and F32 tensors. */
export const preprocessGoldens: ReadonlyMap<string, Golden> = readGoldens();

function readGoldens(): Map<string, Golden> {
  const file = Uint8Array.from(
    readFileSync(new URL("../fixtures/preprocess/golden.safetensors", import.meta.url)),
  );
  const start = 8 + Number(new DataView(file.buffer).getBigUint64(0, true));
  const { __metadata__: metadata = {}, ...header } = JSON.parse(
    new TextDecoder().decode(file.subarray(8, start)),
  ) as Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> & {
    __metadata__?: Record<string, string>;
  };
  const thinned = readThinned(new Map(Object.entries(metadata)), "preprocess");
  const goldens = new Map<string, Golden>();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (dtype !== "U8" && dtype !== "F32") continue;
    const bytes = file.slice(start + data_offsets[0], start + data_offsets[1]);
    const data = dtype === "U8" ? bytes : new Float32Array(bytes.buffer);
    const rule = thinned.get(name);
    const whole = rule
      ? { shape: rule.shape, data: expand(data as Float32Array, rule, name) }
      : { shape, data };
    goldens.set(name, { dtype, ...whole });
  }
  return goldens;
}
