import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { seededNumbers } from "./compare.ts";
import { testDevice } from "./device.ts";

/** The fixtures of text models: every family, and within a family what differs by config. */
export const TEXT_FIXTURES = [
  ...["llama", "llama-gqa-tied", "llama-rope-llama3", "llama-biases", "mistral"],
  ...["gpt2", "gpt_neox", "gpt_neox-sequential", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"],
  ...["olmo2", "phi3", "phi3-longrope", "opt", "persimmon"],
];

const loaded = new Map<string, Promise<PatchableModel>>();

/** The checkpoint of test/fixtures/<name>, on the default device; loaded once a test file. */
export function fixtureModel(name: string): Promise<PatchableModel> {
  let model = loaded.get(name);
  if (!model) {
    model = testDevice().then((device) => loadModel(`test/fixtures/${name}/model`, { device }));
    loaded.set(name, model);
  }
  return model;
}

/** Token ids that the tokenizers of all text fixtures have. */
export function randomIds(length: number, seed: number): number[] {
  const next = seededNumbers(seed);
  return Array.from({ length }, () => 20 + Math.floor((next() + 1) * 140));
}

/** Values of tensors by name. Disposes of the tensors. */
export async function readAll<K extends string>(
  tensors: Readonly<Record<K, Tensor | undefined>>,
): Promise<Record<K, Float32Array>> {
  const entries = Object.entries(tensors).filter(([, tensor]) => tensor) as [K, Tensor<"f32">][];
  const [first] = entries;
  const values = first ? await first[1].device.read(entries.map(([, tensor]) => tensor)) : [];
  for (const [, tensor] of entries) tensor.dispose();
  return Object.fromEntries(entries.map(([name], i) => [name, values[i]])) as Record<K, Float32Array>;
}
