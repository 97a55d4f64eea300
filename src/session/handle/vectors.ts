import {
  BATCH_TOKENS,
  batches,
  decodeTaskVectors,
  type ExtractOptions,
  encodeTaskVectors,
  extractActivations,
  meanVectors,
  type TaskVectors,
} from "../../analysis/vectors/task-vectors.ts";
import {
  aListOf,
  aNumber,
  aString,
  checkArgument,
  checkOptions,
  type Expected,
  oneOf,
} from "../../arguments.ts";
import { ArgumentError, ShapeError, SiteError } from "../../errors.ts";
import { add, mul, square } from "../../kernels/elementwise/elementwise.ts";
import { sum } from "../../kernels/reduction/reduce.ts";
import { hashPrompts, type Prompt } from "../../model/prompt/prompt.ts";
import { type SiteInfo, siteInfo } from "../../model/walk/site-info.ts";
import { parseSite, type SiteName, VECTOR_SITES, type VectorSite } from "../../model/walk/sites.ts";
import { somePositions } from "../../patching/arguments.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { isOnePosition, showPositions } from "../../patching/positions.ts";
import { settingOf } from "../../patching/setting.ts";
import { tap } from "../../patching/tap.ts";
import { SPLITS } from "../../tasks/task.ts";
import { sameShape, showShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { VectorRecipe } from "../messages/requests.ts";
import type { VectorSummary } from "../messages/results.ts";
import { readEdits } from "../read/edits.ts";
import { preparePictures } from "../read/prepare-pictures.ts";
import { readPrompt, readPrompts } from "../read/prompt.ts";
import { readSpecify } from "../read/specify.ts";
import { vectorPrompts } from "../read/task-prompts.ts";
import type { Handler, Work } from "../read/work.ts";
import { mixedOrigin, StoredVector } from "../state/stored-vector.ts";
import { decodePlaceVector, encodePlaceVector } from "../state/vector-file.ts";
import { modelOf } from "./models.ts";

const anything: Expected = { words: "anything", holds: () => true };
const DEFAULT_ITEMS = 20;

export const makeVector: Handler<"vector.make"> = async (work, { model: handle, recipe }) => {
  const model = modelOf(work, handle);
  return keep(work, await madeBy(work, model, recipe));
};

function madeBy(work: Work, model: PatchableModel, recipe: VectorRecipe): Promise<StoredVector> {
  if ("task" in recipe) return fromTask(work, model, recipe);
  if ("prompts" in recipe) return fromPrompts(work, model, recipe);
  if ("prompt" in recipe) return fromPlace(work, model, recipe);
  throw new ArgumentError("vector.make: expected a recipe with a task, prompts or a prompt");
}

type Of<Key extends string> = Extract<VectorRecipe, Record<Key, unknown>>;

async function fromTask(work: Work, model: PatchableModel, recipe: Of<"task">): Promise<StoredVector> {
  checkOptions(
    "vector.make",
    recipe,
    { task: anything, specify: anything, split: oneOf(...SPLITS), items: aNumber, site: aString },
    { name: "the recipe", required: ["task", "specify"] },
  );
  const { split = "train", items = DEFAULT_ITEMS, site } = recipe;
  const specify = readSpecify(recipe.specify);
  const usable = await work.tasks.use(work, recipe.task);
  const { prompts, at } = await vectorPrompts(model, usable, split, specify, items);
  await preparePictures(work, model, prompts);
  const vectors = await meanOver(work, model, prompts, { at, site: siteOf(site) });
  const { name } = usable.task;
  const words =
    specify.kind === "instruction"
      ? `${name}, instruction`
      : `${name}, ${prompts.length} prompts of ${specify.kind} examples (${split})`;
  return layered(vectors, model, words);
}

async function fromPrompts(work: Work, model: PatchableModel, recipe: Of<"prompts">): Promise<StoredVector> {
  checkOptions(
    "vector.make",
    recipe,
    { prompts: aListOf(anything), at: aNumber, site: aString },
    { name: "the recipe", required: ["prompts"] },
  );
  const { at = -1, site } = recipe;
  const prompts = await readPrompts(work, model, recipe.prompts);
  const vectors = await meanOver(work, model, prompts, { at, site: siteOf(site) });
  return layered(vectors, model, `mean of ${prompts.length} prompts at ${showPositions(at)}`);
}

function siteOf(site = "resid_post"): VectorSite {
  checkArgument("vector.make", "site", site, oneOf(...VECTOR_SITES));
  return site as VectorSite;
}

/** As `extractTaskVectors`; waits for each pass, so that the request can be given up between them. */
async function meanOver(
  work: Work,
  model: PatchableModel,
  prompts: readonly Prompt[],
  options: ExtractOptions,
): Promise<TaskVectors> {
  const { device } = model;
  const scope = device.openScope();
  try {
    const parts: Tensor[] = [];
    let done = 0;
    for (const batch of batches(prompts, BATCH_TOKENS)) {
      parts.push(scope.enter(() => extractActivations(model, batch, options)));
      await device.sync();
      done += batch.length;
      work.progress({ phase: "prompts", done, total: prompts.length });
    }
    return meanVectors(model, prompts, parts, options);
  } finally {
    scope.dispose();
  }
}

async function fromPlace(work: Work, model: PatchableModel, recipe: Of<"prompt">): Promise<StoredVector> {
  checkOptions(
    "vector.make",
    recipe,
    { prompt: anything, site: aString, at: somePositions, head: aNumber, image: aNumber, edits: anything },
    { name: "the recipe", required: ["prompt", "site", "at"] },
  );
  const { site, at, head, image, edits } = recipe;
  const prompt = await readPrompt(work, model, recipe.prompt);
  const name = site as SiteName;
  const { layout } = siteInfo(model.sites, name);
  if (layout !== "rows") throw new SiteError(`vector.make: ${site} holds attention, not a vector a position`);
  const { device } = model;
  const part = { ...(head !== undefined && { head }), ...(image !== undefined && { image }) };
  const value = device.scope(() => {
    const { v } = model.run(prompt, {
      edits: readEdits(work, device, "vector.make", edits),
      taps: { v: tap(name, at, part) },
    });
    return v.rank === 1 ? v.reshape([1, v.size]) : v;
  });
  const where = `${site}${head === undefined ? "" : `, head ${head}`}`;
  const origin = {
    model: model.name,
    site: where,
    position: showPositions(at),
    promptHash: hashPrompts([prompt]),
    weights: model.storedDtypes[0] ?? "unknown",
  };
  const words = `${where} at ${showPositions(at)} of ${JSON.stringify(shortened(prompt.text))}`;
  return new StoredVector(
    value,
    { kind: "place", origin, onePosition: isOnePosition(at) },
    settingOf(model),
    words,
  );
}

function shortened(text: string): string {
  return text.length > 60 ? `…${text.slice(-60)}` : text;
}

function layered(vectors: TaskVectors, model: PatchableModel, words: string): StoredVector {
  return new StoredVector(
    vectors.vectors,
    { kind: "layers", origin: vectors.origin },
    settingOf(model),
    words,
  );
}

/** Keeps a vector for the client, and says what it is. */
async function keep({ kept }: Work, vector: StoredVector): Promise<VectorSummary> {
  const { rows, from, setting, words: origin } = vector;
  let norms: readonly number[];
  try {
    using squares = rows.device.scope(() => sum(square(rows), -1));
    norms = Array.from(await squares.read(), Math.sqrt);
  } catch (error) {
    vector.dispose();
    throw error;
  }
  const handle = kept.add("vector", vector, { free: () => vector.dispose() });
  const shared = { vector: handle, features: rows.dim(1), norms, origin, setting };
  const { name: site, head } = vector.site;
  if (from.kind === "layers") return { ...shared, site, layers: from.origin.layers };
  const part = { ...(head !== undefined && { head }), ...(!from.onePosition && { positions: rows.dim(0) }) };
  return { ...shared, site, layers: [], ...part };
}

export const mixVectors: Handler<"vector.mix"> = (work, { vectors }) => {
  const parts = vectors.map((part) => {
    checkOptions(
      "vector.mix",
      part,
      { vector: aString, weight: aNumber },
      { name: "a part", required: ["vector", "weight"] },
    );
    return { vector: work.kept.get("vector", part.vector), weight: part.weight };
  });
  const [first] = parts;
  if (!first) throw new ArgumentError("vector.mix: expected at least one vector, found none");
  const { rows, from, setting } = first.vector;
  for (const { vector } of parts) {
    const layers = from.kind === "layers" ? `${from.origin.layers}` : "";
    const others = vector.from.kind === "layers" ? `${vector.from.origin.layers}` : "";
    const alike =
      sameShape(vector.rows.shape, rows.shape) && vector.from.kind === from.kind && layers === others;
    const [site, other] = [layerless(first.vector), layerless(vector)];
    if (site !== other) {
      throw new SiteError(`vector.mix: expected vectors of ${site}, found one of ${other} (${vector.words})`);
    }
    if (alike && vector.rows.device === rows.device) continue;
    throw new ShapeError(
      `vector.mix: expected vectors of one model and one shape ${showShape(rows.shape)}, found ${showShape(vector.rows.shape)} (${vector.words})`,
    );
  }
  const total = rows.device.scope(() =>
    parts.map(({ vector, weight }) => mul(vector.rows, weight)).reduce((a, b) => add(a, b)),
  );
  const words = parts.map(({ vector, weight }) => `${weight} × (${vector.words})`).join(" + ");
  return keep(work, new StoredVector(total, mixedOrigin(parts), setting, words));
};

/** What a vector is of: layers of a site may be mixed, sites not. */
function layerless({ site }: StoredVector): string {
  return site.name.replace(/\.\d+$/, "");
}

export const readVector: Handler<"vector.read"> = async ({ kept }, { vector }) => {
  const { rows } = kept.get("vector", vector);
  return { shape: [...rows.shape], data: (await rows.read()) as Float32Array };
};

export const saveVector: Handler<"vector.save"> = async ({ kept }, { vector }) => {
  const stored = kept.get("vector", vector);
  const { from, rows } = stored;
  const bytes =
    from.kind === "layers"
      ? await encodeTaskVectors(stored.taskVectors)
      : await encodePlaceVector(rows, from);
  return { bytes };
};

export const loadVector: Handler<"vector.load"> = async (work, { model: handle, bytes, name = "vector" }) => {
  const model = modelOf(work, handle);
  const { device } = model;
  const own = Uint8Array.from(bytes);
  const place = await decodePlaceVector(own, name);
  const words = `file ${name}`;
  if (place) {
    const { values, shape, from } = place;
    const stored = new StoredVector(device.tensor(values, { shape }), from, settingOf(model), words);
    try {
      const { name: site, head } = stored.site;
      const { features: own, heads } = fits(model, site, name);
      if (head !== undefined && !(heads !== undefined && head < heads))
        throw new SiteError(`${name}: this model's ${site} has no head ${head}`);
      const expected = head === undefined ? own : own! / heads!;
      if (expected !== shape[1])
        throw new SiteError(`${name}: expected a vector of ${expected} features, found ${shape[1]}`);
    } catch (error) {
      stored.dispose();
      throw error;
    }
    return keep(work, stored);
  }
  const vectors = await decodeTaskVectors(own, device, name);
  const stored = layered(vectors, model, words);
  try {
    const { site, layers } = vectors.origin;
    const found = vectors.vectors.dim(1);
    for (const layer of layers) {
      const { features: expected } = fits(model, `${site}.${layer}`, name);
      if (expected === found) continue;
      throw new SiteError(`${name}: expected vectors of ${expected} features, found ${found}`);
    }
  } catch (error) {
    stored.dispose();
    throw error;
  }
  return keep(work, stored);
};

/** What a site of the model holds. Throws SiteError, led by the file's name, where it has no such site. */
function fits(model: PatchableModel, site: string, name: string): SiteInfo {
  try {
    parseSite(site);
    return siteInfo(model.sites, site as SiteName);
  } catch (cause) {
    throw new SiteError(`${name}: ${(cause as Error).message}`, { cause });
  }
}

export const freeVector: Handler<"vector.free"> = ({ kept }, { vector }) => {
  kept.get("vector", vector);
  kept.free(vector);
  return null;
};
