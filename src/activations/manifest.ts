import { FileError } from "../errors.ts";
import { isObject } from "../model/checkpoint/json/config-reader.ts";
import { parseSite, type SiteName } from "../model/walk/sites.ts";
import type { Positions } from "../patching/positions.ts";

/** The file that makes a folder an activation store. */
export const MANIFEST = "activations.json";
const FORMAT = "xpatch.activations.1";

export const FILE_KINDS = ["safetensors", "parquet"] as const;
export type FileKind = (typeof FILE_KINDS)[number];

export const STORE_DTYPES = ["f32", "f16"] as const;
export type StoreDType = (typeof STORE_DTYPES)[number];

/** Which positions of a prompt: plain data, so that a run that goes on can tell that they are the same. */
export type PlainPositions = Exclude<Positions, (...args: never) => unknown>;

/** A site of a store. */
export interface StoredSite {
  readonly site: SiteName;
  /** Length of its vectors. */
  readonly width: number;
}

/** What a store is of: whoever goes on with it has to have the same. */
export interface StoreSetting {
  /** The model's name: a folder, URL or hub id. */
  readonly model: string;
  readonly family: string;
  /** Dtypes of its weights as stored, most bytes first. */
  readonly weights: readonly string[];
  /** LoRA adapters that are part of it. */
  readonly adapters: readonly string[];
  /** In the order of the forward pass. */
  readonly sites: readonly StoredSite[];
  readonly positions: PlainPositions;
  /** Which image's rows, at sites that have rows of images; null for the only one. */
  readonly image: number | null;
  readonly dtype: StoreDType;
  readonly files: FileKind;
  /** Bytes of vectors, and of prompts, after which a shard ends, with the prompt that it is at. */
  readonly shardBytes: number;
}

/** A shard: a file for each site, and one with its prompts. */
export interface StoredShard {
  /** Prompts `start` up to but not including `end`, counted from the store's first. */
  readonly prompts: { readonly start: number; readonly end: number };
  /** Of their token ids, see `hashPrompts`; and of the bytes of their pictures, where there are any. */
  readonly promptHash: string;
  /** Rows in the file of each site, in the order of the sites. */
  readonly rows: readonly number[];
}

/** What a store says of itself: what was collected, of which model, and its shards. */
export interface Manifest extends StoreSetting {
  /** Whether all prompts that were given are in it. */
  readonly complete: boolean;
  readonly shards: readonly StoredShard[];
}

/** The name of a site's file in a shard. */
export function shardFile(shard: number, site: SiteName, kind: FileKind): string {
  return `${site}-${numbered(shard)}.${kind}`;
}

/** The name of the file with a shard's prompts. */
export function promptsFile(shard: number): string {
  return `prompts-${numbered(shard)}.jsonl`;
}

function numbered(shard: number): string {
  return String(shard).padStart(5, "0");
}

export function encodeManifest(manifest: Manifest): string {
  return `${JSON.stringify({ format: FORMAT, ...manifest }, undefined, 1)}\n`;
}

/** Reads and checks a manifest. Throws FileError naming what is wrong with it. */
export function parseManifest(text: string, where: string): Manifest {
  const damaged = (what: string): never => {
    throw new FileError(
      `${where}: expected the ${MANIFEST} of an activation store (${FORMAT}), found ${what}`,
    );
  };
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return damaged("no JSON");
  }
  if (!isObject(json)) return damaged("no object");
  const { format, ...rest } = json;
  if (format !== FORMAT) return damaged(`format ${JSON.stringify(format)}`);
  const wrong = Object.entries(FIELDS).find(([key, fits]) => !fits(rest[key]));
  if (wrong) return damaged(`${wrong[0]} ${JSON.stringify(rest[wrong[0]])?.slice(0, 80)}`);
  const manifest = rest as unknown as Manifest;
  let next = 0;
  for (const [i, { prompts, rows }] of manifest.shards.entries()) {
    if (prompts.start !== next || prompts.end <= next)
      return damaged(`shard ${i} of other prompts than the next`);
    if (rows.length !== manifest.sites.length) return damaged(`shard ${i} of ${rows.length} sites`);
    next = prompts.end;
  }
  return manifest;
}

const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
const isText = (value: unknown) => typeof value === "string";
const listOf = (fits: (value: unknown) => boolean) => (value: unknown) =>
  Array.isArray(value) && value.every(fits);

const FIELDS: Readonly<Record<keyof Manifest, (value: unknown) => boolean>> = {
  model: isText,
  family: isText,
  weights: listOf(isText),
  adapters: listOf(isText),
  sites: (value) => listOf(isStoredSite)(value) && (value as unknown[]).length > 0,
  positions: (value) => value !== undefined && value !== null,
  image: (value) => value === null || isCount(value),
  dtype: (value) => STORE_DTYPES.includes(value as StoreDType),
  files: (value) => FILE_KINDS.includes(value as FileKind),
  shardBytes: (value) => isCount(value) && (value as number) > 0,
  complete: (value) => typeof value === "boolean",
  shards: listOf(isShard),
};

function isStoredSite(value: unknown): boolean {
  if (!isObject(value) || !isText(value["site"]) || !isCount(value["width"])) return false;
  try {
    parseSite(value["site"] as string);
    return true;
  } catch {
    return false;
  }
}

function isShard(value: unknown): boolean {
  if (!isObject(value) || !isText(value["promptHash"]) || !listOf(isCount)(value["rows"])) return false;
  const { prompts } = value;
  return isObject(prompts) && isCount(prompts["start"]) && isCount(prompts["end"]);
}

/** What of a setting is other than before, in words; undefined where nothing is. */
export function settingChange(before: StoreSetting, now: StoreSetting): string | undefined {
  const keys = [
    "model",
    "family",
    "weights",
    "adapters",
    "sites",
    "positions",
    "image",
    "dtype",
    "files",
    "shardBytes",
  ];
  const of = (setting: StoreSetting, key: string) => JSON.stringify(setting[key as keyof StoreSetting]);
  const key = keys.find((each) => of(before, each) !== of(now, each));
  return key && `${key} ${of(before, key).slice(0, 160)}, now ${of(now, key).slice(0, 160)}`;
}
