import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import { ConfigReader, isObject, type JsonObject } from "../model/checkpoint/json/config-reader.ts";
import { readTextFile } from "../platform/node-text.ts";
import type { Tolerance } from "./checks.ts";
import { GoldenFile } from "./golden-file.ts";

/** What one case (or the batch) of a folder was computed from, next to the goldens whose names start with `name`. */
export interface GoldenCase {
  /** `case0`, `case1`, …, `batch` */
  readonly name: string;
  /** A prompt each: the one of a case, or those of the batch. */
  readonly items: readonly JsonObject[];
  /** The case's own entry in case.json. */
  readonly spec: ConfigReader;
}

/** A folder with case.json, golden.safetensors and a checkpoint, as the Hugging Face side wrote it. */
export class CaseFolder {
  readonly path: string;
  /** The folder of the checkpoint. */
  readonly model: string;
  /** What kind of model it is, in case.json's words. */
  readonly kind: string;
  readonly cases: readonly GoldenCase[];
  readonly tolerance: Tolerance;
  readonly goldens: GoldenFile;

  private constructor(path: string, json: JsonObject, goldens: GoldenFile) {
    const where = join(path, "case.json");
    const spec = new ConfigReader(json, where);
    const tolerance = spec.section("tolerance");
    this.path = path;
    this.kind = spec.string("kind", "");
    this.model = join(path, spec.string("checkpoint", "model"));
    this.tolerance = { atol: tolerance.number("atol"), rtol: tolerance.number("rtol") };
    this.goldens = goldens;
    const cases = objects(json["cases"] ?? [], `${where}: cases`).map((item, i) => ({
      name: `case${i}`,
      items: [item],
      spec: new ConfigReader(item, `${where}: case ${i}`),
    }));
    const { batch } = json;
    if (isObject(batch)) {
      const items = objects(batch["items"], `${where}: batch.items`);
      cases.push({ name: "batch", items, spec: new ConfigReader(batch, `${where}: batch`) });
    }
    this.cases = cases;
  }

  /** Throws CheckpointError when a file is missing, damaged or not of this form. */
  static async open(path: string): Promise<CaseFolder> {
    const json = await readJson(join(path, "case.json"));
    const goldens = await GoldenFile.open(join(path, "golden.safetensors"));
    try {
      return new CaseFolder(path, json, goldens);
    } catch (error) {
      await goldens.close();
      throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.goldens.close();
  }
}

/** A JSON file that holds an object. Throws CheckpointError for anything else. */
export async function readJson(path: string): Promise<JsonObject> {
  const reject = (cause: Error): never => {
    throw new CheckpointError(`${path}: ${cause.message}`, { cause });
  };
  const text = await readTextFile(path).catch(reject);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    reject(error as Error);
  }
  return isObject(json) ? json : reject(new Error("expected a JSON object"));
}

/** A list of JSON objects. Throws CheckpointError, with `where` in front, for anything else. */
export function objects(value: unknown, where: string): JsonObject[] {
  if (Array.isArray(value) && value.every(isObject)) return value;
  throw new CheckpointError(`${where}: expected a list of objects`);
}
