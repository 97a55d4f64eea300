import { platform } from "#platform";
import type { ByteSource } from "../platform/platform.ts";
import { CheckpointError } from "../tensor/errors.ts";
import { ADAPTER_CONFIG, openAdapter } from "./adapter.ts";
import { applyAdapter } from "./apply-adapter.ts";
import { ASSEMBLY, type Assembly, readAssembly } from "./assembly.ts";
import { Checkpoint, type CheckpointParts } from "./checkpoint.ts";
import {
  type Folder,
  type HubOptions,
  hubFolder,
  localFolder,
  localSource,
  overlay,
  readJsonObject,
  subfolder,
  urlFolder,
} from "./folder.ts";
import { dequantised } from "./fp8.ts";
import { GgufFile } from "./gguf.ts";
import { quantisationOrNone } from "./quantisation.ts";
import { respeltTokens } from "./respelt-tokens.ts";
import { SafetensorsFile } from "./safetensors.ts";
import { urlSource } from "./sources.ts";
import { renamed, type TensorEntry } from "./tensor-entry.ts";
import { closeAll, type OpenFiles, openTensors, requireTensors } from "./tensor-files.ts";
import { TensorsDigest } from "./tensors-digest.ts";

const CONFIG = "config.json";

export interface CheckpointOptions extends HubOptions {
  /** LoRA adapters in PEFT's layout to put on top, in this order: folders, URLs, hub ids or {@link Folder}s. */
  adapters?: readonly (string | Folder)[];
  /**
   * Where the base of an assembled model or of a PEFT folder is. Without it an assembled model's is looked for in the
   * cache, which browsers do not have, and a PEFT folder's where its config says.
   */
  base?: string | Folder;
}

const NOTHING_ON_TOP: Pick<CheckpointParts, "adapters" | "updates" | "digests"> = {
  adapters: [],
  updates: new Map(),
  digests: [],
};

/**
 * Opens a checkpoint without reading its tensors. `ref` is a local folder, the URL of one (the server has to answer
 * range requests), a hub id such as `org/name`, or any {@link Folder}. Offline, give the snapshot folder of the hub's
 * cache. A folder with an assembly.json is put together from its parts; one with only an adapter_config.json is an adapter
 * on the base that it names. A path or URL that ends in .safetensors or .gguf opens that file alone, for inspection:
 * without config, and with a GGUF's own tensor names. Throws CheckpointError.
 */
export async function openCheckpoint(
  ref: string | Folder,
  options: CheckpointOptions = {},
): Promise<Checkpoint> {
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

/** A lone tensor file; undefined for what is none by its name. */
async function openLoneFile(
  ref: string,
  options: CheckpointOptions,
  opened: OpenFiles,
): Promise<CheckpointParts | undefined> {
  const [, suffix] = /\.(safetensors|gguf)$/i.exec(isUrl(ref) ? new URL(ref).pathname : ref) ?? [];
  if (!suffix) return undefined;
  const source = isUrl(ref) ? await urlSource(ref, options.fetch) : await localSource(ref);
  if (!source) throw new CheckpointError(`${ref}: no such file`);
  const file = await openFile(source, suffix.toLowerCase() === "gguf");
  opened.push(file);
  const entries = new Map<string, TensorEntry>(file.entries.map((e) => [e.name, e]));
  return { name: source.name, entries, ...NOTHING_ON_TOP };
}

async function openFile(source: ByteSource, isGguf: boolean): Promise<GgufFile | SafetensorsFile> {
  try {
    return await (isGguf ? GgufFile : SafetensorsFile).open(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** Where the files of a reference are. Throws CheckpointError for what is no folder, URL or hub id. */
async function folderOf(ref: string | Folder, options: HubOptions): Promise<Folder> {
  if (typeof ref !== "string") return ref;
  if (isUrl(ref)) return urlFolder(ref, options.fetch);
  if (platform.name === "node") {
    for (const file of [CONFIG, ASSEMBLY, ADAPTER_CONFIG]) {
      const probe = await localSource(`${ref}/${file}`);
      await probe?.close();
      if (probe) return localFolder(ref);
    }
  }
  if (/^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(ref)) return hubFolder(ref, options);
  throw new CheckpointError(
    `${ref}: not a folder with a ${CONFIG} (or an ${ASSEMBLY} or ${ADAPTER_CONFIG}), nor a URL, nor a hub id like org/name`,
  );
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
    throw new CheckpointError(`${folder.name}: there is no ${CONFIG}`);
  }
  if (options.base !== undefined) {
    throw new CheckpointError(
      `${folder.name}: a base was given, but this is a whole model, with neither ${ASSEMBLY} nor ${ADAPTER_CONFIG}`,
    );
  }
  const stored = await requireTensors(folder, opened);
  const entries = dequantised(stored, config, quantisationOrNone(config));
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
  const remedy = `${command ? `"${command}" in a checkout of xpatch fetches it; ` : ""}another place may be given as base`;
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
