import { memoryFolder } from "../../src/index.ts";
import { encodeSafetensors } from "../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import type { Folder } from "../../src/model/checkpoint/source/folder.ts";

/** The numbers of scripts/make-sae-goldens.py: multiples of 1/4096. */
export function ruleNumbers(count: number, seed: number, scale = 1): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => {
    const step = BigInt(i + 1) * 7919n + BigInt(seed) * 104729n;
    return ((Number(step % 2003n) - 1001) / 4096) * scale;
  });
}

const NAMES = [
  ...["W_enc", "W_dec", "b_enc", "b_dec", "b_gate", "b_mag", "r_mag", "threshold"],
  "finetuning_scaling_factor",
];

/** The tensors of an architecture, by that rule. */
export function ruleWeights(
  architecture: string,
  width: number,
  latents: number,
  also: readonly string[] = [],
): Map<string, { shape: number[]; values: Float32Array }> {
  const encoder = architecture === "gated" ? ["b_gate", "b_mag", "r_mag"] : ["b_enc"];
  const names = [
    "W_enc",
    "W_dec",
    "b_dec",
    ...encoder,
    ...(architecture === "jumprelu" ? ["threshold"] : []),
    ...also,
  ];
  return new Map(
    names.map((name) => {
      const shape =
        name === "W_enc"
          ? [width, latents]
          : name === "W_dec"
            ? [latents, width]
            : [name === "b_dec" ? width : latents];
      const values = ruleNumbers(
        shape.reduce((a, b) => a * b),
        NAMES.indexOf(name) + 1,
      );
      const moved =
        name === "threshold"
          ? values.map(Math.abs)
          : name === "finetuning_scaling_factor"
            ? values.map((x) => x + 1)
            : values;
      return [name, { shape, values: moved }];
    }),
  );
}

/** A folder as SAELens writes one. */
export async function saeFolder(
  cfg: Record<string, unknown> | undefined,
  weights: ReadonlyMap<string, { shape: readonly number[]; values: Float32Array }> | undefined,
  more: Readonly<Record<string, Uint8Array>> = {},
): Promise<Folder> {
  const files = new Map<string, Uint8Array>(Object.entries(more));
  if (cfg) files.set("cfg.json", new TextEncoder().encode(JSON.stringify(cfg)));
  if (weights) files.set("sae_weights.safetensors", await f32File(weights));
  return memoryFolder(files, "sae");
}

export function f32File(
  tensors: ReadonlyMap<string, { shape: readonly number[]; values: Float32Array }>,
): Promise<Uint8Array<ArrayBuffer>> {
  return encodeSafetensors(
    [...tensors].map(([name, { shape, values }]) => ({
      name,
      stored: "F32",
      shape,
      data: new Uint8Array(values.buffer as ArrayBuffer, values.byteOffset, values.byteLength),
    })),
    {},
  );
}
