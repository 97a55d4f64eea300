import { checkArgument } from "../arguments.ts";
import type { LanguageModel } from "../model/language-model.ts";
import { placesByImage } from "../model/prompt/image-places.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { CROSS_SITES } from "../model/walk/sites.ts";
import { aModel, aPrompt, checkEdits } from "./arguments.ts";
import type { Edit } from "./edit.ts";
import { contextRows, reachOf } from "./reach.ts";
import { batchOf, resolveTarget, type Target } from "./site-targets.ts";

/** What edits of a prompt could change. */
export interface Reached {
  /** First layer to compute anew; the number of layers means the head alone. */
  readonly layer: number;
  /** First position whose rows may differ. */
  readonly position: number;
  /** For each layer the positions, ascending, whose `resid_post` may differ. */
  readonly cells: readonly (readonly number[])[];
}

/** Sites of a layer that other positions of the same layer read. */
const READ_BY_OTHERS: ReadonlySet<string> = new Set([
  "resid_pre",
  "attn_in",
  "k",
  "k_norm",
  "v",
  "deepstack",
]);
const CROSS: ReadonlySet<string> = new Set(CROSS_SITES);
/** Of cross-attention: what positions of the prompt read, not of them. */
const CONTEXT_SITES: ReadonlySet<string> = new Set(["xattn_k", "xattn_k_norm", "xattn_v"]);

/**
 * Which positions of which layers edits of a prompt could change, from the model's attention rules alone; nothing is computed. All
 * others keep their values. Of an encoder-decoder positions are the decoder's.
 *
 * Throws SiteError and PromptError for edits as `run` does, but does not look at their values.
 */
export function reach(model: LanguageModel, given: Prompt, edits: readonly Edit[]): Reached {
  checkArgument("reach", "model", model, aModel);
  checkArgument("reach", "prompt", given, aPrompt);
  checkEdits("reach", edits);
  const prompt = model.sequenceOf(given);
  const batch = batchOf([prompt], model.config.vision);
  const targets = edits.map((edit) =>
    resolveTarget(edit.operation, edit, model.sites, batch, { members: [0] }),
  );
  const { layer, position } = reachOf(model, prompt, targets, 0);
  return { layer, position, cells: cellsOf(model, prompt, targets) };
}

function cellsOf(model: LanguageModel, prompt: Prompt, targets: readonly Target[]): number[][] {
  const { layers } = model.config;
  const all = Array.from({ length: prompt.length }, (_, position) => position);
  const ways = new Ways(model, prompt, targets);
  let changed = ways.embedding;
  return Array.from({ length: layers }, (_, layer) => {
    const block = model.network.stack.blocks[layer]!;
    const entering = union(changed, ways.entering(layer));
    const { keys, own, across } = ways.within(layer);
    const readers = block.crossRule
      ? all.filter((position) => {
          const { start, end } = block.crossRule!(position, { prompt });
          return across.some((rows) => start < rows.end && end > rows.start && start < end);
        })
      : [];
    // Cross-attention with an MLP of its own stands in front of the layer, else behind its self-attention or in its place.
    const inFront = model.config.cross?.mlpWidth !== undefined && !model.config.cross.replaces;
    const read = union(entering, keys, inFront ? readers : []);
    const rule = model.network.stack.rule(layer);
    const attending = all.filter((position) => {
      const { start, end } = rule(position, { prompt });
      for (const key of read) if (key >= start && key < end) return true;
      return false;
    });
    changed = union(read, own, attending, readers);
    return [...changed].sort((a, b) => a - b);
  });
}

function union(...sets: readonly Iterable<number>[]): ReadonlySet<number> {
  return new Set(sets.flatMap((set) => [...set]));
}

/** Where edits enter the language model. */
class Ways {
  /** Positions of the embedding that they change. */
  readonly embedding: ReadonlySet<number>;
  readonly #model: LanguageModel;
  readonly #targets: readonly Target[];
  readonly #placesOf: (image: number) => readonly number[];
  /** Positions of the pictures that change, and rows of the context. */
  readonly #places: ReadonlySet<number>;
  readonly #context: readonly { readonly start: number; readonly end: number }[];

  constructor(model: LanguageModel, prompt: Prompt, targets: readonly Target[]) {
    this.#model = model;
    this.#targets = targets;
    const { vision, encoder } = model.config;
    const before = targets.filter(({ info }) => info.stack !== "text" && info.sequences !== "prompts");
    const images = new Set(
      before
        .filter(({ info }) => info.sequences === "images")
        .flatMap(({ positions }) => [...positions.keys()]),
    );
    const sources = { start: 0, end: prompt.source?.length ?? 0 };
    this.#context =
      encoder && before.length > 0
        ? [sources]
        : vision && model.network.context
          ? [...images].flatMap((image) => contextRows(prompt, image, vision))
          : [];
    const places = vision ? placesByImage(prompt, vision) : [];
    this.#placesOf = (image) => places[image] ?? [];
    this.#places = new Set(encoder ? [] : [...images].flatMap(this.#placesOf));
    const embeds = vision?.embeds !== false ? this.#places : new Set<number>();
    this.embedding = union(
      embeds,
      this.#own(-1, () => true),
    );
  }

  /** Positions that change where a layer begins: those of pictures whose features are added there. */
  entering(layer: number): ReadonlySet<number> {
    const added = this.#targets.filter(({ info }) => info.site === "deepstack" && info.order === layer);
    const own = added.flatMap(({ positions }) =>
      [...positions.keys()].flatMap((image) => this.#placesOf(image)),
    );
    const { takesPictures } = this.#model.network.stack.blocks[layer]!;
    return takesPictures ? union(this.#places, own) : new Set(own);
  }

  /**
   * What edits change within a layer: positions that others read there, positions that none reads, and rows of what cross-attention
   * reads.
   */
  within(layer: number) {
    const { cross } = this.#model.config;
    const isKey = (site: string) =>
      READ_BY_OTHERS.has(site) || (CROSS.has(site) && cross?.mlpWidth !== undefined && !cross.replaces);
    const ofContext = this.#targets.filter(
      ({ info }) => info.stack === "text" && info.order === layer && CONTEXT_SITES.has(info.site),
    );
    return {
      keys: new Set(this.#own(layer, isKey)),
      own: new Set(this.#own(layer, (site) => !isKey(site))),
      across: ofContext.length > 0 ? [{ start: 0, end: Number.POSITIVE_INFINITY }] : this.#context,
    };
  }

  #own(layer: number, counts: (site: string) => boolean): number[] {
    return this.#targets
      .filter(({ info }) => info.stack === "text" && info.sequences === "prompts")
      .filter(({ info }) => info.order === layer && counts(info.site))
      .flatMap(({ positions }) => [...positions.values()].flat());
  }
}
