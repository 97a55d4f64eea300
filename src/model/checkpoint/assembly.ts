import { CheckpointError } from "../../errors.ts";
import { ConfigReader, isObject, type JsonObject } from "./json/config-reader.ts";

export const ASSEMBLY = "assembly.json";
const FORMAT = "xpatch-assembly";
const VERSION = 1;

/** The parts of a model that is put together at load: what assembly.json says. */
export interface Assembly {
  readonly base: {
    /** What set-up calls it, and its folder in the cache. */
    readonly name: string;
    /** Digest of its tensors; see `TensorsDigest`. */
    readonly sha256: string;
    /** Where it comes along with the rest: a path inside the folder, or beside it. */
    readonly folder: string | undefined;
    /** The command that puts it into the cache. */
    readonly command: string | undefined;
  };
  /** In front of the names of the base's tensors. */
  readonly prefix: string;
  /** Folders of adapters, in order: the folder itself (`.`), or paths inside of it or beside it. */
  readonly adapters: readonly string[];
  /** Tokens of the base that are spelt otherwise here, by id. */
  readonly tokens: ReadonlyMap<number, string>;
}

/** Throws CheckpointError that names the field that is missing or makes no sense. */
export function readAssembly(json: JsonObject, where: string): Assembly {
  const c = new ConfigReader(json, where);
  const format = `${c.string("format")} ${c.count("version")}`;
  if (format !== `${FORMAT} ${VERSION}`) {
    throw new CheckpointError(`${where}: expected format ${FORMAT}, version ${VERSION}, found ${format}`);
  }
  const base = c.section("base");
  const name = base.string("name");
  if (!/^[\w-][\w.-]*$/.test(name)) {
    throw new CheckpointError(`${where}: expected base.name to be a folder's name, found ${quote(name)}`);
  }
  const sha256 = base.string("sha256");
  if (!/^[0-9a-f]{64}$/.test(sha256)) {
    throw new CheckpointError(
      `${where}: expected base.sha256 to be 64 hexadecimal digits, found ${quote(sha256)}`,
    );
  }
  const folder = base.has("folder") ? base.string("folder") : undefined;
  if (folder !== undefined) checkNearby(folder, where);
  const adapters = json["adapters"] ?? [];
  if (!Array.isArray(adapters) || !adapters.every((path) => typeof path === "string")) {
    throw new CheckpointError(`${where}: expected adapters to be a list of paths`);
  }
  for (const path of adapters) checkNearby(path, where);
  return {
    base: { name, sha256, folder, command: base.has("command") ? base.string("command") : undefined },
    prefix: c.string("prefix", ""),
    adapters,
    tokens: readTokens(json["tokens"] ?? {}, where),
  };
}

/** The folder itself, inside of it or beside it, so that a manifest from elsewhere cannot reach further. */
function checkNearby(path: string, where: string): void {
  if (path === ".") return;
  const segments = path.replace(/^\.\.\//, "").split("/");
  if (/[\\:\0]/.test(path) || segments.some((s) => s === "" || s === "." || s === "..")) {
    throw new CheckpointError(
      `${where}: ${quote(path)} is not a path inside the folder (. or x) or beside it (../x)`,
    );
  }
}

function readTokens(json: unknown, where: string): Map<number, string> {
  if (!isObject(json)) throw new CheckpointError(`${where}: expected tokens to be an object`);
  return new Map(
    Object.entries(json).map(([id, token]) => {
      if (!/^\d{1,9}$/.test(id) || typeof token !== "string" || token === "") {
        throw new CheckpointError(
          `${where}: expected tokens to give spellings by id, found ${quote(id)}: ${quote(token)}`,
        );
      }
      return [Number(id), token];
    }),
  );
}

function quote(value: unknown): string {
  return JSON.stringify(value);
}
