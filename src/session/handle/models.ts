import { aListOf, anObject, aString, checkOptions } from "../../arguments.ts";
import { SessionError } from "../../errors.ts";
import { memoryFolder } from "../../model/checkpoint/source/folder.ts";
import { aQuantise } from "../../model/checkpoint/weights/quantise.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import { layersWith, siteInfo, siteNames } from "../../model/walk/site-info.ts";
import { settingOf } from "../../patching/setting.ts";
import { adapterName } from "../../tensor/adapter-name.ts";
import type { ParamsOf } from "../messages/requests.ts";
import type { ModelSummary, SiteSummary } from "../messages/results.ts";
import type { Handler, Offer, Work } from "../read/work.ts";
import type { ModelOrder, SharedModel } from "../state/engine.ts";

export const adapters: Handler<"adapters"> = async ({ engine }) => {
  const { info, memory } = await engine.device();
  const { vendor, architecture, kernels, fallback: software } = info;
  return { name: adapterName(info), software, vendor, architecture, kernels, bytes: memory.liveBytes };
};

export const models: Handler<"models"> = ({ engine, offer }) => ({
  models: offer.models.map((model) => ({ ...model, loaded: engine.has(keyOf({ ref: model.ref })) })),
  anyRef: offer.anyRef,
  files: offer.files,
});

export const load: Handler<"load"> = async (work, params) => {
  const { engine, kept, signal, progress } = work;
  const order = orderOf(work.offer, params);
  const shared = await engine.take(order, { signal, onProgress: progress });
  const handle = kept.add("model", shared, { free: () => engine.giveBack(shared) });
  return summaryOf(handle, shared);
};

/** Recordings of a model go with it: they are of no use without its weights. */
export const unload: Handler<"unload"> = ({ kept }, { model }) => {
  const shared = kept.get("model", model);
  const others = kept.of("model").filter(([, other]) => other === shared);
  const recordings = others.length > 1 ? [] : kept.of("recording").filter(([, one]) => one.model === shared);
  for (const [handle] of recordings) kept.free(handle);
  kept.free(model);
  return null;
};

export const free: Handler<"free"> = ({ kept }, { handles }) => {
  for (const handle of handles) kept.free(handle);
  return null;
};

/** The model of a handle, loaded. */
export function modelOf({ kept }: Work, handle: unknown) {
  return kept.get("model", handle).loaded!;
}

/** What to load. Throws ArgumentError, and SessionError for models that the host does not lend. */
function orderOf(offer: Offer, params: ParamsOf<"load">): ModelOrder {
  const known = {
    ref: aString,
    files: anObject,
    name: aString,
    base: aString,
    adapters: aListOf(aString),
    quantise: aQuantise,
  };
  const fromFiles = "files" in params;
  checkOptions("load", params, known, { name: "params", required: fromFiles ? ["files", "name"] : ["ref"] });
  const { base, quantise } = params;
  if (fromFiles) {
    if (!offer.files) refuse("files of a client");
    if (base !== undefined) checkLent(offer, base);
    const files = new Map(Object.entries(params.files));
    for (const file of files.values()) {
      if (!(file instanceof Blob || file instanceof Uint8Array))
        refuse("files that are neither Blobs nor bytes");
    }
    return { key: undefined, ref: memoryFolder(files, params.name), base, quantise };
  }
  const { ref, adapters } = params;
  for (const each of [ref, ...(base === undefined ? [] : [base]), ...(adapters ?? [])])
    checkLent(offer, each);
  return { key: keyOf({ ref, base, adapters, quantise }), ref, base, adapters, quantise };
}

function keyOf({ ref, base, adapters, quantise }: Omit<ModelOrder, "key">): string {
  return JSON.stringify([ref, base ?? null, adapters ?? [], quantise ?? null]);
}

function checkLent({ anyRef, models }: Offer, ref: string): void {
  if (anyRef || models.some((model) => model.ref === ref)) return;
  const list = models.map((model) => model.ref).join(", ");
  throw new SessionError(
    `this host does not load ${JSON.stringify(ref.slice(0, 100))}; it has ${list || "no models"} (xpatch serve --any-model, or name it there)`,
    { code: "refused" },
  );
}

function refuse(what: string): never {
  throw new SessionError(`this host does not load ${what}`, { code: "refused" });
}

async function summaryOf(handle: ModelSummary["model"], shared: SharedModel): Promise<ModelSummary> {
  const model = await shared.model;
  const { config } = model;
  return {
    model: handle,
    setting: settingOf(model),
    layers: config.layers,
    width: config.width,
    heads: config.heads,
    vocab: config.vocab,
    ...(Number.isFinite(config.context) && { context: config.context }),
    takesPictures: config.vision !== undefined,
    hasChat: model.hasChat,
    encoder: config.encoder !== undefined,
    sites: sitesOf(model),
  };
}

/** Each site once, those of layers with `*` in place of the layer. */
function sitesOf({ sites }: ModelOutline): SiteSummary[] {
  const found = new Map<string, SiteSummary>();
  for (const name of siteNames(sites)) {
    const pattern = name.replace(/\.\d+$/, ".*");
    if (found.has(pattern)) continue;
    const info = siteInfo(sites, name);
    found.set(pattern, {
      pattern,
      stack: info.stack,
      ...(info.layer !== undefined && { layers: layersWith(sites, info) }),
      ...(info.features !== undefined && { features: info.features }),
      ...(info.heads !== undefined && { heads: info.heads }),
      rows: info.sequences,
    });
  }
  return [...found.values()];
}
