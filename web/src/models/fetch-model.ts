import { bytesInWords } from "../ui/words.ts";
import { fetchFile } from "./fetch-file.ts";
import { keyOf, type Manifest, totalBytes } from "./manifest.ts";
import { lockOf, NoRoomError, RECORDS_LOCK, type Vault } from "./vault.ts";

export interface FetchModelOptions {
  readonly signal: AbortSignal;
  readonly onProgress: (progress: FetchProgress) => void;
}

export interface FetchProgress {
  /** The file that is coming. */
  readonly file: string;
  /** Of all files, those that were there before as well. */
  readonly bytes: number;
  readonly total: number;
}

/** Brings all files of a model into the vault, one after the other. Throws CheckpointError and NoRoomError. */
export async function fetchModel(
  vault: Vault,
  id: string,
  manifest: Manifest,
  { signal, onProgress }: FetchModelOptions,
): Promise<void> {
  const total = totalBytes(manifest);
  await checkRoom(vault, manifest);
  let before = 0;
  // Known before it is whole, so that a download that was given up can be seen and removed.
  await navigator.locks.request(RECORDS_LOCK, () => vault.addModel({ id, manifest }));
  for (const file of manifest.files) {
    await fetchFile(vault, file, {
      signal,
      onBytes: (bytes) => onProgress({ file: file.path, bytes: before + bytes, total }),
    });
    before += file.bytes;
  }
}

/** Browsers let a site keep a part of the disk, which may be little; some do not say how little before it is full. */
async function checkRoom(vault: Vault, { files }: Manifest): Promise<void> {
  const { quota, usage = 0 } = await navigator.storage.estimate();
  if (quota === undefined) return;
  const kept = await vault.files();
  const missing = files.reduce((sum, file) => sum + file.bytes - (kept.get(keyOf(file))?.bytes ?? 0), 0);
  const room = Math.max(0, quota - usage);
  if (missing <= room) return;
  throw new NoRoomError(
    `it takes ${bytesInWords(missing)} more, and this browser has ${bytesInWords(room)} for this site`,
  );
}

/** What a model takes in the vault. */
export interface KeptBytes {
  readonly id: string;
  readonly manifest: Manifest;
  readonly bytes: number;
  /** Those of the model when it is whole. */
  readonly total: number;
  readonly whole: boolean;
}

export async function keptBytes(vault: Vault): Promise<KeptBytes[]> {
  const files = await vault.files();
  const models = await navigator.locks.request(RECORDS_LOCK, { mode: "shared" }, () => vault.models());
  return models.map(({ id, manifest }) => {
    const kept = manifest.files.map((file) => files.get(keyOf(file)));
    return {
      id,
      manifest,
      bytes: kept.reduce((sum, file) => sum + (file?.bytes ?? 0), 0),
      total: totalBytes(manifest),
      whole: kept.every((file) => file?.whole),
    };
  });
}

/**
 * Removes a model, and the files that no other one has; without `id`, files alone that belong to none. Files that are being fetched, here
 * or in another tab, stay.
 */
export async function removeModel(vault: Vault, id: string | undefined): Promise<void> {
  // Nobody adds a model between looking which files are needed and removing the others.
  await navigator.locks.request(RECORDS_LOCK, async () => {
    if (id !== undefined) await vault.removeModel(id);
    const needed = new Set((await vault.models()).flatMap(({ manifest }) => manifest.files.map(keyOf)));
    for (const key of (await vault.files()).keys()) {
      if (needed.has(key)) continue;
      await navigator.locks.request(lockOf(key), { ifAvailable: true }, async (lock) => {
        if (lock) await vault.removeFile(key);
      });
    }
  });
}
