import {
  aBoolean,
  aFunction,
  aListOf,
  aNumber,
  anArray,
  anObject,
  aString,
  checkArgument,
  checkOptions,
  either,
  type Options,
} from "../arguments.ts";
import { PromptError, ShapeError } from "../errors.ts";
import { Tape, type Watched } from "../gradient/tape.ts";
import { add, mul } from "../kernels/elementwise/elementwise.ts";
import { takeAlongAxis } from "../kernels/movement/gather.ts";
import { mean } from "../kernels/reduction/reduce.ts";
import { logSoftmax } from "../kernels/reduction/softmax.ts";
import type { Folder } from "../model/checkpoint/source/folder.ts";
import { DualEncoder, type Embedded, loadDualEncoderParts } from "../model/dual-encoder.ts";
import type { LoadOptions } from "../model/load-options.ts";
import { checkPrompt } from "../model/prompt/check-prompt.ts";
import { checkContext, type Prompt } from "../model/prompt/prompt.ts";
import { aPicture } from "../model/prompt/prompt-arguments.ts";
import type { PromptImage } from "../model/prompt/prompt-image.ts";
import { Pass } from "../model/walk/pass.ts";
import { RowMap } from "../model/walk/row-map.ts";
import type { Walk } from "../model/walk/site-events.ts";
import type { SiteName, SitePrefix } from "../model/walk/sites.ts";
import { drive } from "../model/walk/walk.ts";
import type { Device } from "../tensor/device.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { aPrompt, checkEdits, checkTaps, somePositions } from "./arguments.ts";
import type { Edit } from "./edit.ts";
import { defaultKeepBytes, watchWeights, weightGradients } from "./gradients.ts";
import type { Positions } from "./positions.ts";
import { resolveTaps } from "./resolve-taps.ts";
import type { TapLists } from "./run.ts";
import { matchSites, type SitePattern, type SitesOf } from "./site-patterns.ts";
import type { Batch } from "./site-targets.ts";
import { gradient, type Taps } from "./tap.ts";
import { resolveEdits, Watcher } from "./watcher.ts";

/** What a run of both towers made: [images, texts], and states and embeddings of each. */
export interface DualRun {
  readonly similarity: Tensor;
  readonly text: Embedded;
  readonly image: Embedded;
}

/** A number made of a run of both towers; of several, their sum counts. */
export type DualMetric = (run: DualRun) => Tensor;

/** What the gradients of a dual encoder's metric are taken by. */
export interface DualGradientOptions<Pattern extends SitePattern = SitePattern> {
  /** Sites of either tower, by names and patterns. */
  of?: Pattern | readonly Pattern[];
  /** Positions of texts, and rows of pictures. Default all. */
  at?: Positions;
  /** Weights, by the names that the checkpoint has them under. */
  weights?: readonly string[];
  edits?: readonly Edit[];
  /** Whether the result is to have the gradients of the pictures' pixel values, as the processor makes them. */
  pixels?: boolean;
  /** See `GradientOptions`. */
  keepBytes?: number;
}

const GRADIENT_OPTIONS: Options<DualGradientOptions> = {
  of: either(aString, aListOf(aString)),
  at: somePositions,
  weights: aListOf(aString),
  edits: anArray,
  pixels: aBoolean,
  keepBytes: aNumber,
};

/** A metric of embeddings with its gradients. */
export interface DualGradients<Pattern extends SitePattern> {
  readonly metric: Tensor<"f32">;
  /** By site, a tensor for each text or picture. */
  readonly gradients: { [Site in SitesOf<Pattern>]: Tensor<"f32">[] };
  readonly weights: Readonly<Record<string, Tensor<"f32">>>;
  /** f32 [pictures, 3, size, size], if asked for. */
  readonly pixels: Tensor<"f32"> | undefined;
}

/** Taps and edits of a tower's pass. */
export interface EncodeOptions<T extends Taps = Record<never, never>> {
  taps?: T;
  edits?: readonly Edit[];
}

/** Pooled states and embeddings of unit length, each [inputs, width], and the taps as for a list of prompts. */
export type EncodeResult<T> = TapLists<T> & { pooled: Tensor<"f32">; embeds: Tensor<"f32"> };

/** Loads a CLIP or SigLIP checkpoint. Throws CheckpointError for what is damaged, missing or of another kind. */
export async function loadDualEncoder(
  ref: string | Folder,
  options: LoadOptions,
): Promise<PatchableDualEncoder> {
  return new PatchableDualEncoder(...(await loadDualEncoderParts(ref, options)));
}

/**
 * A CLIP or SigLIP model whose activations can be read and changed. Sites of the text tower have plain names
 * (`resid_post.3`), those of the vision tower the prefix `vision.`.
 *
 * @example
 * const { embeds: i } = clip.images([picture]);
 * const { embeds: t } = clip.texts(["a photo of a cat", "a photo of a dog"]);
 * const logits = await clip.similarity(i, t).read();
 */
export class PatchableDualEncoder extends DualEncoder {
  /** Embeds texts (strings, or prompts made by `prompt`). Throws SiteError and PromptError like `run`. */
  texts<const T extends Taps = Record<never, never>>(
    inputs: readonly (string | Prompt)[],
    options: EncodeOptions<T> = {},
  ): EncodeResult<T> {
    return finished(this.device, () => this.#texts(inputs, options));
  }

  /** Embeds pictures. Throws SiteError, PromptError and ImageError. */
  images<const T extends Taps = Record<never, never>>(
    images: readonly PromptImage[],
    options: EncodeOptions<T> = {},
  ): EncodeResult<T> {
    return finished(this.device, () => this.#images(images, options));
  }

  /**
   * The gradient of a metric of texts and pictures with respect to activations of both towers and to weights: one pass through each
   * and one back. A tap's list of sites may name sites of both; results are as for lists of prompts.
   *
   * Throws as `texts`, `images` and `PatchableModel.gradients` do.
   *
   * @example clip.gradients({ texts, images }, contrastiveLoss, { of: ["resid_post.*", "vision.resid_post.*"] });
   */
  gradients<const Pattern extends SitePattern = never>(
    {
      texts,
      images,
    }: { readonly texts: readonly (string | Prompt)[]; readonly images: readonly PromptImage[] },
    metric: DualMetric,
    options: DualGradientOptions<Pattern>,
  ): DualGradients<Pattern> {
    checkArgument("gradients", "metric", metric, aFunction);
    checkOptions("gradients", options, GRADIENT_OPTIONS);
    const { of, at = "all", weights = [], edits = [] } = options;
    const sites = of === undefined ? [] : matchSites(this.sites, [of].flat() as SitePattern[]);
    const { device } = this;
    return device.scope(() => {
      using tape = new Tape(device, { keepBytes: options.keepBytes ?? defaultKeepBytes(device) });
      const watched = watchWeights(tape, this.loaded, this.name, weights);
      const ofTower = (vision: boolean) => {
        const own = ({ site }: { readonly site: SiteName }) => site.startsWith("vision.") === vision;
        const wanted = sites.filter((site) => own({ site }));
        return {
          taps: (wanted.length > 0 ? { gradients: gradient(wanted, at) } : {}) as Taps,
          edits: edits.filter(own),
        };
      };
      let watchedPixels: Watched | undefined;
      const onPixels = (pixels: Tensor) => {
        watchedPixels = tape.watch(pixels);
      };
      const value = tape.record(() => {
        const text = this.#texts(texts, ofTower(false), tape);
        const image = this.#images(images, ofTower(true), tape, options.pixels ? onPixels : undefined);
        const similarity = this.similarity(image.embedded.embeds, text.embedded.embeds);
        return { text, image, metric: metric({ similarity, text: text.embedded, image: image.embedded }) };
      });
      tape.backward(value.metric);
      const found = [value.text, value.image].map(({ watcher }) => {
        watcher.takeGradients();
        return watcher.finish()["gradients"] ?? {};
      });
      return {
        metric: value.metric,
        gradients: Object.assign({}, ...found),
        weights: weightGradients(tape, watched),
        pixels: watchedPixels && tape.gradient(watchedPixels),
      } as unknown as DualGradients<Pattern>;
    });
  }

  #texts(inputs: readonly (string | Prompt)[], options: EncodeOptions<Taps>, tape?: Tape): Encoded {
    checkArgument("texts", "inputs", inputs, aListOf(either(aString, aPrompt)));
    const prompts = inputs.map((input) => (typeof input === "string" ? this.prompt(input) : input));
    for (const prompt of prompts) {
      checkContext(prompt.length, this.config.text.context);
      checkPrompt(prompt, { tokenizer: this.tokenizer, config: { vocab: this.config.text.vocab } });
    }
    const batch = { prompts, images: prompts.map(() => []) };
    const rows = RowMap.packed(prompts.map((p) => p.length));
    return this.#encode(batch, rows, "", options, (pass) => this.encodeTexts(prompts, pass), tape);
  }

  #images(
    images: readonly PromptImage[],
    options: EncodeOptions<Taps>,
    tape?: Tape,
    onPixels?: (pixels: Tensor) => void,
  ): Encoded {
    checkArgument("images", "images", images, aListOf(aPicture));
    const counts = images.map((image) => this.layout(image).towerRows);
    const rows = RowMap.packed(counts);
    const batch = { prompts: [], images: counts.map((towerRows) => [{ towerRows, tokens: 0 }]) };
    return this.#encode(
      batch,
      rows,
      "vision.",
      options,
      (pass) => this.encodeImages(images, pass),
      tape,
      onPixels,
    );
  }

  /** To be called in a scope. */
  #encode(
    batch: Batch,
    rows: RowMap,
    prefix: SitePrefix,
    options: EncodeOptions<Taps>,
    encode: (pass: Pass) => Walk<Embedded>,
    tape?: Tape,
    onPixels?: (pixels: Tensor) => void,
  ): Encoded {
    const call = prefix === "" ? "texts" : "images";
    checkOptions(call, options, { taps: anObject, edits: anArray });
    const { taps = {}, edits = [] } = options;
    checkTaps(call, taps, { gradients: tape !== undefined });
    checkEdits(call, edits);
    if (batch.images.length === 0) throw new PromptError("encode: expected at least one input, found none");
    const { device } = this;
    const watcher = new Watcher(
      resolveEdits(edits, this.sites, device, batch),
      resolveTaps(taps, this.sites, batch, false),
      tape,
    );
    const uses = watcher.uses.bind(watcher);
    const pass = Pass.over(device, batch.prompts, {
      rows,
      inUse: uses,
      prefix,
      ...(onPixels && { onPixels }),
    });
    return { watcher, embedded: drive(encode(pass), watcher) };
  }
}

/** The results of a tower, in the caller's scope. */
function finished<T>(device: Device, encode: () => Encoded): EncodeResult<T> {
  return device.scope(() => {
    const { watcher, embedded } = encode();
    return { ...watcher.finish(), ...embedded } as EncodeResult<T>;
  });
}

/** What a tower made, and who watched it. */
interface Encoded {
  readonly watcher: Watcher;
  readonly embedded: Embedded;
}

/**
 * The loss that CLIP is trained on, of as many texts as pictures, the i-th of one belonging to the i-th of the other: mean cross
 * entropy of each picture among the texts and of each text among the pictures (Radford et al. 2021, arXiv 2103.00020).
 */
export function contrastiveLoss({ similarity }: Pick<DualRun, "similarity">): Tensor {
  const [images, texts] = similarity.shape as [number, number];
  if (images !== texts) {
    throw new ShapeError(`contrastiveLoss: expected as many texts as pictures, found ${texts} and ${images}`);
  }
  const own = Uint32Array.from({ length: images }, (_, i) => i);
  const ids = similarity.device.tensor(own, { dtype: "u32", shape: [images, 1] });
  const ofRows = (x: Tensor) => mean(takeAlongAxis(logSoftmax(x), ids));
  return mul(add(ofRows(similarity), ofRows(similarity.transpose())), -0.5);
}
