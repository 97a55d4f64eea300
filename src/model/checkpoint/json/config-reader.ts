import { CheckpointError } from "../../../errors.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Typed access to a config.json (or one of its sections). Values that are absent or null fall back to the default of
 * the Hugging Face config class; without a default they are an error that names the field.
 */
export class ConfigReader {
  readonly #values: JsonObject;
  readonly #where: string;

  constructor(values: JsonObject, where: string) {
    this.#values = values;
    this.#where = where;
  }

  has(key: string): boolean {
    return this.#values[key] !== undefined && this.#values[key] !== null;
  }

  get keys(): string[] {
    return Object.keys(this.#values);
  }

  /** What stands there; undefined for null too. */
  value(key: string): unknown {
    return this.#values[key] ?? undefined;
  }

  /** A whole number >= `least`. */
  count(key: string, fallback?: number, least = 1): number {
    const value = this.number(key, fallback);
    if (!Number.isSafeInteger(value) || value < least) this.#reject(key, `a whole number >= ${least}`);
    return value;
  }

  integer(key: string, fallback?: number): number {
    const value = this.number(key, fallback);
    if (!Number.isSafeInteger(value)) this.#reject(key, "a whole number");
    return value;
  }

  number(key: string, fallback?: number): number {
    return this.#get(key, fallback, "a number", (v) => typeof v === "number" && Number.isFinite(v));
  }

  /** A number above 0. */
  positive(key: string, fallback?: number): number {
    const value = this.number(key, fallback);
    if (value <= 0) this.#reject(key, "a number above 0");
    return value;
  }

  boolean(key: string, fallback?: boolean): boolean {
    return this.#get(key, fallback, "true or false", (v) => typeof v === "boolean");
  }

  string(key: string, fallback?: string): string {
    return this.#get(key, fallback, "a string", (v) => typeof v === "string");
  }

  /** A nested object; empty when absent. */
  object(key: string): JsonObject {
    return this.#get<JsonObject>(key, {}, "an object", isObject);
  }

  /** A nested object as a reader of its own; empty when absent. */
  section(key: string): ConfigReader {
    return new ConfigReader(this.object(key), `${this.#where}.${key}`);
  }

  #get<T>(key: string, fallback: T | undefined, expected: string, fits: (value: unknown) => boolean): T {
    const value = this.#values[key] ?? fallback;
    if (value === undefined)
      throw new CheckpointError(`${this.#where}: ${key} is missing (expected ${expected})`);
    if (!fits(value)) this.#reject(key, expected);
    return value as T;
  }

  #reject(key: string, expected: string): never {
    const found = JSON.stringify(this.#values[key]);
    throw new CheckpointError(`${this.#where}: expected ${key} to be ${expected}, found ${found}`);
  }
}
