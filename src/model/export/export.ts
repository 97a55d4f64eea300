import { aFunction, aKindOf, checkArgument, checkOptions, type Options, oneOf } from "../../arguments.ts";
import { CheckpointError } from "../../errors.ts";
import { Device } from "../../tensor/device.ts";
import { type DType, isFloat } from "../../tensor/dtype.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { Checkpoint } from "../checkpoint/checkpoint.ts";
import { asFloats, floatBytes } from "../checkpoint/entries/float-chunks.ts";
import {
  commonName,
  EMBEDDING,
  HEAD,
  isEmbedding,
  publishedName,
  spellingOf,
} from "../checkpoint/entries/module-names.ts";
import type { PackedSource } from "../checkpoint/entries/packed-source.ts";
import { sameTensor } from "../checkpoint/entries/same-tensor.ts";
import { padded, readTensor, type TensorEntry } from "../checkpoint/entries/tensor-entry.ts";
import type { StoredUpdate } from "../checkpoint/lora/adapter.ts";
import { floatRuns, turnedRuns } from "../checkpoint/packing/float-runs.ts";
import { ownConfig, ownTensors } from "../checkpoint/packing/own-folder.ts";
import { packing } from "../checkpoint/packing/pack.ts";
import { writeSafetensors } from "../checkpoint/safetensors/safetensors-writer.ts";
import { type FolderSink, jsonFile } from "../checkpoint/source/folder-sink.ts";
import { checkWeights, type QuantisedMatrix } from "../checkpoint/weights/check-weights.ts";
import { type LowRankUpdate, merged } from "../checkpoint/weights/low-rank.ts";
import { aQuantise, type Quantise } from "../checkpoint/weights/quantise.ts";
import { readModelFiles } from "../model-files.ts";
import { exportedConfig, keptConfig } from "./export-config.ts";
import { copyFiles, wholeJson, writeRespeltFiles } from "./export-files.ts";

/** The dtypes that a model can be written in, by the names of the safetensors format and of PyTorch. */
export const EXPORT_DTYPES = {
  f32: { stored: "F32", torch: "float32" },
  f16: { stored: "F16", torch: "float16" },
  bf16: { stored: "BF16", torch: "bfloat16" },
} as const;

/** `f32`, `f16` or `bf16`: what weights are stored in. */
export type ExportDType = keyof typeof EXPORT_DTYPES;

/** How {@link exportModel} writes. */
export interface ExportOptions {
  /** Of all float tensors; unless given, each keeps the one that it has on the GPU. */
  dtype?: ExportDType;
  /**
   * Weights to write in 4 or 8 bits, in a form that xpatch alone reads (`packing/own-folder.ts`). What the checkpoint has quantised is
   * then written as it is, and otherwise unpacked.
   */
  quantise?: Quantise;
  /** Called as tensors are written. */
  onProgress?: (progress: { writtenBytes: number; totalBytes: number }) => void;
}

/**
 * Writes a model as one complete Hugging Face folder: adapters merged (in f32, then rounded once to the dtype written), the parts of an
 * assembled model put together. Language models, and LLaVA and its relatives, are written such that transformers 4.46 and 5 read them
 * alike: tokens respelt, tensors under the names of published checkpoints. Models of other families keep the names, config and
 * processors of their own folder, so what read that reads this. Unneeded tensors of a dtype that is not read are left out. Weights are
 * [out, in], as checkpoints have them. One tensor at a time is in memory. config.json comes last, so a folder that has it is complete.
 *
 * Throws CheckpointError for what `loadModel` would not load, and for a weight beyond the dtype's range.
 */
export async function exportModel(
  checkpoint: Checkpoint,
  device: Device,
  sink: FolderSink,
  options: ExportOptions = {},
): Promise<void> {
  checkArgument("exportModel", "checkpoint", checkpoint, aKindOf(Checkpoint, "await openCheckpoint(…)"));
  checkArgument("exportModel", "device", device, aKindOf(Device, "await openDevice()"));
  const known: Options<ExportOptions> = {
    dtype: oneOf(...Object.keys(EXPORT_DTYPES)),
    quantise: aQuantise,
    onProgress: aFunction,
  };
  checkOptions("exportModel", options, known);
  const { dtype, quantise, onProgress } = options;
  const { family, decoder, config } = await readModelFiles(checkpoint);
  const { transposed, quantised } = await checkWeights(
    checkpoint,
    device,
    (weights) => family.build(weights, decoder, config),
    quantise,
  );
  const ownProcessor = family.processor?.(decoder); // throws where names cannot be written
  const isRespelt = !decoder.encoder && (!decoder.vision || ownProcessor !== undefined);
  if (!isRespelt && decoder.tied) await refuseUntied(checkpoint);

  const entries = checkpoint.entries.filter((entry) => entry.problem === undefined);
  for (const entry of entries) {
    for (const read of [entry, ...checkpoint.updatesOf(entry.name).flatMap(({ a, b }) => [a, b])])
      read.expect?.();
  }
  const totalBytes = entries.reduce((sum, entry) => sum + entry.byteLength, 0);
  let readBytes = 0;
  const hasEmbedding = entries.some((entry) => commonName(entry.name) === EMBEDDING);
  const embeddingName = spellingOf(checkpoint.names)(EMBEDDING)!;
  const nameOf = ({ name }: TensorEntry) => {
    if (!isRespelt) return name;
    // Where a tied model has its one matrix as the head, 4.46 would not find it.
    const moved = decoder.tied && !hasEmbedding && commonName(name) === HEAD;
    if (!decoder.vision) return moved ? embeddingName : name;
    return publishedName(moved ? EMBEDDING : name);
  };
  const matrices = new Map<string, WrittenMatrix>();
  const tensors = entries.flatMap((entry) => {
    const { shape } = entry;
    const name = nameOf(entry);
    const isTurned = transposed.has(entry.name);
    const matrix = writtenMatrix(entry, quantised.get(entry.name), quantise !== undefined, isTurned, () =>
      elements(checkpoint, device, entry, entry.dtype, isTurned),
    );
    if (matrix) {
      matrices.set(name, matrix);
      readBytes += entry.byteLength;
      return ownTensors(name, matrix.source);
    }
    const as = dtype && isFloat(entry.dtype) ? dtype : entry.dtype;
    const stored = as === "i32" || as === "u32" ? as.toUpperCase() : EXPORT_DTYPES[as].stored;
    const data = async function* () {
      yield* elements(checkpoint, device, entry, as, isTurned);
      readBytes += entry.byteLength;
      onProgress?.({ writtenBytes: readBytes, totalBytes });
    };
    return [{ name, stored, shape, data }];
  });
  await sink.write("model.safetensors", writeSafetensors(tensors, { format: "pt" }));
  await checkpoint.verify();

  const most =
    dtype ?? (["f16", "bf16"] as const).find((d) => EXPORT_DTYPES[d].stored === checkpoint.storedDtypes[0]);
  const torch = EXPORT_DTYPES[most ?? "f32"].torch;
  const whole = (await wholeJson(checkpoint, "config.json")) ?? config;
  const quantization = matrices.size > 0 && { quantization_config: ownConfig(matrices) };
  if (isRespelt) {
    await writeRespeltFiles(checkpoint, config, ownProcessor, sink);
    const tied = decoder.tied && !(await hasOwnHead(checkpoint));
    const written = exportedConfig(whole, { ...decoder, tied }, torch);
    await sink.write("config.json", jsonFile({ ...written, ...quantization }));
  } else {
    await copyFiles(checkpoint, family.tokenizers ?? [], sink);
    await sink.write("config.json", jsonFile({ ...keptConfig(whole, torch), ...quantization }));
  }
}

interface WrittenMatrix {
  readonly source: PackedSource;
  readonly shape: readonly [number, number];
}

/** How a tensor is written packed; undefined for one that is written as floats. */
function writtenMatrix(
  entry: TensorEntry,
  asked: QuantisedMatrix | undefined,
  keepsPacked: boolean,
  transposed: boolean,
  stream: TensorEntry["stream"],
): WrittenMatrix | undefined {
  const { name, packed, dtype } = entry;
  if (packed && asked) {
    throw new CheckpointError(
      `${name} is stored in ${packed.format.kind}; quantising that again would lose twice: quantise what it was made from`,
    );
  }
  if (packed && keepsPacked) return { source: packed, shape: entry.shape as [number, number] };
  if (packed && transposed) {
    throw new CheckpointError(`${name} is quantised and transposed, which cannot be exported as floats`);
  }
  if (!asked) return undefined;
  const floats = { dtype, stream };
  const runs = transposed ? () => turnedRuns(floats, asked.shape) : (run: number) => floatRuns(floats, run);
  return { source: packing(name, asked.format, asked.shape, runs), shape: asked.shape };
}

/** Throws where the output matrix is not the embedding, as config.json, which stays as it is, says that it is. */
async function refuseUntied(checkpoint: Checkpoint): Promise<void> {
  const changed = checkpoint.names.some(
    (name) => (isEmbedding(name) || commonName(name) === HEAD) && checkpoint.updatesOf(name).length > 0,
  );
  if (!changed && !(await hasOwnHead(checkpoint))) return;
  throw new CheckpointError(
    `${checkpoint.name}: expected an output matrix that is the embedding, as config.json says (tie_word_embeddings), found one that ` +
      "differs from it; of this family such a model cannot be exported",
  );
}

/** Whether a model that is said to be tied has an output matrix of its own. */
async function hasOwnHead(checkpoint: Checkpoint): Promise<boolean> {
  const find = (name: string) => checkpoint.entries.find((entry) => commonName(entry.name) === name);
  const [head, embedding] = [find(HEAD), find(EMBEDDING)];
  if (!head || !embedding) return false;
  return checkpoint.updatesOf(head.name).length > 0 || !(await sameTensor(head, embedding));
}

/** A tensor's elements, with what adapters add. */
async function* elements(
  checkpoint: Checkpoint,
  device: Device,
  entry: TensorEntry,
  dtype: DType,
  transposed: boolean,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
  const updates = checkpoint.updatesOf(entry.name);
  if (updates.length > 0) {
    const values = await mergedValues(device, entry, updates, transposed);
    const bad = values.find((value) => !Number.isFinite(value));
    if (bad !== undefined) {
      throw new CheckpointError(`${checkpoint.name}: ${entry.name} with its adapters has ${bad}`);
    }
    yield floatBytes(values, dtype, `${checkpoint.name}: ${entry.name}`);
  } else if (isFloat(dtype)) yield* asFloats(entry, dtype, checkpoint.name);
  else yield* entry.stream();
}

async function mergedValues(
  device: Device,
  weight: TensorEntry,
  updates: readonly StoredUpdate[],
  transposed: boolean,
): Promise<Float32Array> {
  const scope = device.openScope();
  const upload = async (entry: TensorEntry): Promise<Tensor> => {
    const bytes = await readTensor(entry);
    return scope.enter(() => {
      const tensor = device.empty(entry.shape, entry.dtype, entry.name);
      device.write(tensor, padded(bytes));
      return tensor;
    });
  };
  try {
    const whole = await upload(weight);
    const uploaded: LowRankUpdate[] = [];
    for (const update of updates) {
      const { scale } = update;
      const [a, b] = [await upload(update.a), await upload(update.b)];
      // What is added to a weight [in, out] is the transpose of B A.
      uploaded.push(
        transposed ? scope.enter(() => ({ a: b.transpose(), b: a.transpose(), scale })) : { a, b, scale },
      );
    }
    const sum = scope.enter(() => merged(whole, uploaded)) as Tensor<"f32">;
    return await sum.read();
  } finally {
    scope.dispose();
  }
}
