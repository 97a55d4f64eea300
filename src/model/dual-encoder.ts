import { aString, checkArgument } from "../arguments.ts";
import { CheckpointError, PromptError } from "../errors.ts";
import {
  type NaflexProcessorSettings,
  readNaflexProcessor,
} from "../images/processors/naflex-processor-config.ts";
import type { ProcessorSettings } from "../images/processors/processor-config.ts";
import { readProcessorConfig } from "../images/processors/processor-config.ts";
import { INSPECT } from "../inspect.ts";
import { add, div, exp, mul, sqrt } from "../kernels/elementwise/elementwise.ts";
import { matmul } from "../kernels/matmul/matmul.ts";
import { sum } from "../kernels/reduction/reduce.ts";
import { adapterName } from "../tensor/adapter-name.ts";
import type { Device } from "../tensor/device.ts";
import type { Scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import {
  type NaflexConfig,
  naflexLayout,
  readNaflexConfig,
  requireSamePatchSize,
} from "./checkpoint/config/naflex-config.ts";
import { requireNeutral } from "./checkpoint/config/neutral-fields.ts";
import { readQuantisation } from "./checkpoint/config/quantisation.ts";
import {
  patchesPerSide,
  readVisionConfig,
  rowsPerImage,
  VISION_TOWER_DEFAULTS,
  type VisionConfig,
} from "./checkpoint/config/vision-config.ts";
import type { ImageLayout } from "./checkpoint/config/vision-setup.ts";
import { ConfigReader, type JsonObject } from "./checkpoint/json/config-reader.ts";
import { openCheckpoint } from "./checkpoint/open-checkpoint.ts";
import { processorJson } from "./checkpoint/processor-file.ts";
import type { Folder } from "./checkpoint/source/folder.ts";
import type { Linear } from "./checkpoint/weights/linear-layer.ts";
import { loadWeights } from "./checkpoint/weights/load-weights.ts";
import type { LoadedParts } from "./checkpoint/weights/parameters.ts";
import type { Weights } from "./checkpoint/weights/weights.ts";
import { DUAL_ENCODER_KINDS } from "./families/dual-encoder-kinds.ts";
import { type AttentionPooling, readAttentionPooling } from "./layers/towers/attention-pooling.ts";
import { NaflexTower, readNaflexTower } from "./layers/towers/naflex-tower.ts";
import {
  readTextTower,
  readTextTowerConfig,
  TEXT_TOWER_DEFAULTS,
  type TextTower,
  type TextTowerConfig,
} from "./layers/towers/text-tower.ts";
import { uploadImages } from "./layers/towers/upload-images.ts";
import { readVisionTower, type VisionTower } from "./layers/towers/vision-tower.ts";
import { checkLoad, type LoadOptions } from "./load-options.ts";
import { promptFromIds } from "./prompt/build-prompt.ts";
import type { Prompt } from "./prompt/prompt.ts";
import type { PromptImage } from "./prompt/prompt-image.ts";
import { createTokenizer, type Tokenizer } from "./prompt/tokenizer.ts";
import { showModel } from "./show-model.ts";
import { takeRows } from "./walk/forward.ts";
import type { Pass } from "./walk/pass.ts";
import type { Walk } from "./walk/site-events.ts";
import { type SiteMap, towerSites } from "./walk/site-shapes.ts";

/** The config of CLIP, SigLIP and SigLIP 2: two towers and the space that they share. */
export interface DualEncoderConfig {
  readonly kind: (typeof DUAL_ENCODER_KINDS)[number];
  readonly text: TextTowerConfig;
  readonly vision: VisionConfig | NaflexConfig;
  /** Width of the space that both towers' embeddings live in. */
  readonly embeddingWidth: number;
}

interface DualEncoderNetwork {
  readonly text: TextTower;
  readonly vision: VisionTower | NaflexTower;
  /** Text state to embedding: CLIP's projection, SigLIP's head. */
  readonly textHead: Linear;
  /** Image state to embedding: CLIP's projection of the class token, SigLIP's pooling. */
  readonly imageHead: Linear | AttentionPooling;
  /** Each a tensor of one element; SigLIP alone has a bias. */
  /** Its logarithm. */
  readonly logitScale: Tensor;
  readonly logitBias: Tensor | undefined;
}

/** CLIP (Radford et al. 2021), SigLIP (Zhai et al. 2023) or SigLIP 2 over pictures of any size (Tschannen et al. 2025): two towers whose embeddings are compared. */
export class DualEncoder {
  readonly name: string;
  readonly device: Device;
  /** Dtypes of the weights as stored, most bytes first. */
  readonly storedDtypes: readonly string[];
  /** Folders, URLs or hub ids of the LoRA adapters that are part of it. */
  readonly adapters: readonly string[];
  readonly config: DualEncoderConfig;
  readonly tokenizer: Tokenizer;
  readonly processor: ProcessorSettings;
  readonly #network: DualEncoderNetwork;
  readonly #memory: Scope;
  /** @internal What the checkpoint's tensors have become. */
  readonly loaded: LoadedParts;

  /** Use `loadDualEncoder`. */
  constructor(
    parts: Pick<
      DualEncoder,
      "name" | "device" | "storedDtypes" | "adapters" | "config" | "tokenizer" | "processor"
    >,
    network: DualEncoderNetwork,
    memory: Scope,
    loaded: LoadedParts,
  ) {
    this.name = parts.name;
    this.device = parts.device;
    this.storedDtypes = parts.storedDtypes;
    this.adapters = parts.adapters;
    this.config = parts.config;
    this.tokenizer = parts.tokenizer;
    this.processor = parts.processor;
    this.#network = network;
    this.#memory = memory;
    this.loaded = loaded;
  }

  /** `clip`, `siglip` or `siglip2`. */
  get family(): string {
    return this.config.kind;
  }

  /** What there is to tap and edit: sites without prefix are the text tower's. */
  get sites(): SiteMap {
    const { text, vision, kind } = this.config;
    const rows = vision.kind === "siglip2" ? undefined : rowsPerImage(vision); // each picture has its own
    const postNorm = { site: "vision.post_norm", features: vision.width, rows } as const;
    return {
      text: {
        ...text,
        kvHeads: text.heads,
        headDim: text.width / text.heads,
        sequences: "prompts",
        before: [{ site: "embed", features: text.width }],
        after: [{ site: "final_norm", features: text.width }],
      },
      vision: towerSites(vision, { rows, after: kind === "clip" ? [] : [postNorm] }),
    };
  }

  /** A text as the model wants it: framed, cut to the context, for SigLIP padded to it, and for SigLIP 2 in lower case. */
  prompt(text: string): Prompt {
    checkArgument("prompt", "text", text, aString);
    const { kind } = this.config;
    const { context } = this.config.text;
    const { prefix, suffix } = this.tokenizer;
    const body = this.tokenizer.encode(kind === "siglip2" ? inLowerCase(text) : text, { specials: false });
    const ids = [...prefix, ...body.slice(0, context - prefix.length - suffix.length), ...suffix];
    if (kind !== "clip") while (ids.length < context) ids.push(this.padId);
    return promptFromIds(this.tokenizer, ids, { text });
  }

  /** Of the tokenizer, which is what pads; SigLIP's own has the end token for it. Throws PromptError if it has neither. */
  get padId(): number {
    const id = this.tokenizer.idOf(this.tokenizer.specialTokens["pad_token"] ?? "</s>");
    if (id === undefined)
      throw new PromptError("texts have to be padded, but the tokenizer has no pad_token");
    return id;
  }

  /** @internal Pooled text states and their embeddings of unit length, each [texts, embeddingWidth]. */
  *encodeTexts(prompts: readonly Prompt[], pass: Pass): Walk<Embedded> {
    const { text, textHead } = this.#network;
    const states = yield* text.encode(prompts, pass);
    const rows = prompts.map((prompt, i) => pass.rows.row(i, text.pooledPosition(prompt))!);
    const pooled = textHead.apply(takeRows(states, rows));
    return { pooled, embeds: unitLength(pooled) };
  }

  /** @internal Pooled image states and their embeddings of unit length, each [images, embeddingWidth]. */
  *encodeImages(images: readonly PromptImage[], pass: Pass): Walk<Embedded> {
    const { vision, imageHead } = this.#network;
    const stream = yield* this.#streamOf(images, pass);
    let pooled: Tensor;
    if ("pool" in imageHead) {
      pooled = imageHead.pool(yield* pass.sites().pass("vision.post_norm", vision.postNorm(stream)), pass);
    } else {
      const classTokens = pass.rows.spans.map((span) => span.row);
      pooled = imageHead.apply(vision.postNorm(takeRows(stream, classTokens)));
    }
    return { pooled, embeds: unitLength(pooled) };
  }

  *#streamOf(images: readonly PromptImage[], pass: Pass): Walk<Tensor> {
    const { vision } = this.#network;
    if (vision instanceof NaflexTower) return yield* vision.stream(images, pass);
    return yield* vision.stream(
      pass.pixels(uploadImages(this.device, images, vision.config, this.processor)),
      pass,
    );
  }

  /** A picture's rows in the vision tower, and the grid of its patches. Throws ImageError for one that cannot be taken. */
  layout(image: PromptImage): Pick<ImageLayout, "towerRows" | "grid"> {
    const { vision } = this.config;
    if (vision.kind === "siglip2") return naflexLayout(image, this.processor as NaflexProcessorSettings);
    const side = patchesPerSide(vision);
    return { towerRows: rowsPerImage(vision), grid: { rows: side, columns: side } };
  }

  /** Scaled cosines of unit-length embeddings: [images, width] and [texts, width] → [images, texts]. */
  similarity(imageEmbeds: Tensor, textEmbeds: Tensor): Tensor {
    const { logitScale, logitBias } = this.#network;
    return this.device.scope(() => {
      const scaled = mul(matmul(imageEmbeds, textEmbeds.transpose()), exp(logitScale));
      return logitBias ? add(scaled, logitBias) : scaled;
    });
  }

  [INSPECT](): string {
    const facts = [`${this.config.text.vocab} tokens`, `embeddings of ${this.config.embeddingWidth}`];
    return showModel(this.constructor.name, this, facts, `on ${adapterName(this.device.info)}`);
  }

  /** Gives the weights' memory back. */
  dispose(): void {
    this.#memory.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** What a tower makes of its inputs, a row each. */
export interface Embedded {
  /** Before normalisation: [texts or pictures, embeddingWidth]. */
  readonly pooled: Tensor;
  /** The same, each row of unit length. */
  readonly embeds: Tensor;
}

/** As the texts of SigLIP 2 are, letter by letter. */
function inLowerCase(text: string): string {
  return Array.from(text, (letter) => letter.toLowerCase()).join("");
}

/** Rows of unit length: [inputs, width] → the same. */
export function unitLength(x: Tensor): Tensor {
  return div(x, sqrt(sum(mul(x, x), -1, { keepDims: true })));
}

/** Reads the parts of a checkpoint of CLIP, SigLIP or SigLIP 2. Throws CheckpointError. */
export async function loadDualEncoderParts(
  ref: string | Folder,
  options: LoadOptions,
): Promise<ConstructorParameters<typeof DualEncoder>> {
  checkLoad("loadDualEncoder", ref, options);
  const { device, merge: _, onProgress: __, quantise: ___, intermediateLayers, ...access } = options;
  if (intermediateLayers !== undefined) {
    throw new CheckpointError(
      "loadDualEncoder: the option intermediateLayers is for models of model_type mllama",
    );
  }
  await using checkpoint = await openCheckpoint(ref, access);
  const { config: json, name } = checkpoint;
  const where = `${name}/config.json`;
  const config = readConfig(json ?? {}, where);
  readQuantisation(json ?? {}, where);
  const tokenizer = createTokenizer(
    await checkpoint.json("tokenizer.json"),
    (await checkpoint.json("tokenizer_config.json")) ?? undefined,
  );
  const preprocessor = await processorJson(checkpoint);
  if (preprocessor === undefined) throw new CheckpointError(`${name}: there is no preprocessor_config.json`);
  const processor = readProcessor(preprocessor, config.vision, where);
  const { built, memory, ...loaded } = await loadWeights(
    checkpoint,
    device,
    (w) => build(w, config, processor),
    options,
  );
  const { storedDtypes } = checkpoint;
  const adapters = checkpoint.adapters.map((adapter) => adapter.name);
  return [{ name, device, storedDtypes, adapters, config, tokenizer, processor }, built, memory, loaded];
}

function readProcessor(
  preprocessor: unknown,
  vision: DualEncoderConfig["vision"],
  where: string,
): ProcessorSettings {
  if (vision.kind !== "siglip2") return readProcessorConfig(preprocessor);
  const processor = readNaflexProcessor(preprocessor);
  requireSamePatchSize(processor, vision, where);
  return processor;
}

function readConfig(json: JsonObject, where: string): DualEncoderConfig {
  const kind = DUAL_ENCODER_KINDS.find((known) => known === json["model_type"]);
  if (kind === undefined) {
    throw new CheckpointError(
      `${where}: expected a dual encoder of model_type clip, siglip or siglip2, found ${JSON.stringify(json["model_type"])}`,
    );
  }
  requireNeutral(json, where, ["transformers_weights"]);
  const c = new ConfigReader(json, where);
  const section = (key: string): JsonObject => {
    // CLIP's class lets an older spelling of a section, filled up with the defaults, stand above the section.
    const older = kind === "clip" && c.has(`${key}_dict`) ? c.object(`${key}_dict`) : undefined;
    const defaults = older && (key === "text_config" ? TEXT_TOWER_DEFAULTS.clip : VISION_TOWER_DEFAULTS.clip);
    return { ...c.object(key), ...defaults, ...older };
  };
  const text = readTextTowerConfig(
    kind === "clip" ? kind : "siglip",
    section("text_config"),
    `${where}: text_config`,
  );
  const ofKind = { ...section("vision_config"), model_type: kind };
  const vision =
    kind === "siglip2"
      ? readNaflexConfig(ofKind, `${where}: vision_config`)
      : readVisionConfig(ofKind, `${where}: vision_config`);
  const head = new ConfigReader(ofKind, `${where}: vision_config`);
  if (kind !== "clip" && !head.boolean("vision_use_head", true)) {
    throw new CheckpointError(
      `${where}: vision_config: vision_use_head false is not supported; expected true`,
    );
  }
  const projection = new ConfigReader(section("text_config"), `${where}: text_config`);
  const embeddingWidth =
    kind === "clip" ? c.count("projection_dim", 512) : projection.count("projection_size", text.width);
  return { kind, text, vision, embeddingWidth };
}

async function build(
  w: Weights,
  { kind, text, vision, embeddingWidth }: DualEncoderConfig,
  processor: ProcessorSettings,
): Promise<DualEncoderNetwork> {
  const clip = kind === "clip";
  const scaleShape = clip ? [] : [1];
  return {
    text: await readTextTower(w, text, "text_model."),
    vision:
      vision.kind === "siglip2"
        ? await readNaflexTower(w, vision, processor as NaflexProcessorSettings, "vision_model.")
        : await readVisionTower(w, vision, "vision_model."),
    textHead: clip
      ? await w.linear("text_projection", [embeddingWidth, text.width])
      : await w.linear("text_model.head", [embeddingWidth, text.width], true),
    imageHead: clip
      ? await w.linear("visual_projection", [embeddingWidth, vision.width])
      : await readAttentionPooling(w, vision, "vision_model.head."),
    logitScale: await w.tensor("logit_scale", scaleShape),
    logitBias: clip ? undefined : await w.tensor("logit_bias", [1]),
  };
}
