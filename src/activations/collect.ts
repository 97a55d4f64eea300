import {
  aFunction,
  aListOf,
  aNumber,
  aString,
  aWholeFromOne,
  checkArgument,
  checkOptions,
  either,
  type Options,
  oneOf,
} from "../arguments.ts";
import { ArgumentError, SiteError, XpatchError } from "../errors.ts";
import type { LanguageModel, ModelOutline } from "../model/language-model.ts";
import { checkContext, type Prompt } from "../model/prompt/prompt.ts";
import { type SiteInfo, siteInfo } from "../model/walk/site-info.ts";
import { aModel, aPrompt, somePositions } from "../patching/arguments.ts";
import { run } from "../patching/run.ts";
import { matchSites, type SitePattern } from "../patching/site-patterns.ts";
import { batchOf, resolveTarget } from "../patching/site-targets.ts";
import type { Tap } from "../patching/tap.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type ActivationStore, openActivations } from "./activation-store.ts";
import {
  FILE_KINDS,
  type FileKind,
  type PlainPositions,
  STORE_DTYPES,
  type StoreDType,
  type StoreSetting,
} from "./manifest.ts";
import type { PromptRows } from "./shard-file.ts";
import { StoreWriter } from "./store-writer.ts";

/** What is collected, in which form, and in how large shards. */
export interface CollectOptions {
  /** What to collect: names of sites and patterns. Those whose features are keys, scores and patterns, cannot be. */
  sites: SitePattern | readonly SitePattern[];
  /** Which positions of each prompt: plain data, no functions. At sites of images it is all rows. Default "all". */
  at?: PlainPositions;
  /** Which image's rows, at sites of images; needed where prompts have several. */
  image?: number;
  /** What vectors are stored in. f16 rounds them, and throws for what it cannot hold; for safetensors alone. Default f32. */
  dtype?: StoreDType;
  /** Kind of the files. Default safetensors. */
  files?: FileKind;
  /** Most tokens of prompts in one pass. Default 1024. */
  batchTokens?: number;
  /** Bytes of vectors, of all sites together, and of prompts, after which a shard ends: what memory is needed for. Default 64 MiB. */
  shardBytes?: number;
  /** Told how many prompts are done, of these how many were in the store already, and how many rows were collected. */
  onProgress?: (progress: CollectProgress) => void;
}

/** How far a collection is. */
export interface CollectProgress {
  readonly prompts: number;
  readonly stored: number;
  readonly rows: number;
}

const OPTIONS: Options<CollectOptions> = {
  sites: either(aString, aListOf(aString)),
  at: somePositions,
  image: aNumber,
  dtype: oneOf(...STORE_DTYPES),
  files: oneOf(...FILE_KINDS),
  batchTokens: aWholeFromOne,
  shardBytes: aWholeFromOne,
  onProgress: aFunction,
};

/** What {@link collectActivations} is to have begun with, of a model and options. Throws SiteError and ArgumentError. */
export function storeSetting(model: ModelOutline, options: CollectOptions): StoreSetting {
  const { at = "all", image, dtype = "f32", files = "safetensors", shardBytes = 64 * 2 ** 20 } = options;
  if (typeof at === "function") {
    throw new ArgumentError(
      "collectActivations: expected at to be plain data, found a function: whoever goes on could not tell whether it is the same",
    );
  }
  if (dtype === "f16" && files === "parquet") {
    throw new ArgumentError(
      "collectActivations: Parquet files take f32; expected files to be safetensors for f16",
    );
  }
  const sites = matchSites(model.sites, [options.sites].flat()).map((site) => {
    const { features } = siteInfo(model.sites, site);
    if (features !== undefined) return { site, width: features };
    throw new SiteError(
      `collectActivations: the features of ${site} are keys, and differ from prompt to prompt; name others`,
    );
  });
  const { name, family, storedDtypes: weights, adapters } = model;
  const shared = { positions: at, image: image ?? null, dtype, files, shardBytes };
  return { model: name, family, weights, adapters, sites, ...shared };
}

/**
 * Writes activations of prompts, as many as there are, into a folder: a row for each position of each prompt and site, in shards of
 * safetensors or Parquet files (docs/activations.md has the format). Memory is that of one shard and two passes. A run that was
 * interrupted goes on when it is called with the same arguments: prompts that are in the store are taken from `prompts` again, but not
 * computed. A store that is complete grows by the prompts behind its own. Node only.
 *
 * Throws FileError, before anything is written, for a folder with other files or with a store that was begun with other arguments or
 * prompts; and like `run`.
 *
 * @example await collectActivations(model, lines.map((line) => model.prompt(line)), "acts", { sites: "resid_post.*" });
 */
export async function collectActivations(
  model: LanguageModel,
  prompts: Iterable<Prompt> | AsyncIterable<Prompt>,
  folder: string,
  options: CollectOptions,
): Promise<ActivationStore> {
  checkArgument("collectActivations", "model", model, aModel);
  checkArgument("collectActivations", "folder", folder, aString);
  checkOptions("collectActivations", options, OPTIONS, { required: ["sites"] });
  const setting = storeSetting(model, options);
  const writer = await StoreWriter.open(folder, setting);
  const { batchTokens = 1024, onProgress } = options;
  const progress = { prompts: 0, stored: 0, rows: 0 };
  /** The pass whose activations are on their way to the host while the next one is recorded. */
  let underWay: Promise<Collected[]> | undefined;
  let batch: NumberedPrompt[] = [];
  let tokens = 0;

  const take = async () => {
    for (const { prompt, rows } of (await underWay) ?? []) {
      await writer.add(prompt, rows);
      progress.prompts++;
      progress.rows += rows.reduce((sum, { positions }) => sum + positions.length, 0);
    }
    underWay = undefined;
    onProgress?.({ ...progress });
  };
  const compute = async () => {
    const next = collected(model, batch, setting);
    next.catch(() => {}); // thrown when its turn comes
    [batch, tokens] = [[], 0];
    await take();
    underWay = next;
  };

  for await (const prompt of prompts) {
    checkArgument("collectActivations", "each prompt", prompt, aPrompt);
    const { length } = model.sequenceOf(prompt);
    checkContext(length, model.config.context);
    const number = writer.next(prompt);
    if (number === undefined) {
      progress.stored++;
      progress.prompts++;
      continue;
    }
    checkPlaces(model, { prompt, number }, setting);
    if (batch.length > 0 && tokens + prompt.length > batchTokens) await compute();
    batch.push({ prompt, number });
    tokens += prompt.length;
  }
  if (batch.length > 0) await compute();
  await take();
  await writer.finish();
  return openActivations(folder);
}

/** A prompt with its number in the store. */
interface NumberedPrompt {
  readonly prompt: Prompt;
  readonly number: number;
}

interface Collected {
  readonly prompt: Prompt;
  /** A part for each site. */
  readonly rows: readonly PromptRows[];
}

/** Throws SiteError and PromptError, led by the prompt's number, where it lacks the positions or the picture. */
function checkPlaces(model: LanguageModel, { prompt, number }: NumberedPrompt, setting: StoreSetting): void {
  const places = batchOf([model.sequenceOf(prompt)], model.config.vision);
  const seen = new Set<string>();
  for (const tap of tapsOf(model, setting)) {
    const { sequences } = siteInfo(model.sites, tap.site);
    if (seen.has(sequences)) continue;
    seen.add(sequences);
    try {
      resolveTarget("collect", tap, model.sites, places, { members: [0], oneImage: true });
    } catch (error) {
      if (error instanceof XpatchError) error.message = `prompt ${number}: ${error.message}`;
      throw error;
    }
  }
}

/** A tap for each site. */
function tapsOf(model: LanguageModel, { sites, positions, image }: StoreSetting): Tap[] {
  return sites.map(({ site }) => {
    const ofImages = siteInfo(model.sites, site).sequences === "images";
    const part = ofImages && image !== null ? { image } : {};
    return { kind: "tap", site, at: ofImages ? "all" : positions, ...part };
  });
}

/** Runs prompts, and reads what is to be stored of them. What goes wrong is thrown when it is awaited. */
async function collected(
  model: LanguageModel,
  batch: readonly NumberedPrompt[],
  setting: StoreSetting,
): Promise<Collected[]> {
  const { device, config } = model;
  const { sites } = setting;
  const prompts = batch.map(({ prompt }) => prompt);
  const infos = sites.map(({ site }) => siteInfo(model.sites, site));
  const taps = tapsOf(model, setting);
  const places = batchOf(
    prompts.map((prompt) => model.sequenceOf(prompt)),
    config.vision,
  );
  const targets = taps.map((each) =>
    resolveTarget("collect", each, model.sites, places, { members: prompts.keys(), oneImage: true }),
  );
  const last = Math.max(0, ...infos.map(({ order }) => order));
  const { logits, ...tapped } = run(model, prompts, {
    taps: Object.fromEntries(taps.map((each, i) => [`${i}`, each])),
    ...(last < config.layers && { stopAfter: last }),
  }) as Record<string, Tensor | Tensor[] | undefined>;
  const tensors = taps.flatMap((_, i) => tapped[`${i}`]!);
  try {
    const read = (await device.read(tensors)) as Float32Array[];
    let at = 0;
    const bySite = taps.map((_, i) => {
      const { width } = sites[i]!;
      // One position of each prompt comes in one tensor.
      if (!Array.isArray(tapped[`${i}`])) {
        const all = read[at++]!;
        return prompts.map((_, p) => all.subarray(p * width, (p + 1) * width));
      }
      return prompts.map(() => read[at++]!);
    });
    return batch.map(({ prompt, number }, p) => ({
      prompt,
      rows: targets.map((target, i) =>
        rowsOf(number, places.prompts[p]!, [...target.positions.values()][p]!, bySite[i]![p]!, infos[i]!),
      ),
    }));
  } finally {
    for (const tensor of tensors) tensor.dispose();
    for (const tensor of [logits ?? []].flat()) tensor.dispose();
  }
}

function rowsOf(
  number: number,
  sequence: Prompt,
  positions: readonly number[],
  vectors: Float32Array,
  { sequences }: SiteInfo,
): PromptRows {
  const { ids, tokens } = sequences === "sources" ? sequence.source! : sequence;
  const ofImages = sequences === "images";
  return {
    prompts: new Int32Array(positions.length).fill(number),
    positions: Int32Array.from(positions),
    tokens: Int32Array.from(positions, (position) => (ofImages ? -1 : ids[position]!)),
    spelt: positions.map((position) => (ofImages ? "" : tokens[position]!)),
    vectors,
  };
}
