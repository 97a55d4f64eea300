import {
  aBoolean,
  aFunction,
  aKindOf,
  aNumber,
  aString,
  checkArgument,
  checkOptions,
  type Options,
} from "../../arguments.ts";
import { CheckpointError } from "../../errors.ts";
import { div, mul } from "../../kernels/elementwise/elementwise.ts";
import { MAX_TOP_K } from "../../kernels/reduction/top-k.ts";
import { asFloats } from "../../model/checkpoint/entries/float-chunks.ts";
import { padded, readTensor, type TensorEntry } from "../../model/checkpoint/entries/tensor-entry.ts";
import { aCheckpointRef, folderOf } from "../../model/checkpoint/open-checkpoint.ts";
import type { SafetensorsFile } from "../../model/checkpoint/safetensors/safetensors.ts";
import { closeAll, type OpenFiles, openTensorFile } from "../../model/checkpoint/safetensors/tensor-files.ts";
import {
  checkPath,
  type Folder,
  missingFile,
  readJsonObject,
  subfolder,
} from "../../model/checkpoint/source/folder.ts";
import type { HubOptions } from "../../model/checkpoint/source/hub-folder.ts";
import { Device } from "../../tensor/device.ts";
import { decode } from "../../tensor/dtype.ts";
import { type Shape, sameShape, showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { readSaeConfig, type SaeConfig } from "./sae-config.ts";
import { type SaeWeights, SparseAutoencoder } from "./sparse-autoencoder.ts";

/** Where {@link loadSparseAutoencoder} reads from, and what it loads onto. */
export interface LoadSaeOptions extends HubOptions {
  device: Device;
  /** The folder within `ref`, as SAELens' releases have one for each hook: `blocks.8.hook_resid_pre`. */
  folder?: string;
  /**
   * For `normalize_activations: "expected_average_only_in"`: what activations are multiplied by, √width over their mean norm (SAELens'
   * `norm_scaling_factor`; the folder does not have it). 1 where it has been folded into the weights.
   */
  normScalingFactor?: number;
  /**
   * Whether it was trained on a model whose writing weights TransformerLens had centred (`center_writing_weights`, which is done to models
   * with LayerNorm, as GPT-2 and Pythia, alone). Each activation then loses its mean before it is encoded.
   */
  centred?: boolean;
  /** Told of the bytes of weights that have been read. */
  onProgress?: (progress: { loadedBytes: number; totalBytes: number }) => void;
}

const OPTIONS: Options<LoadSaeOptions> = {
  device: aKindOf(Device, "await openDevice()"),
  folder: aString,
  normScalingFactor: { words: "a number above 0", holds: (x) => aNumber.holds(x) && (x as number) > 0 },
  centred: aBoolean,
  onProgress: aFunction,
  revision: aString,
  accessToken: aString,
  fetch: aFunction,
  onDownload: aFunction,
};

const CONFIG = "cfg.json";
const WEIGHTS = "sae_weights.safetensors";
const SPARSITY = "sparsity.safetensors";

/** Names that factors of latents have had. */
const SCALES: readonly string[] = ["finetuning_scaling_factor", "scaling_factor"];

const CONVERT =
  "in Python, SAELens reads and rewrites it: SAE.from_pretrained(release, sae_id).save_model(folder), and that folder is read here";
/** Files of other layouts, and what they are. */
const OTHER_LAYOUTS: readonly (readonly [file: string, what: string])[] = [
  ["params.npz", "Gemma Scope's"],
  ["params.safetensors", "Gemma Scope 2's"],
  ["ae.pt", "dictionary_learning's, a pickle"],
  ["sae.safetensors", "EleutherAI's sparsify's"],
  ["hyperparams.json", "Llama Scope's"],
];

/**
 * Loads a sparse autoencoder from a folder of SAELens (versions 3 to 6: cfg.json and sae_weights.safetensors, with sparsity.safetensors
 * if it is there), a URL or the hub. Architectures standard, gated, jumprelu and topk; transcoders and other layouts are refused by
 * name. Weights are kept in the config's dtype, and sums are in f32.
 *
 * Throws CheckpointError for what is damaged, missing, or would be computed otherwise than SAELens does.
 *
 * @example const sae = await loadSparseAutoencoder("jbloom/GPT2-Small-SAEs-Reformatted", { device, folder: "blocks.8.hook_resid_pre", centred: true });
 */
export async function loadSparseAutoencoder(
  ref: string | Folder,
  options: LoadSaeOptions,
): Promise<SparseAutoencoder> {
  checkArgument("loadSparseAutoencoder", "ref", ref, aCheckpointRef);
  checkOptions("loadSparseAutoencoder", options, OPTIONS, { required: ["device"] });
  const { device, folder: path = ".", normScalingFactor, centred, onProgress, ...access } = options;
  if (path !== ".") checkPath(path, "loadSparseAutoencoder, folder");
  const marks = [CONFIG, ...OTHER_LAYOUTS.map(([file]) => file)].map((file) =>
    path === "." ? file : `${path}/${file}`,
  );
  const folder = subfolder(await folderOf(ref, access, marks), path);
  const where = `${folder.name}/${CONFIG}`;
  const values = await readJsonObject(folder, CONFIG);
  if (!values) throw new CheckpointError(await withoutConfig(folder));
  const config = readSaeConfig(values, where);
  const settings = settingsOf(config, { normScalingFactor, centred }, where);
  const opened: OpenFiles = [];
  const memory = device.openScope();
  try {
    const file = await openTensorFile(folder, WEIGHTS, opened);
    if (!file) throw new CheckpointError(await withoutWeights(folder));
    const entries = entriesOf(file, config, where);
    await checkUnusedScale(file, config, where);
    const weights: Record<string, Tensor> = {};
    const progress = {
      loadedBytes: 0,
      totalBytes: [...entries.values()].reduce((n, e) => n + e.byteLength, 0),
    };
    for (const [name, entry] of entries) {
      weights[name] = memory.enter(() => device.empty(entry.shape, config.dtype, name));
      await fill(weights[name], entry, config, where);
      progress.loadedBytes += entry.byteLength;
      onProgress?.({ ...progress });
    }
    const folded = memory.enter(() => fold(weights as unknown as SaeWeights, settings.scale));
    const logSparsity = await readSparsity(folder, config.latents, opened);
    return new SparseAutoencoder({
      name: folder.name,
      config,
      centred: settings.centred,
      weights: folded,
      logSparsity,
      memory,
    });
  } catch (error) {
    memory.dispose();
    throw error;
  } finally {
    await closeAll(opened);
  }
}

/** What the config leaves to the caller. Throws CheckpointError where that is missing, or is not used. */
function settingsOf(
  config: SaeConfig,
  { normScalingFactor, centred }: { normScalingFactor: number | undefined; centred: boolean | undefined },
  where: string,
): { scale: number; centred: boolean } {
  if (config.expectsNormScale !== (normScalingFactor !== undefined)) {
    throw new CheckpointError(
      config.expectsNormScale
        ? `${where}: normalize_activations is expected_average_only_in, whose factor the folder does not have: give normScalingFactor, ` +
            "√d_in over the mean norm of the activations (SAELens lists it as norm_scaling_factor), or 1 if it has been folded in"
        : `${where}: a normScalingFactor was given, but normalize_activations is not expected_average_only_in`,
    );
  }
  if (config.centred === true && centred === undefined) {
    throw new CheckpointError(
      `${where}: center_writing_weights is true, which TransformerLens does to models with LayerNorm alone: give centred, true for those ` +
        "(GPT-2, Pythia), false for others",
    );
  }
  if (config.centred === false && centred) {
    throw new CheckpointError(`${where}: centred was given, but center_writing_weights is false`);
  }
  if (centred && !/^(resid_|attn_out|mlp_out)/.test(config.site)) {
    throw new CheckpointError(
      `${where}: centred was given, but ${config.site} is the same in centred weights`,
    );
  }
  return { scale: normScalingFactor ?? 1, centred: centred ?? false };
}

/** The tensors that the architecture has, and those that it need not have; no others. Throws CheckpointError. */
function entriesOf(
  file: SafetensorsFile,
  config: SaeConfig,
  where: string,
): Map<keyof SaeWeights, TensorEntry> {
  const { width, latents, architecture } = config;
  const shapes: Record<string, Shape> = {
    W_enc: [width, latents],
    W_dec: [latents, width],
    b_dec: [width],
    ...(architecture === "gated"
      ? { b_gate: [latents], b_mag: [latents], r_mag: [latents] }
      : { b_enc: [latents] }),
    ...(architecture === "jumprelu" && { threshold: [latents] }),
  };
  const entries = new Map<keyof SaeWeights, TensorEntry>();
  const take = (name: string, as: string, shape: Shape) => {
    const entry = file.entry(name);
    if (entry.problem) throw new CheckpointError(entry.problem);
    if (!sameShape(entry.shape, shape)) {
      throw new CheckpointError(
        `${file.name}: expected ${name} ${showShape(shape)} (d_in ${width}, d_sae ${latents}), found ${showShape(entry.shape)}`,
      );
    }
    entries.set(as as keyof SaeWeights, entry);
  };
  for (const [name, shape] of Object.entries(shapes)) take(name, name, shape);
  const scaling = SCALES.find((name) => file.has(name));
  if (config.finetuningScale) {
    if (scaling === undefined)
      throw new CheckpointError(`${where}: finetuning_scaling_factor is true, but ${file.name} has none`);
    take(scaling, "finetuning_scaling_factor", [latents]);
  }
  const known = new Set([...Object.keys(shapes), scaling]);
  const stray = file.names.filter((name) => !known.has(name));
  if (stray.length > 0) {
    throw new CheckpointError(
      `${file.name}: ${stray.join(", ")}: no weights of architecture ${architecture}`,
    );
  }
  if (config.k !== undefined && config.k > Math.min(latents, MAX_TOP_K)) {
    throw new CheckpointError(
      `${where}: expected k to be at most ${Math.min(latents, MAX_TOP_K)}, found ${config.k}`,
    );
  }
  return entries;
}

/** Throws CheckpointError for factors that the config does not say are used, unless they are all 1, as early versions wrote them. */
async function checkUnusedScale(file: SafetensorsFile, config: SaeConfig, where: string): Promise<void> {
  const scaling = SCALES.find((name) => file.has(name));
  if (config.finetuningScale || scaling === undefined) return;
  const entry = file.entry(scaling);
  if (entry.problem) throw new CheckpointError(entry.problem);
  const values = decode(
    await readTensor(entry),
    entry.dtype,
    entry.shape.reduce((a, b) => a * b, 1),
  );
  // What SAELens takes for 1.
  const other = values.find((value) => !(Math.abs(value - 1) <= 1e-5));
  if (other === undefined) return;
  throw new CheckpointError(
    `${file.name}: expected ${scaling} to be 1 everywhere, since ${where} does not set finetuning_scaling_factor, found ${other}`,
  );
}

/** Brings a tensor to the device in the config's dtype, rounded as SAELens rounds it. */
async function fill(tensor: Tensor, entry: TensorEntry, { dtype }: SaeConfig, where: string): Promise<void> {
  let at = 0;
  for await (const chunk of asFloats(entry, dtype, where)) {
    tensor.device.write(tensor, padded(chunk), at);
    at += chunk.length;
    await tensor.device.sync(); // so that no more of it waits on the host
  }
}

/** Weights that take activations as they are, for those that were trained on multiplied ones. */
function fold(weights: SaeWeights, scale: number): SaeWeights {
  if (scale === 1) return weights;
  const { W_enc, W_dec, b_dec } = weights;
  const folded = { W_enc: mul(W_enc, scale), W_dec: div(W_dec, scale), b_dec: div(b_dec, scale) };
  for (const old of [W_enc, W_dec, b_dec]) old.dispose();
  return { ...weights, ...folded };
}

async function readSparsity(
  folder: Folder,
  latents: number,
  opened: OpenFiles,
): Promise<Float32Array | undefined> {
  const file = await openTensorFile(folder, SPARSITY, opened);
  if (!file) return undefined;
  const entry = file.entry("sparsity");
  if (entry.problem) throw new CheckpointError(entry.problem);
  if (!sameShape(entry.shape, [latents])) {
    throw new CheckpointError(
      `${file.name}: expected sparsity [${latents}], found ${showShape(entry.shape)}`,
    );
  }
  return Float32Array.from(decode(await readTensor(entry), entry.dtype, latents));
}

/** What to say of a folder without a config. */
async function withoutConfig(folder: Folder): Promise<string> {
  const missing = `${folder.name}: there is no ${missingFile(folder, CONFIG)}`;
  const other = await otherLayout(folder);
  return other ? `${missing}; ${other}` : `${missing}; expected a folder that SAELens' save_model wrote`;
}

async function withoutWeights(folder: Folder): Promise<string> {
  const missing = `${folder.name}: there is no ${missingFile(folder, WEIGHTS)}`;
  const other = await otherLayout(folder);
  return other ? `${missing}; ${other}` : missing;
}

async function otherLayout(folder: Folder): Promise<string | undefined> {
  for (const [file, what] of OTHER_LAYOUTS) {
    const source = await folder.open(file);
    await source?.close();
    if (source) return `${file} is ${what}, and ${CONVERT}`;
  }
  return undefined;
}
