import type { Command } from "commander";
import { platform } from "#platform";
import { CheckpointError, DeviceError, type XpatchError } from "../../errors.ts";
import type { Checkpoint } from "../../model/checkpoint/checkpoint.ts";
import type { DecoderConfig } from "../../model/checkpoint/config/decoder-config.ts";
import { readQuantisation } from "../../model/checkpoint/config/quantisation.ts";
import type { LoraAdapter } from "../../model/checkpoint/lora/adapter.ts";
import { openCheckpoint } from "../../model/checkpoint/open-checkpoint.ts";
import { familyFiles } from "../../model/families/pictures/parts/family-files.ts";
import { familyOf } from "../../model/families/registry.ts";
import { findChatTemplates } from "../../model/prompt/find-chat-template.ts";
import { createTokenizer, type Tokenizer } from "../../model/prompt/tokenizer.ts";
import { layersWith, siteInfo, siteNames } from "../../model/walk/site-info.ts";
import { type SiteMap, siteMapOf } from "../../model/walk/site-shapes.ts";
import type { AdapterChoice } from "../../platform/platform.ts";
import { adapterName } from "../../tensor/adapter-name.ts";
import { type Shape, sizeOf } from "../../tensor/shape.ts";
import { newCommand } from "../options/command.ts";
import { addModelArgument, checkpointOptions, givenModel, type ModelArguments } from "../options/session.ts";
import { printResult } from "../terminal/output.ts";
import { formatInspection } from "./inspect-text.ts";

/** Something that could not be found out, and why. */
export interface Problem {
  readonly problem: string;
}

export interface TensorReport {
  readonly name: string;
  readonly stored: string;
  readonly shape: Shape;
  readonly bytes: number;
}

export interface SiteReport {
  /** With `N` for the layer. */
  readonly site: string;
  /** For a site of the layers, how many there are; and which have it, if not all. */
  readonly layers?: number;
  readonly only?: readonly number[];
  /** Sizes; `rows` (tokens) and `keys` depend on the run. In the vision tower the rows are those of one image. */
  readonly shape: readonly (number | "rows" | "keys")[];
  /** Heads that the last size divides into. */
  readonly heads?: number;
}

export interface ArchitectureReport {
  readonly family: string;
  readonly config: DecoderConfig;
  readonly sites: readonly SiteReport[];
}

export interface TokenizerReport {
  readonly size: number;
  readonly specialTokens: Readonly<Record<string, string>>;
  /** Put in front of and behind every prompt. */
  readonly prefix: readonly string[];
  /** The prefix goes behind the prompt's images, where it has any. */
  readonly prefixBehindImages?: true;
  readonly suffix: readonly string[];
  readonly chatTemplate: boolean;
}

export interface MemoryReport {
  readonly adapter: string;
  readonly weightBytes: number;
  /** Keys and values, for each token of a generation. Missing where the architecture is not known. */
  readonly cacheBytesPerToken?: number;
  /** Those that cross-attention keeps, for each image. */
  readonly cacheBytesPerImage?: number;
  readonly maxBufferBytes: number;
  readonly maxBindingBytes: number;
  /** Tensors that no buffer of this adapter holds. */
  readonly tooLarge: readonly string[];
  /** Tensors that are bound in several windows. */
  readonly windowed: readonly string[];
}

/** A LoRA adapter on top of the tensors. */
export interface LoraReport {
  readonly name: string;
  /** Linear layers that it changes. */
  readonly layers: number;
  /** From the least to the greatest. */
  readonly ranks: readonly number[];
  /** Whole tensors that it brings along (`modules_to_save`). */
  readonly replaced: readonly string[];
  readonly parameters: number;
  readonly bytes: number;
}

export interface InspectReport {
  readonly checkpoint: string;
  readonly files: readonly { readonly name: string; readonly metadata: Readonly<Record<string, unknown>> }[];
  readonly parameters: number;
  readonly bytes: number;
  readonly dtypes: readonly { readonly dtype: string; readonly bytes: number }[];
  /** Without what adapters add. */
  readonly tensors: readonly TensorReport[];
  readonly adapters: readonly LoraReport[];
  /** These three are missing for a lone file. */
  readonly architecture?: ArchitectureReport | Problem;
  readonly tokenizer?: TokenizerReport | Problem;
  readonly memory?: MemoryReport | Problem;
}

interface Arguments extends ModelArguments {
  readonly tensors?: boolean;
}

export function inspectCommand(): Command {
  const command = newCommand(
    "inspect",
    "What is in a checkpoint: architecture, sites, tensors, tokenizer, memory",
    [
      "inspect HuggingFaceTB/SmolLM2-135M-Instruct",
      "inspect xpatch:smollm2 --tensors",
      "inspect xpatch:smollm2 --lora ./adapter",
      "inspect model.gguf",
    ],
  );
  return addModelArgument(command, ", or a lone .safetensors or .gguf file")
    .option("--tensors", "list every tensor of a model; JSON and lone files always do")
    .action(async (model: string | undefined, args: Arguments) => {
      const report = await inspect(givenModel(model, args, command));
      printResult(report, args.json, (r) => formatInspection(r, { everyTensor: args.tensors ?? false }));
    });
}

async function inspect(args: Arguments): Promise<InspectReport> {
  await using checkpoint = await openCheckpoint(args.model, checkpointOptions(args));
  const { name, entries, files, config } = checkpoint;
  const bytesOf = new Map<string, number>();
  for (const { stored, storedBytes } of entries)
    bytesOf.set(stored, (bytesOf.get(stored) ?? 0) + storedBytes);
  const contents = {
    checkpoint: name,
    files: files.map((file) => ({ name: file.name, metadata: plainMetadata(file.metadata) })),
    parameters: entries.reduce((sum, entry) => sum + sizeOf(entry.shape), 0),
    bytes: checkpoint.storedBytes,
    dtypes: [...bytesOf].map(([dtype, bytes]) => ({ dtype, bytes })).sort((a, b) => b.bytes - a.bytes),
    tensors: entries.map(({ name, stored, shape, storedBytes: bytes }) => ({ name, stored, shape, bytes })),
    adapters: checkpoint.adapters.map(loraReport),
  };
  if (!config) return contents;
  const tokenizer = await orProblem(CheckpointError, () => openTokenizer(checkpoint));
  const architecture = await orProblem(CheckpointError, () => architectureOf(checkpoint, tokenizer));
  const decoder = "problem" in architecture ? undefined : architecture.config;
  return {
    ...contents,
    architecture,
    tokenizer: "problem" in tokenizer ? tokenizer : await tokenizerReport(checkpoint, tokenizer, decoder),
    memory: await orProblem(DeviceError, () => memoryOn(args.adapter, checkpoint, decoder)),
  };
}

function loraReport({ name, entries }: LoraAdapter): LoraReport {
  const all = [...entries];
  const halves = all.filter(([key]) => key.endsWith(".lora_A.weight"));
  const ranks = new Set(halves.map(([, { shape }]) => shape[0]!));
  return {
    name,
    layers: halves.length,
    ranks: [...ranks].sort((a, b) => a - b),
    replaced: all.flatMap(([key]) => (/\.lora_[AB]\./.test(key) ? [] : [key])),
    parameters: all.reduce((sum, [, { shape }]) => sum + sizeOf(shape), 0),
    bytes: all.reduce((sum, [, { storedBytes }]) => sum + storedBytes, 0),
  };
}

/** What `find` gives, or the message of the error of this kind that it throws. */
async function orProblem<T>(kind: typeof XpatchError, find: () => Promise<T>): Promise<T | Problem> {
  try {
    return await find();
  } catch (error) {
    if (!(error instanceof kind)) throw error;
    return { problem: error.message };
  }
}

/** Metadata as JSON can hold it; the vocabularies in a GGUF file only by their length. */
function plainMetadata(metadata: ReadonlyMap<string, unknown>): Record<string, unknown> {
  const plain: Record<string, unknown> = {};
  for (const [key, value] of metadata) {
    if (typeof value === "bigint") plain[key] = `${value}`;
    else if (typeof value === "object" && value !== null) {
      plain[key] = `${(value as ArrayLike<unknown>).length} values`;
    } else plain[key] = value;
  }
  return plain;
}

async function openTokenizer(checkpoint: Checkpoint): Promise<Tokenizer> {
  const config = (await checkpoint.json("tokenizer_config.json")) ?? undefined;
  return createTokenizer(await checkpoint.json("tokenizer.json"), config);
}

async function tokenizerReport(
  checkpoint: Checkpoint,
  tokenizer: Tokenizer,
  decoder: DecoderConfig | undefined,
): Promise<TokenizerReport> {
  const spell = (ids: readonly number[]) => ids.map((id) => tokenizer.tokenOf(id));
  const files = {
    jinja: await checkpoint.text("chat_template.jinja"),
    json: await checkpoint.json("chat_template.json"),
    processorConfig: await checkpoint.json("processor_config.json"),
    tokenizerConfig: await checkpoint.json("tokenizer_config.json"),
  };
  const family = decoder && familyOf(checkpoint.config!, checkpoint.name);
  const frame = decoder && family?.imageRules?.(decoder)?.bosBehindImages;
  const { bosId } = tokenizer;
  const around = frame
    ? {
        prefix: spell(bosId === undefined ? [] : [bosId]),
        suffix: [frame.end],
        prefixBehindImages: true as const,
      }
    : { prefix: spell(tokenizer.prefix), suffix: spell(tokenizer.suffix) };
  return {
    size: tokenizer.size,
    specialTokens: tokenizer.specialTokens,
    ...around,
    chatTemplate: Object.keys(findChatTemplates(files, true)).length > 0,
  };
}

async function architectureOf(
  checkpoint: Checkpoint,
  tokenizer: Tokenizer | Problem,
): Promise<ArchitectureReport> {
  const where = `${checkpoint.name}/config.json`;
  const family = familyOf(checkpoint.config!, where);
  readQuantisation(checkpoint.config!, where);
  const processor = await checkpoint.json("processor_config.json");
  const own = "problem" in tokenizer ? undefined : tokenizer;
  const files = await familyFiles(checkpoint, family, own, processor);
  const config = family.readConfig(checkpoint.config!, where, files);
  return { family: family.modelType, config, sites: sitesOf(siteMapOf(config)) };
}

/** Sites outside the layers, and those of a layer once for all. */
function sitesOf(map: SiteMap): SiteReport[] {
  return siteNames(map).flatMap((name): SiteReport[] => {
    const info = siteInfo(map, name);
    const { stack, layer, layout, features, heads, sequences, imageRows, imageKeys } = info;
    const having = layer === undefined ? [] : layersWith(map, info);
    if (layer !== having[0]) return [];
    const { layers } = map[stack]!;
    const rows = imageRows ?? "rows";
    const inLayers = layer !== undefined && { layers, ...(having.length < layers && { only: having }) };
    const label = layer === undefined ? name : name.replace(/\d+$/, "N");
    if (layout === "attention") {
      const keys = sequences === "images" ? (imageKeys ?? "keys") : "keys";
      return [{ site: label, ...inLayers, shape: [heads!, rows, keys] }];
    }
    return [{ site: label, ...inLayers, shape: [rows, features!], ...(heads && { heads }) }];
  });
}

/** Layers that keep keys and values of the text. */
function selfLayers({ layers, cross }: DecoderConfig): number {
  return layers - (cross?.replaces ? cross.layers.length : 0);
}

/** Keys and values that cross-attention makes of an image. */
function cacheOfImages({ cross, vision }: DecoderConfig): Pick<MemoryReport, "cacheBytesPerImage"> {
  const rows = vision?.fixed?.latents;
  if (!cross || rows === undefined) return {};
  return { cacheBytesPerImage: 2 * 4 * cross.layers.length * cross.kvHeads * cross.headDim * rows };
}

async function memoryOn(
  choice: AdapterChoice | undefined,
  { entries }: Checkpoint,
  config: DecoderConfig | undefined,
): Promise<MemoryReport> {
  const { info, limits } = await platform.requestAdapter({ adapter: choice });
  const { maxBufferSize, maxStorageBufferBindingSize } = limits;
  const over = (limit: number) => entries.filter((entry) => entry.byteLength > limit).map(({ name }) => name);
  return {
    adapter: adapterName(info),
    weightBytes: entries.reduce((sum, entry) => sum + entry.byteLength, 0),
    // Keys and values are kept in f32.
    ...(config && { cacheBytesPerToken: 2 * 4 * selfLayers(config) * config.kvHeads * config.headDim }),
    ...(config && cacheOfImages(config)),
    maxBufferBytes: maxBufferSize,
    maxBindingBytes: maxStorageBufferBindingSize,
    tooLarge: over(maxBufferSize),
    windowed: over(maxStorageBufferBindingSize),
  };
}
