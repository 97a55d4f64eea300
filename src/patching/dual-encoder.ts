import { aListOf, anArray, anObject, aString, checkArgument, checkOptions, either } from "../arguments.ts";
import { PromptError } from "../errors.ts";
import { rowsPerImage } from "../model/checkpoint/config/vision-config.ts";
import type { Folder } from "../model/checkpoint/source/folder.ts";
import { DualEncoder, loadDualEncoderParts } from "../model/dual-encoder.ts";
import type { LoadOptions } from "../model/language-model.ts";
import { checkPrompt } from "../model/prompt/check-prompt.ts";
import { checkContext, type Prompt } from "../model/prompt/prompt.ts";
import { aPicture } from "../model/prompt/prompt-arguments.ts";
import type { PromptImage } from "../model/prompt/prompt-image.ts";
import { Pass } from "../model/walk/pass.ts";
import { RowMap } from "../model/walk/row-map.ts";
import type { Walk } from "../model/walk/site-events.ts";
import type { SitePrefix } from "../model/walk/sites.ts";
import { drive } from "../model/walk/walk.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { aPrompt, checkEdits, checkTaps } from "./arguments.ts";
import type { Edit } from "./edit.ts";
import { resolveTaps } from "./resolve-taps.ts";
import type { TapLists } from "./run.ts";
import type { Batch } from "./site-targets.ts";
import type { Taps } from "./tap.ts";
import { resolveEdits, Watcher } from "./watcher.ts";

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
    checkArgument("texts", "inputs", inputs, aListOf(either(aString, aPrompt)));
    const prompts = inputs.map((input) => (typeof input === "string" ? this.prompt(input) : input));
    for (const prompt of prompts) {
      checkContext(prompt.length, this.config.text.context);
      checkPrompt(prompt, { tokenizer: this.tokenizer, config: { vocab: this.config.text.vocab } });
    }
    const batch = { prompts, images: prompts.map(() => []) };
    const rows = RowMap.packed(prompts.map((p) => p.length));
    return this.#encode(batch, rows, "", options, (pass) => this.encodeTexts(prompts, pass));
  }

  /** Embeds pictures. Throws SiteError, PromptError and ImageError. */
  images<const T extends Taps = Record<never, never>>(
    images: readonly PromptImage[],
    options: EncodeOptions<T> = {},
  ): EncodeResult<T> {
    checkArgument("images", "images", images, aListOf(aPicture));
    const towerRows = rowsPerImage(this.config.vision);
    const rows = RowMap.packed(images.map(() => towerRows));
    const batch = { prompts: [], images: images.map(() => [{ towerRows, tokens: 0 }]) };
    return this.#encode(batch, rows, "vision.", options, (pass) => this.encodeImages(images, pass));
  }

  #encode<T extends Taps>(
    batch: Batch,
    rows: RowMap,
    prefix: SitePrefix,
    options: EncodeOptions<T>,
    encode: (pass: Pass) => Walk<{ pooled: Tensor; embeds: Tensor }>,
  ): EncodeResult<T> {
    const call = prefix === "" ? "texts" : "images";
    checkOptions(call, options, { taps: anObject, edits: anArray });
    const { taps = {}, edits = [] } = options;
    checkTaps(call, taps);
    checkEdits(call, edits);
    if (batch.images.length === 0) throw new PromptError("encode: expected at least one input, found none");
    const { device } = this;
    return device.scope(() => {
      const watcher = new Watcher(
        resolveEdits(edits, this.sites, device, batch),
        resolveTaps(taps, this.sites, batch, false),
      );
      const uses = watcher.uses.bind(watcher);
      const pass = Pass.over(device, batch.prompts, { rows, inUse: uses, prefix });
      const embedded = drive(encode(pass), watcher);
      return { ...watcher.finish(), ...embedded } as EncodeResult<T>;
    });
  }
}
