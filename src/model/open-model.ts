import type { Device } from "../tensor/device.ts";
import type { Checkpoint } from "./checkpoint/checkpoint.ts";
import { commonName, HEAD, isEmbedding, spellingOf } from "./checkpoint/entries/module-names.ts";
import { ggufModel } from "./checkpoint/gguf-model.ts";
import { type CheckpointOptions, openCheckpoint } from "./checkpoint/open-checkpoint.ts";
import type { Folder } from "./checkpoint/source/folder.ts";
import { loadWeights } from "./checkpoint/weights/load-weights.ts";
import type { WeightOptions } from "./checkpoint/weights/weights.ts";
import { ModelOutline, type ModelParts, type OutlineParts } from "./language-model.ts";

import { checkLoad, type LoadOptions, type ReadOptions } from "./load-options.ts";
import { type ModelFiles, readModelFiles } from "./model-files.ts";
import { noteIsPacked } from "./walk/shared-steps.ts";
/**
 * Loads a Hugging Face checkpoint: a folder, a URL, a hub id such as `HuggingFaceTB/SmolLM2-135M-Instruct`, or a model that
 * comes with xpatch by its name (`xpatch:vlm`); see
 * `openCheckpoint` for assembled models and adapters. Throws CheckpointError for what is damaged, missing or not
 * supported.
 */
export async function loadParts(ref: string | Folder, options: LoadOptions): Promise<ModelParts> {
  checkLoad("loadModel", ref, options);
  const { device, merge, onProgress, quantise, ...access } = options;
  await using opened = await OpenModel.open(ref, access);
  return await opened.load({
    device,
    ...(merge !== undefined && { merge }),
    ...(onProgress && { onProgress }),
    ...(quantise !== undefined && { quantise }),
  });
}

/** A checkpoint whose config and tokenizer have been read, but not its weights: prompts can be made and checked. */
export class OpenModel {
  readonly outline: ModelOutline;
  readonly #checkpoint: Checkpoint;
  readonly #files: ModelFiles;
  readonly #parts: OutlineParts;

  private constructor(checkpoint: Checkpoint, files: ModelFiles) {
    this.#checkpoint = checkpoint;
    this.#files = files;
    this.#parts = {
      ...files,
      name: checkpoint.name,
      family: files.family.modelType,
      imageRules: files.family.imageRules?.(files.decoder),
      storedDtypes: checkpoint.storedDtypes,
      adapters: checkpoint.adapters.map(({ name }) => name),
      matrixNames: matrixNames(checkpoint),
    };
    this.outline = new ModelOutline(this.#parts);
  }

  /** Throws CheckpointError, as {@link loadParts} does. */
  static async open(
    ref: string | Folder,
    { intermediateLayers, ...options }: CheckpointOptions & ReadOptions = {},
  ): Promise<OpenModel> {
    const opened = await openCheckpoint(ref, options);
    try {
      const checkpoint = ggufModel(opened);
      const read = intermediateLayers === undefined ? {} : { intermediateLayers };
      return new OpenModel(checkpoint, await readModelFiles(checkpoint, read));
    } catch (error) {
      await opened.close();
      throw error;
    }
  }

  /** Reads the weights. */
  async load(options: WeightOptions & { device: Device }): Promise<ModelParts> {
    const { family, decoder, config } = this.#files;
    const {
      built: network,
      memory,
      ...loaded
    } = await loadWeights(
      this.#checkpoint,
      options.device,
      (weights) => family.build(weights, decoder, config),
      options,
    );
    const layers = [...loaded.linears.values()].flatMap((module) => module.layers);
    if (layers.some(({ layer }) => !layer.weight.tensor)) noteIsPacked(network);
    return { ...this.#parts, network, memory, loaded };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#checkpoint.close();
  }
}

/** With the output matrix, which a tied model's files do not name, and without the embedding, which is no linear layer. */
function matrixNames({ entries }: Checkpoint): string[] {
  const matrices = entries.filter(({ name, shape }) => shape.length === 2 && name.endsWith(".weight"));
  const names = matrices.map(({ name }) => name).filter((name) => !isEmbedding(name));
  const head = names.some((name) => commonName(name) === HEAD) ? [] : [spellingOf(names)(HEAD)!];
  return [...names, ...head].map((name) => name.slice(0, -".weight".length));
}
