import { isDeepStrictEqual } from "node:util";
import type { Checkpoint } from "../../src/model/checkpoint/checkpoint.ts";
import type { Picture } from "../../src/model/checkpoint/config/vision-setup.ts";
import { isObject, type JsonObject } from "../../src/model/checkpoint/json/config-reader.ts";
import { openCheckpoint } from "../../src/model/checkpoint/open-checkpoint.ts";
import type { Folder } from "../../src/model/checkpoint/source/folder.ts";
import { checkWeights } from "../../src/model/checkpoint/weights/check-weights.ts";
import { type ModelFiles, readModelFiles } from "../../src/model/model-files.ts";
import type { Device } from "../../src/tensor/device.ts";

/**
 * All that loading a language model takes from its config.json: configs that give the same load the same model. Functions among
 * it are compared by their text and by how they lay out the pictures; the settings that they close over are beside them.
 */
export class ConfigReading {
  readonly #pictures: readonly Picture[];
  /** What there is before a network is built. */
  readonly #facts: unknown;
  /** What building one looks up in the config itself: JSON by path. */
  readonly #lookedUp: ReadonlyMap<string, string>;

  private constructor(pictures: readonly Picture[], facts: unknown, lookedUp: ReadonlyMap<string, string>) {
    this.#pictures = pictures;
    this.#facts = facts;
    this.#lookedUp = lookedUp;
  }

  static async of(folder: Folder, pictures: readonly Picture[], device: Device): Promise<ConfigReading> {
    await using checkpoint = await openCheckpoint(folder);
    const files = await readModelFiles(checkpoint);
    const lookedUp = new Map<string, string>();
    const json = watched(files.config, [], lookedUp);
    await checkWeights(checkpoint, device, (weights) => files.family.build(weights, files.decoder, json));
    return new ConfigReading(pictures, factsOf(checkpoint, files, pictures), lookedUp);
  }

  /** Whether the config of another folder, with the same files otherwise, loads the same. Throws as loading it does. */
  async equals(folder: Folder): Promise<boolean> {
    await using checkpoint = await openCheckpoint(folder);
    const files = await readModelFiles(checkpoint);
    return (
      isDeepStrictEqual(factsOf(checkpoint, files, this.#pictures), this.#facts) &&
      [...this.#lookedUp].every(([path, json]) => jsonAt(files.config, JSON.parse(path)) === json)
    );
  }
}

function factsOf(
  { entries }: Checkpoint,
  { family, decoder, endIds }: ModelFiles,
  pictures: readonly Picture[],
): unknown {
  const tensors = entries.map(({ name, shape, stored, dtype, byteLength, problem, packed }) => {
    return { name, shape, stored, dtype, byteLength, problem, packed: packed !== undefined };
  });
  const layouts = pictures.map((picture) => decoder.vision?.layout(picture));
  return { family: family.modelType, decoder: comparable(decoder), endIds, tensors, layouts };
}

/** With functions as their text, and what has hidden parts as something that equals nothing else. */
function comparable(value: unknown): unknown {
  if (typeof value === "function") return String(value);
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(comparable);
  const kind = Object.getPrototypeOf(value);
  if (kind === Map.prototype || kind === Set.prototype)
    return [kind.constructor.name, ...(value as Iterable<unknown>)].map(comparable);
  if (kind !== Object.prototype) return Symbol("has hidden parts");
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, comparable(part)]));
}

/** The same object; what is looked up in it is noted. */
function watched(json: JsonObject, path: readonly string[], lookedUp: Map<string, string>): JsonObject {
  const note = (at: readonly string[], value: unknown) => lookedUp.set(JSON.stringify(at), showJson(value));
  return new Proxy(json, {
    get(object, key) {
      const value = Reflect.get(object, key);
      if (typeof key === "symbol") return value;
      const at = [...path, key];
      if (isObject(value)) return watched(value, at, lookedUp);
      note(at, value);
      return value;
    },
    has(object, key) {
      note([...path, String(key)], Reflect.get(object, key));
      return Reflect.has(object, key);
    },
    ownKeys(object) {
      note(path, object);
      return Reflect.ownKeys(object);
    },
  });
}

function jsonAt(json: unknown, path: readonly string[]): string {
  return showJson(path.reduce((value, key) => (isObject(value) ? value[key] : undefined), json));
}

const showJson = (value: unknown) => JSON.stringify(value) ?? "absent";
