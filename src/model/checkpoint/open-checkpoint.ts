import { platform } from "#platform";
import {
  aFunction,
  aListOf,
  aString,
  checkArgument,
  checkOptions,
  type Expected,
  type Options,
} from "../../arguments.ts";
import { CheckpointError } from "../../errors.ts";
import { filePath } from "../../images/files/file-url.ts";
import type { Fetch } from "../../platform/global-types.ts";
import type { ByteSource } from "../../platform/platform.ts";
import { ASSEMBLY, type Assembly, readAssembly } from "./assembly.ts";
import { Checkpoint, type CheckpointParts } from "./checkpoint.ts";
import { quantisationOrNone } from "./config/quantisation.ts";
import { renamed, type TensorEntry } from "./entries/tensor-entry.ts";
import { TensorsDigest } from "./entries/tensors-digest.ts";
import { dequantised } from "./fp8.ts";
import { GgufFile } from "./gguf/gguf.ts";
import { isObject } from "./json/config-reader.ts";
import { ADAPTER_CONFIG, openAdapter } from "./lora/adapter.ts";
import { applyAdapter } from "./lora/apply-adapter.ts";
import { withBitsandbytes } from "./packing/bitsandbytes.ts";
import { withOwnMatrices } from "./packing/own-folder.ts";
import { respeltTokens } from "./respelt-tokens.ts";
import { SafetensorsFile } from "./safetensors/safetensors.ts";
import { closeAll, type OpenFiles, openTensors, requireTensors } from "./safetensors/tensor-files.ts";
import {
  type Folder,
  localFolder,
  localSource,
  missingFile,
  overlay,
  readJsonObject,
  subfolder,
  urlFolder,
} from "./source/folder.ts";
import { type HubOptions, hubFolder } from "./source/hub-folder.ts";
import { isInFolder, missingFolder } from "./source/missing-folder.ts";
import { publicName } from "./source/remote-file.ts";
import { SHIPPED_MODELS, shippedFolder, shippedHint } from "./source/shipped-models.ts";
import { openUrl } from "./source/url-source.ts";

const CONFIG = "config.json";

/** What is put together with a checkpoint: LoRA adapters, and the base of an assembled model. */
export interface CheckpointOptions extends HubOptions {
  /** LoRA adapters in PEFT's layout to put on top, in this order: folders, URLs, hub ids or {@link Folder}s. */
  adapters?: readonly (string | Folder)[];
  /**
   * Where the base of an assembled model or of a PEFT folder is. Without it an assembled model's is looked for in the
   * cache, which browsers do not have, and a PEFT folder's where its config says.
   */
  base?: string | Folder;
}

/** A path, URL, hub id or name of a model that comes along, or a {@link Folder}. */
export const aCheckpointRef: Expected = {
  words:
    "a path, a URL, a hub id or a name such as xpatch:vlm, as a string, or a Folder (of a file: URL object give the path, of others the href)",
  holds: (value) =>
    (typeof value === "string" && value !== "") || (isObject(value) && typeof value["open"] === "function"),
};

export const CHECKPOINT_OPTIONS: Options<CheckpointOptions> = {
  adapters: aListOf(aCheckpointRef),
  base: aCheckpointRef,
  revision: aString,
  accessToken: aString,
  fetch: aFunction,
  onDownload: aFunction,
};

const NOTHING_ON_TOP: Pick<CheckpointParts, "adapters" | "updates" | "digests"> = {
  adapters: [],
  updates: new Map(),
  digests: [],
};

/**
 * Opens a checkpoint without reading its tensors. `ref` is a local folder, the URL of one (`file:`, `http:` or `https:`,
 * in a browser also relative to the page), a hub id such as `org/name`, the name of a model that comes with xpatch
 * (`xpatch:vlm`, `xpatch:llm`, and `xpatch:smollm2`, their base; not in browsers), or any {@link Folder}. Offline, give the
 * snapshot folder of the hub's cache. A folder with an assembly.json is put together from its parts; one with only an
 * adapter_config.json is an adapter on the base that it names. A path or URL that ends in .safetensors or .gguf opens that
 * file alone, for inspection: without config, and with a GGUF's own tensor names. Throws CheckpointError.
 */
export async function openCheckpoint(
  ref: string | Folder,
  options: CheckpointOptions = {},
): Promise<Checkpoint> {
  checkArgument("openCheckpoint", "ref", ref, aCheckpointRef);
  checkOptions("openCheckpoint", options, CHECKPOINT_OPTIONS);
  // Before any of them is opened, which may be a download.
  for (const part of [ref, options.base, ...(options.adapters ?? [])]) {
    if (typeof part === "string") shippedFolder(part);
  }
  const opened: OpenFiles = [];
  try {
    const parts =
      (typeof ref === "string" ? await openLoneFile(ref, options, opened) : undefined) ??
      (await openWithAdapters(await folderOf(ref, options), options, opened));
    return new Checkpoint(parts, opened);
  } catch (error) {
    await closeAll(opened);
    throw error;
  }
}

const isUrl = (ref: string) => /^https?:\/\//i.test(ref);
const isHubId = (ref: string) => /^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(ref);
/** What stands in the browser's address bar when one looks at a model. */
const HUB_PAGE = /^https:\/\/huggingface\.co\/([\w-][\w.-]*\/[\w-][\w.-]*)(?:\/tree\/([^/?#]+))?\/?$/;
const TENSOR_FILE = /\.(safetensors|gguf)$/i;

/**
 * A reference as a path, a URL with its scheme, or a hub id. In a browser everything else is relative to the page. Throws
 * CheckpointError for a URL that cannot be fetched.
 */
function resolved(ref: string): string {
  const base = platform.baseUrl();
  if (/^file:/i.test(ref)) {
    if (platform.name === "browser")
      throw new CheckpointError(`${ref}: a browser has no local files; expected a URL`);
    return filePath(ref);
  }
  if (isUrl(ref)) {
    if (!URL.canParse(ref)) throw new CheckpointError(`${publicName(ref)}: not a URL`);
    if (new URL(ref).username === "") return ref;
    throw new CheckpointError(
      "a URL with a name and password in it cannot be fetched; give a fetch that sends an Authorization header",
    );
  }
  if (base === undefined || !URL.canParse(ref, base)) return ref;
  return isHubId(ref) && !TENSOR_FILE.test(ref) ? ref : new URL(ref, base).href;
}

/** How to fetch from a URL: the hub gets the access token, other servers do not. */
function fetchFor(url: string, { fetch = globalThis.fetch, accessToken }: HubOptions): Fetch {
  if (accessToken === undefined || !url.startsWith("https://huggingface.co/")) return fetch;
  const authorization = `Bearer ${accessToken}`;
  return (input, init) =>
    fetch(input, { ...init, headers: { ...(init?.headers as Record<string, string>), authorization } });
}

/** A lone tensor file; undefined for what is none by its name, and for a folder of such a name. */
async function openLoneFile(
  ref: string,
  options: CheckpointOptions,
  opened: OpenFiles,
): Promise<CheckpointParts | undefined> {
  const place = resolved(ref);
  const [, suffix] = TENSOR_FILE.exec(isUrl(place) ? new URL(place).pathname : place) ?? [];
  if (!suffix) return undefined;
  const source = await openPlace(place, options);
  if (!source) return undefined;
  const file = await openFile(source, suffix.toLowerCase() === "gguf");
  opened.push(file);
  const entries = new Map<string, TensorEntry>(file.entries.map((e) => [e.name, e]));
  return { name: source.name, entries, ...NOTHING_ON_TOP };
}

/** The file at a path or URL; undefined for a folder. Throws CheckpointError when there is neither. */
async function openPlace(place: string, options: CheckpointOptions): Promise<ByteSource | undefined> {
  if (!isUrl(place)) {
    if (await isModelFolder(localFolder(place))) return undefined;
    const source = await localSource(place);
    if (source) return source;
    throw new CheckpointError(`${place}: no such file`);
  }
  const opened = await openUrl(place, fetchFor(place, options));
  if (!("absent" in opened)) return opened;
  const folder = urlFolder(place, fetchFor(place, options));
  if (await isModelFolder(folder)) return undefined;
  throw new CheckpointError(`${folder.name}: no such file: ${opened.absent}`);
}

/** One of these is in every folder with a model or an adapter. */
const MODEL_FILES: readonly string[] = [CONFIG, ASSEMBLY, ADAPTER_CONFIG];

/** Whether a folder has one of the files that every folder of its kind has. */
async function isModelFolder(folder: Folder, marks = MODEL_FILES): Promise<boolean> {
  for (const file of marks) {
    const source = await folder.open(file);
    await source?.close();
    if (source) return true;
  }
  return false;
}

async function openFile(source: ByteSource, isGguf: boolean): Promise<GgufFile | SafetensorsFile> {
  try {
    return await (isGguf ? GgufFile : SafetensorsFile).open(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

/**
 * Where the files of a reference are; of local folders those are meant that have one of the files in `marks`. Throws CheckpointError
 * for what is no folder, URL or hub id.
 */
export async function folderOf(
  ref: string | Folder,
  options: HubOptions,
  marks = MODEL_FILES,
): Promise<Folder> {
  if (typeof ref !== "string") return ref;
  const shipped = shippedFolder(ref);
  if (shipped) return shipped;
  const place = resolved(ref);
  const [, id, revision] = HUB_PAGE.exec(place) ?? [];
  if (id) return hubFolder(id, revision ? { ...options, revision } : options);
  if (isUrl(place)) return urlFolder(place, fetchFor(place, options));
  if (platform.name === "node") {
    const folder = localFolder(place);
    if (await isModelFolder(folder, marks)) return folder;
  }
  const local = platform.name === "node" ? await missingFolder(ref) : "a browser has no folders";
  if (!isHubId(place)) {
    throw new CheckpointError(
      `${ref}: not a folder with a ${marks[0]} (or ${marks.slice(1).join(", ")}), nor a URL, nor a hub id like ` +
        `org/name, nor one of ${SHIPPED_MODELS.join(", ")}${shippedHint(ref)}; ${local}`,
    );
  }
  try {
    return await hubFolder(place, options);
  } catch (cause) {
    // Either may have been meant; what lies in a folder that is there was rather a path.
    if (!(cause instanceof CheckpointError) || !(await isInFolder(ref))) throw cause;
    throw new CheckpointError(`${ref}: ${local}, and as a hub id: ${cause.message}`, { cause });
  }
}

async function openWithAdapters(
  folder: Folder,
  options: CheckpointOptions,
  opened: OpenFiles,
): Promise<CheckpointParts> {
  const { adapters = [], revision: _, ...others } = options;
  let parts = await openFolder(folder, others, opened);
  for (const ref of adapters) {
    parts = await applyAdapter(parts, await openAdapter(await folderOf(ref, others), opened));
  }
  return parts;
}

async function openFolder(
  folder: Folder,
  options: CheckpointOptions,
  opened: OpenFiles,
): Promise<CheckpointParts> {
  const assembly = await readJsonObject(folder, ASSEMBLY);
  if (assembly) {
    return openAssembly(folder, readAssembly(assembly, `${folder.name}/${ASSEMBLY}`), options, opened);
  }
  const config = await readJsonObject(folder, CONFIG);
  if (!config) {
    const adapter = await readJsonObject(folder, ADAPTER_CONFIG);
    if (adapter) return openAdaptedBase(folder, options, opened);
    throw new CheckpointError(`${folder.name}: there is no ${missingFile(folder, CONFIG)}`);
  }
  if (options.base !== undefined) {
    throw new CheckpointError(
      `${folder.name}: a base was given, but this is a whole model, with neither ${ASSEMBLY} nor ${ADAPTER_CONFIG}`,
    );
  }
  // Over HTTP it would cost every load a request more, for a folder that hardly anybody puts there.
  if (!isUrl(folder.name) && (await readJsonObject(folder, ADAPTER_CONFIG))) {
    throw new CheckpointError(
      `${folder.name}: expected a model or an adapter, found both a ${CONFIG} and an ${ADAPTER_CONFIG}: transformers would ` +
        "load the adapter's base in place of this model; keep them in folders of their own, and give the adapter beside the model",
    );
  }
  const stored = await requireTensors(folder, opened);
  const packed = withOwnMatrices(await withBitsandbytes(stored), config);
  const entries = dequantised(packed, config, quantisationOrNone(config));
  return { name: folder.name, config, folder, entries, ...NOTHING_ON_TOP };
}

/** An adapter's folder as a model: the base that it names, with the adapter on top. */
async function openAdaptedBase(
  folder: Folder,
  options: CheckpointOptions,
  opened: OpenFiles,
): Promise<CheckpointParts> {
  const { base: given, adapters: _, ...access } = options;
  const adapter = await openAdapter(folder, opened);
  const ref = given ?? adapter.config.base;
  if (ref === undefined) {
    throw new CheckpointError(
      `${folder.name}/${ADAPTER_CONFIG}: base_model_name_or_path is empty; give the base, or load it with this adapter`,
    );
  }
  const hub = given === undefined ? { ...access, revision: adapter.config.baseRevision } : access;
  const base = await orExplain(`${folder.name}: its base`, "another may be given as base", async () =>
    openFolder(await folderOf(ref, hub), access, opened),
  );
  return { ...(await applyAdapter(base, adapter)), name: folder.name };
}

/** A model from its parts: tensors of its own, a base under a prefix, adapters, respelt tokens. */
async function openAssembly(
  folder: Folder,
  assembly: Assembly,
  options: CheckpointOptions,
  opened: OpenFiles,
): Promise<CheckpointParts> {
  const { base: given, adapters: _, ...access } = options;
  const { prefix, tokens } = assembly;
  const { name, sha256, command } = assembly.base;
  const where = `${folder.name}/${ASSEMBLY}`;
  const here = platform.packageFolder() ?? "a checkout of xpatch";
  const remedy = `${command ? `"${command}" in ${here} fetches it; ` : ""}another place may be given as base`;
  const own = await openTensors(folder, opened);
  const base = await orExplain(`${where}: the base ${name}`, remedy, async () =>
    openFolder(
      given === undefined ? baseFolder(folder, assembly) : await folderOf(given, access),
      access,
      opened,
    ),
  );
  const digest = new TensorsDigest(
    base.entries,
    sha256,
    (found) =>
      `${where}: ${base.name} is damaged or not the ${name} that this model was made for: expected tensors with ` +
      `sha256 ${sha256}, found ${found}; ${remedy}`,
  );
  const entries = new Map(own);
  for (const [tensor, entry] of digest.entries) {
    if (entries.has(prefix + tensor)) {
      throw new CheckpointError(`${where}: ${prefix}${tensor} is in the folder and in the base`);
    }
    entries.set(prefix + tensor, renamed(entry, prefix + tensor));
  }
  let parts: CheckpointParts = {
    name: folder.name,
    config: (await readJsonObject(folder, CONFIG)) ?? base.config,
    folder: respeltTokens(base.folder ? overlay(folder, base.folder) : folder, tokens),
    entries,
    adapters: base.adapters,
    updates: new Map([...base.updates].map(([tensor, updates]) => [prefix + tensor, updates])),
    digests: [...base.digests, digest],
  };
  for (const path of assembly.adapters) {
    parts = await applyAdapter(parts, await openAdapter(subfolder(folder, path), opened));
  }
  return parts;
}

/** Where a manifest's base is: with it, or in the cache. */
function baseFolder(folder: Folder, { base }: Assembly): Folder {
  if (base.folder !== undefined) return subfolder(folder, base.folder);
  const cached = platform.cachedModel(base.name);
  if (cached === undefined) throw new CheckpointError("a browser has no cache to look for it in");
  return localFolder(cached);
}

/** What `open` gives; where it throws a CheckpointError, one that says what it was for and what to do. */
async function orExplain<T>(what: string, remedy: string, open: () => Promise<T>): Promise<T> {
  try {
    return await open();
  } catch (cause) {
    if (!(cause instanceof CheckpointError)) throw cause;
    throw new CheckpointError(`${what} cannot be opened: ${cause.message}; ${remedy}`, { cause });
  }
}
