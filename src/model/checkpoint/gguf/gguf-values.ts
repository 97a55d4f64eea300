import { CheckpointError } from "../../../errors.ts";
import type { GgufFile } from "./gguf.ts";

/** Metadata of a GGUF file by key, checked: what is missing or of another type is a CheckpointError. */
export class GgufValues {
  readonly #file: GgufFile;

  constructor(file: GgufFile) {
    this.#file = file;
  }

  error(what: string): CheckpointError {
    return new CheckpointError(`${this.#file.name}: ${what}`);
  }

  has(key: string): boolean {
    return this.#file.metadata.has(key);
  }

  number(key: string, fallback?: number): number {
    const value = this.#file.metadata.get(key) ?? fallback;
    if (typeof value !== "number") throw this.#wrong(key, "a number");
    return value;
  }

  /** A whole number of at least one. */
  size(key: string, fallback?: number): number {
    const value = this.number(key, fallback);
    if (!Number.isSafeInteger(value) || value < 1) throw this.#wrong(key, "a whole number above zero");
    return value;
  }

  string(key: string, fallback?: string): string {
    const value = this.#file.metadata.get(key) ?? fallback;
    if (typeof value !== "string") throw this.#wrong(key, "a string");
    return value;
  }

  strings(key: string): readonly string[] {
    const value = this.#file.metadata.get(key);
    if (!Array.isArray(value)) throw this.#wrong(key, "an array of strings");
    return value;
  }

  integers(key: string): Int32Array {
    const value = this.#file.metadata.get(key);
    if (!(value instanceof Int32Array)) throw this.#wrong(key, "an array of int32");
    return value;
  }

  #wrong(key: string, expected: string): CheckpointError {
    const value = this.#file.metadata.get(key);
    const found = value === undefined ? "nothing" : typeof value === "object" ? "an array" : String(value);
    return this.error(`${key}: expected ${expected}, found ${found}`);
  }
}
