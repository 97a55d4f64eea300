import { FileError } from "../errors.ts";
import type { ParquetFile } from "./parquet-file.ts";

/** What the data-set library of Hugging Face writes about columns into a file's metadata, as far as it matters here. */
export interface Feature {
  /** `ClassLabel`, `Image`, `Value`, `List`, … ; undefined of a struct. */
  readonly type: string | undefined;
  /** The names of class labels, by number. */
  readonly names?: readonly string[];
  /** Of what a list holds. */
  readonly of?: Feature;
  /** Of a struct's fields. */
  readonly fields?: ReadonlyMap<string, Feature>;
}

/** The features of a file's columns; none where the library did not write it. Throws FileError where they are damaged. */
export function featuresOf(file: Pick<ParquetFile, "name" | "metadata">): ReadonlyMap<string, Feature> {
  const text = file.metadata.get("huggingface");
  if (text === undefined) return new Map();
  try {
    return fieldsOf(JSON.parse(text).info.features);
  } catch (cause) {
    throw new FileError(
      `${file.name}: expected the metadata "huggingface" to be JSON with info.features: ${(cause as Error).message}`,
      { cause },
    );
  }
}

type Json = Readonly<Record<string, unknown>>;

function fieldsOf(features: object): ReadonlyMap<string, Feature> {
  return new Map(Object.entries(features).map(([name, feature]) => [name, featureOf(feature)]));
}

function featureOf(json: unknown): Feature {
  // Before 4.0 of the library a list was a JSON array of one feature.
  if (Array.isArray(json)) return { type: "List", of: featureOf(json[0]) };
  if (typeof json !== "object" || json === null)
    throw new Error(`expected a feature, found ${JSON.stringify(json)}`);
  const { _type: type, names, feature } = json as Json;
  if (typeof type !== "string") return { type: undefined, fields: fieldsOf(json) };
  if (type === "ClassLabel") {
    if (!Array.isArray(names) || !names.every((name) => typeof name === "string")) {
      throw new Error("expected a ClassLabel to have names");
    }
    return { type, names };
  }
  return feature === undefined ? { type } : { type, of: featureOf(feature) };
}
