import type { Device } from "../tensor/device.ts";
import { type DType, isFloat } from "../tensor/dtype.ts";
import { CheckpointError } from "../tensor/errors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { StoredUpdate } from "./adapter.ts";
import { declaresTied } from "./adapter-embeddings.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { isObject, type JsonObject } from "./config.ts";
import { asFloats, floatBytes } from "./float-chunks.ts";
import { type FolderSink, jsonFile } from "./folder-sink.ts";
import { readModelFiles } from "./language-model.ts";
import { type LowRankUpdate, merged } from "./low-rank.ts";
import { commonName, HEAD } from "./module-names.ts";
import { writeSafetensors } from "./safetensors-writer.ts";
import { padded, readTensor, type TensorEntry } from "./tensor-entry.ts";
import type { VisionSetup } from "./vision-setup.ts";
import { checkWeights } from "./weights.ts";
import { parseWholeFloats } from "./whole-floats.ts";

/** The dtypes that a model can be written in, by the names of the safetensors format and of PyTorch. */
export const EXPORT_DTYPES = {
  f32: { stored: "F32", torch: "float32" },
  f16: { stored: "F16", torch: "float16" },
  bf16: { stored: "BF16", torch: "bfloat16" },
} as const;

export type ExportDType = keyof typeof EXPORT_DTYPES;

export interface ExportOptions {
  /** Of all float tensors; unless given, each keeps the one that it has on the GPU. */
  dtype?: ExportDType;
  /** Called as tensors are written. */
  onProgress?: (progress: { writtenBytes: number; totalBytes: number }) => void;
}

/** Files that go along as they are. */
const COPIED = [
  ...["tokenizer.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json"],
  ...["preprocessor_config.json", "processor_config.json", "generation_config.json"],
];

/**
 * Writes a model as one complete Hugging Face folder: adapters merged (in f32, then rounded once to the dtype written), the
 * parts of an assembled model put together, tokens respelt. Weights are [out, in], as checkpoints have them. One tensor at
 * a time is in memory. config.json comes last, so a folder that has it is complete.
 *
 * Throws CheckpointError for what `loadModel` would not load, and for a weight beyond the dtype's range.
 */
export async function exportModel(
  checkpoint: Checkpoint,
  device: Device,
  sink: FolderSink,
  { dtype, onProgress }: ExportOptions = {},
): Promise<void> {
  const { family, decoder, config } = await readModelFiles(checkpoint);
  await checkWeights(checkpoint, device, (weights) => family.build(weights, decoder, config));

  const totalBytes = checkpoint.entries.reduce((sum, entry) => sum + entry.byteLength, 0);
  let readBytes = 0;
  const tensors = checkpoint.entries.map((entry) => {
    const { name, shape } = entry;
    const as = dtype && isFloat(entry.dtype) ? dtype : entry.dtype;
    const stored = as === "i32" || as === "u32" ? as.toUpperCase() : EXPORT_DTYPES[as].stored;
    const data = async function* () {
      yield* elements(checkpoint, device, entry, as);
      readBytes += entry.byteLength;
      onProgress?.({ writtenBytes: readBytes, totalBytes });
    };
    return { name, stored, shape, data };
  });
  await sink.write("model.safetensors", writeSafetensors(tensors, { format: "pt" }));
  await checkpoint.verify();

  for (const path of COPIED) {
    const text = await checkpoint.text(path);
    if (text !== undefined) await sink.write(path, textFile(text));
  }
  await sink.write("tokenizer_config.json", jsonFile(await tokenizerConfig(checkpoint)));
  const missing = async (path: string) => (await checkpoint.text(path)) === undefined;
  if (decoder.vision && (await missing("processor_config.json"))) {
    await sink.write("processor_config.json", jsonFile(processorConfig(decoder.vision)));
  }
  if (await missing("generation_config.json")) {
    await sink.write("generation_config.json", jsonFile(generationConfig(config)));
  }
  const most =
    dtype ?? (["f16", "bf16"] as const).find((d) => EXPORT_DTYPES[d].stored === checkpoint.storedDtypes[0]);
  const text = await checkpoint.text("config.json");
  const whole = text === undefined ? config : parseWholeFloats(text);
  const written = withDType(whole, EXPORT_DTYPES[most ?? "f32"].torch);
  const hasHead = checkpoint.names.some((name) => commonName(name) === HEAD);
  await sink.write("config.json", jsonFile(hasHead && declaresTied(written) ? untied(written) : written));
}

/** A tensor's elements, with what adapters add. */
async function* elements(
  checkpoint: Checkpoint,
  device: Device,
  entry: TensorEntry,
  dtype: DType,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
  const updates = checkpoint.updatesOf(entry.name);
  if (updates.length > 0) {
    const values = await mergedValues(device, entry, updates);
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
    for (const { a, b, scale } of updates) {
      uploaded.push({ a: await upload(a), b: await upload(b), scale });
    }
    const sum = scope.enter(() => merged(whole, uploaded)) as Tensor<"f32">;
    return await sum.read();
  } finally {
    scope.dispose();
  }
}

async function* textFile(text: string): AsyncGenerator<Uint8Array, void, undefined> {
  yield new TextEncoder().encode(text);
}

/** Of a class that follows tokenizer.json in everything, as is done here; those for one family may rebuild parts of it. */
async function tokenizerConfig(checkpoint: Checkpoint): Promise<JsonObject> {
  const config = await checkpoint.json("tokenizer_config.json");
  return { ...(isObject(config) ? config : {}), tokenizer_class: "PreTrainedTokenizerFast" };
}

/** What a LLaVA's processor has to know beside its preprocessor_config.json. */
function processorConfig({ imageToken, tower, keepsClassToken }: VisionSetup): JsonObject {
  return {
    processor_class: "LlavaProcessor",
    image_token: imageToken,
    patch_size: tower.patchSize,
    num_additional_image_tokens: tower.kind === "clip" ? 1 : 0,
    vision_feature_select_strategy: keepsClassToken ? "full" : "default",
  };
}

function generationConfig(config: JsonObject): JsonObject {
  const text = isObject(config["text_config"]) ? config["text_config"] : config;
  const ids = ["bos_token_id", "eos_token_id", "pad_token_id"].map((key) => [key, config[key] ?? text[key]]);
  return Object.fromEntries(ids.filter(([, id]) => id !== undefined));
}

/** A config that says that the output matrix is one of its own, for what would not look for it. */
function untied(config: JsonObject): JsonObject {
  const text = config["text_config"];
  return {
    ...config,
    tie_word_embeddings: false,
    ...(isObject(text) && { text_config: { ...text, tie_word_embeddings: false } }),
  };
}

/** The config with this dtype in place of all that it names. */
function withDType(config: JsonObject, dtype: string): JsonObject {
  const without = (json: JsonObject): JsonObject =>
    Object.fromEntries(
      Object.entries(json)
        .filter(([key]) => key !== "dtype" && key !== "torch_dtype")
        .map(([key, value]) => [key, isObject(value) ? without(value) : value]),
    );
  return { ...without(config), torch_dtype: dtype };
}
