import {
  aFunction,
  aKindOf,
  aListOf,
  aNumber,
  checkArgument,
  checkOptions,
  type Expected,
  type Options,
  oneOf,
} from "../../arguments.ts";
import { CheckpointError, SiteError } from "../../errors.ts";
import { concat, stack } from "../../kernels/movement/concat.ts";
import { mean } from "../../kernels/reduction/reduce.ts";
import { readTensor } from "../../model/checkpoint/entries/tensor-entry.ts";
import { SafetensorsFile } from "../../model/checkpoint/safetensors/safetensors.ts";
import { encodeSafetensors } from "../../model/checkpoint/safetensors/safetensors-writer.ts";
import { memorySource } from "../../model/checkpoint/source/sources.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import { hashPrompts, type Prompt } from "../../model/prompt/prompt.ts";
import { stackOfVectors, VECTOR_SITES, type VectorSite } from "../../model/walk/sites.ts";
import { checkModelAndPrompts, onePosition } from "../../patching/arguments.ts";
import { type OnePosition, showPositions } from "../../patching/positions.ts";
import { run } from "../../patching/run.ts";
import { type Tap, tap } from "../../patching/tap.ts";
import { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { allLayers, checkLayers } from "../layers.ts";

/** Which activations {@link extractActivations} and {@link extractTaskVectors} read. */
export interface ExtractOptions {
  /**
   * Which activation of each layer. Default resid_post: in an encoder-decoder the decoder's. `encoder.resid_post` is the
   * encoder's, of a model that has one.
   */
  site?: VectorSite;
  /**
   * Which token of each prompt. Default −1, the last: of what the decoder reads, its start token where nothing has been
   * answered; of what an encoder reads, the end token of the prompt.
   */
  at?: OnePosition;
  /** Layers of that stack, ascending. Default: all. */
  layers?: readonly number[];
  /** Most tokens of prompts in one pass; bounds the memory. Default 1024. */
  batchTokens?: number;
  /** Called after each pass with the number of prompts done. */
  onProgress?: (done: number) => void;
}

export const BATCH_TOKENS = 1024;

const EXTRACT_OPTIONS: Options<ExtractOptions> = {
  site: oneOf(...VECTOR_SITES),
  at: onePosition,
  layers: aListOf(aNumber),
  batchTokens: aNumber,
  onProgress: aFunction,
};

/**
 * One activation a layer of each prompt, all layers in one pass: [prompts, layers, features]. Layers above the last one
 * asked for are not computed.
 */
export function extractActivations(
  model: LanguageModel,
  prompts: readonly Prompt[],
  options: ExtractOptions = {},
): Tensor {
  checkModelAndPrompts("extract", model, "prompts", prompts);
  checkOptions("extract", options, EXTRACT_OPTIONS);
  const { site = "resid_post", at = -1, batchTokens = BATCH_TOKENS, onProgress } = options;
  if (prompts.length === 0) throw new SiteError("extract: expected at least one prompt, found none");
  const layers = layersToExtract(model, site, options.layers);
  const taps: Record<string, Tap<OnePosition>> = {};
  for (const layer of layers) taps[`${layer}`] = tap(`${site}.${layer}`, at);
  // An encoder has been through all of its layers when the decoder begins.
  const stopAfter = stackOfVectors(site) === "encoder" ? 0 : Math.max(...layers);
  return model.device.scope(() => {
    const parts: Tensor[] = [];
    let done = 0;
    for (const batch of batches(prompts, batchTokens)) {
      parts.push(
        model.device.scope(() => {
          const tapped = run(model, batch, { taps, stopAfter });
          return stack(
            layers.map((layer) => tapped[`${layer}`] as Tensor),
            1,
          );
        }),
      );
      done += batch.length;
      onProgress?.(done);
    }
    return parts.length === 1 ? parts[0]! : concat(parts, 0);
  });
}

/** Those asked for, or all of the stack. Throws SiteError for others. */
function layersToExtract(
  model: LanguageModel,
  site: VectorSite,
  asked: readonly number[] | undefined,
): readonly number[] {
  if (asked === undefined) return allLayers(model, site, "extract");
  checkLayers(model, asked, "extract", site);
  return asked;
}

/** Where task vectors come from; travels with them when they are saved. */
export interface TaskVectorOrigin {
  /** The model's name: a folder, URL or hub id. */
  readonly model: string;
  /** Which activation, and by its name of which stack; that is where `patchOf` and `sweepLayers` put them. */
  readonly site: VectorSite;
  /** Of that stack. */
  readonly layers: readonly number[];
  /** Which token they were read at, in words. */
  readonly position: string;
  /** Number of prompts averaged, and a hash of their token ids. */
  readonly prompts: number;
  readonly promptHash: string;
  /** Dtype of the model's weights. */
  readonly weights: string;
}

/**
 * Task vectors (Hendel et al. 2023, arXiv 2310.15916; Luo et al. 2025, arXiv 2410.22330): the mean over prompts of one
 * activation, a vector a layer.
 */
export class TaskVectors {
  /** f32 [layers, features] */
  readonly vectors: Tensor;
  readonly origin: TaskVectorOrigin;

  constructor(vectors: Tensor, origin: TaskVectorOrigin) {
    this.vectors = vectors;
    this.origin = origin;
  }

  /** The vector of a layer: [features]. Throws SiteError when that layer was not extracted. */
  at(layer: number): Tensor {
    return this.vectors.at(indexOfLayer(this.origin, layer));
  }

  /** Frees the vectors. */
  dispose(): void {
    this.vectors.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

export const aTaskVectors = aKindOf(TaskVectors, "extractTaskVectors(…) makes them");
function indexOfLayer({ layers }: TaskVectorOrigin, layer: number): number {
  const index = layers.indexOf(layer);
  if (index >= 0) return index;
  throw new SiteError(`no task vector of layer ${layer}; there are those of ${layers.join(", ")}`);
}

/** Averages one activation over prompts, for all layers at once. */
export function extractTaskVectors(
  model: LanguageModel,
  prompts: readonly Prompt[],
  options: ExtractOptions = {},
): TaskVectors {
  checkModelAndPrompts("extract", model, "prompts", prompts);
  checkOptions("extract", options, EXTRACT_OPTIONS);
  using activations = extractActivations(model, prompts, options);
  return meanVectors(model, prompts, [activations], options);
}

/** Task vectors of what {@link extractActivations} gave for these prompts, in parts [prompts, layers, features] in their order. */
export function meanVectors(
  model: LanguageModel,
  prompts: readonly Prompt[],
  parts: readonly Tensor[],
  options: Pick<ExtractOptions, "site" | "at" | "layers">,
): TaskVectors {
  const { site = "resid_post", at = -1 } = options;
  const layers = layersToExtract(model, site, options.layers);
  const vectors = model.device.scope(() => mean(parts.length === 1 ? parts[0]! : concat(parts, 0), 0));
  return new TaskVectors(vectors, {
    model: model.name,
    site,
    layers: [...layers],
    position: showPositions(at),
    prompts: prompts.length,
    promptHash: hashPrompts(prompts),
    weights: model.storedDtypes[0] ?? "unknown",
  });
}

const FORMAT = "xpatch.task_vectors.1";

/** Task vectors as the bytes of a safetensors file: one tensor `vectors` [layers, features], its origin as metadata. */
export async function encodeTaskVectors(taskVectors: TaskVectors): Promise<Uint8Array<ArrayBuffer>> {
  checkArgument("encodeTaskVectors", "vectors", taskVectors, aTaskVectors);
  const { vectors, origin } = taskVectors;
  const values = await vectors.read();
  const metadata: Record<string, string> = { format: FORMAT };
  for (const [key, value] of Object.entries(origin)) metadata[key] = String(value);
  const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return encodeSafetensors([{ name: "vectors", stored: "F32", shape: vectors.shape, data }], metadata);
}

const aFilesBytes: Expected = { words: "a file's bytes, a Uint8Array", holds: ArrayBuffer.isView };
/** Task vectors in the memory of the host: a model need not be loaded to look into a file of them. */
export class StoredTaskVectors {
  /** [layers, width] */
  readonly values: Float32Array<ArrayBuffer>;
  readonly width: number;
  readonly origin: TaskVectorOrigin;

  constructor(values: Float32Array<ArrayBuffer>, width: number, origin: TaskVectorOrigin) {
    this.values = values;
    this.width = width;
    this.origin = origin;
  }

  /** The vector of a layer: `width` numbers. Throws SiteError when that layer was not extracted. */
  at(layer: number): Float32Array {
    const index = indexOfLayer(this.origin, layer);
    return this.values.subarray(index * this.width, (index + 1) * this.width);
  }

  /** The vectors on a device, to be patched in. */
  on(device: Device): TaskVectors {
    const { values, width, origin } = this;
    return new TaskVectors(device.tensor(values, { shape: [origin.layers.length, width] }), origin);
  }
}

/** The inverse of {@link encodeTaskVectors}. Throws CheckpointError for other files. */
export async function decodeTaskVectors(
  bytes: Uint8Array<ArrayBuffer>,
  device: Device,
  name = "task vectors",
): Promise<TaskVectors> {
  checkArgument("decodeTaskVectors", "bytes", bytes, aFilesBytes);
  checkArgument("decodeTaskVectors", "device", device, aKindOf(Device, "await openDevice()"));
  return (await parseTaskVectors(bytes, name)).on(device);
}

/** The same, without a device. */
export async function parseTaskVectors(
  bytes: Uint8Array<ArrayBuffer>,
  name = "task vectors",
): Promise<StoredTaskVectors> {
  const file = await SafetensorsFile.open(memorySource(bytes, name));
  const { metadata } = file;
  if (metadata.get("format") !== FORMAT || !file.has("vectors")) {
    throw new CheckpointError(`${name}: not a file of task vectors (no metadata format ${FORMAT})`);
  }
  const field = (key: string): string => {
    const value = metadata.get(key);
    if (value === undefined) throw new CheckpointError(`${name}: the metadata lack ${key}`);
    return value;
  };
  const entry = file.entry("vectors");
  const layers = field("layers").split(",").map(Number);
  const site = VECTOR_SITES.find((s) => s === field("site"));
  if (!site || entry.dtype !== "f32" || entry.shape.length !== 2 || entry.shape[0] !== layers.length) {
    throw new CheckpointError(
      `${name}: expected f32 vectors [${layers.length}, features] of a known site, found ${entry.stored} ` +
        `[${entry.shape.join(", ")}] of ${field("site")}`,
    );
  }
  const data = await readTensor(entry);
  const values = new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
  return new StoredTaskVectors(values, entry.shape[1]!, {
    model: field("model"),
    site,
    layers,
    position: field("position"),
    prompts: Number(field("prompts")),
    promptHash: field("promptHash"),
    weights: field("weights"),
  });
}

/** Cuts prompts into batches of at most so many tokens (or one prompt, where it alone has more). */
export function* batches(prompts: readonly Prompt[], tokens: number): Generator<Prompt[]> {
  let batch: Prompt[] = [];
  let size = 0;
  for (const prompt of prompts) {
    if (batch.length > 0 && size + prompt.length > tokens) {
      yield batch;
      batch = [];
      size = 0;
    }
    batch.push(prompt);
    size += prompt.length;
  }
  if (batch.length > 0) yield batch;
}
