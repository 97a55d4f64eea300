import { CheckpointError } from "../../errors.ts";
import type { Channels, Size } from "./processor-config.ts";

/** Checked access to an object of a preprocessor_config.json. */
export class Fields {
  private readonly fields: Record<string, unknown>;
  private readonly name: string;

  constructor(json: unknown, name: string) {
    if (typeof json !== "object" || json === null || Array.isArray(json)) {
      throw new CheckpointError(`${name}: expected an object, found ${JSON.stringify(json)}`);
    }
    this.fields = json as Record<string, unknown>;
    this.name = name;
  }

  /** What the key has; null counts as absent. */
  value(key: string): unknown {
    return Object.hasOwn(this.fields, key) ? (this.fields[key] ?? undefined) : undefined;
  }

  has(key: string): boolean {
    return this.value(key) !== undefined;
  }

  /** The keys that are there, in alphabetic order. */
  keys(): string[] {
    return Object.keys(this.fields)
      .filter((key) => this.has(key))
      .sort();
  }

  inner(key: string): Fields {
    return new Fields(this.value(key), `${this.name}: ${key}`);
  }

  /** A flag; null, which transformers keeps, is off. */
  flag(key: string, fallback: boolean): boolean {
    const value = Object.hasOwn(this.fields, key) ? (this.fields[key] ?? false) : fallback;
    if (typeof value !== "boolean") throw this.wrong(key, "true or false");
    return value;
  }

  number(key: string): number | undefined {
    const value = this.value(key);
    if (value !== undefined && typeof value !== "number") throw this.wrong(key, "a number");
    return value;
  }

  /** A length in pixels. */
  pixels(key: string): number {
    const value = this.value(key);
    if (!isLength(value)) throw this.wrong(key, "a positive whole number of pixels");
    return value;
  }

  /** A number of things, one or more. */
  count(key: string): number {
    const value = this.value(key);
    if (!isLength(value)) throw this.wrong(key, "a whole number >= 1");
    return value;
  }

  heightAndWidth(key: string): Size {
    const value = this.value(key);
    const [height, width] = Array.isArray(value) && value.length === 2 ? value : [];
    if (!isLength(height) || !isLength(width)) {
      throw this.wrong(key, "a height and a width, positive whole numbers of pixels");
    }
    return { height, width };
  }

  /** Three numbers, or one for all channels. */
  channels(key: string): Channels | undefined {
    const value = this.value(key);
    if (value === undefined) return undefined;
    if (typeof value === "number") return [value, value, value];
    if (Array.isArray(value) && value.length === 3 && value.every((v) => typeof v === "number")) {
      return value as [number, number, number];
    }
    throw this.wrong(key, "a number or three");
  }

  /** What to throw about a key. */
  wrong(key: string, expected: string): CheckpointError {
    const found = JSON.stringify(this.value(key)) ?? "nothing";
    return new CheckpointError(`${this.name}: expected ${key} to be ${expected}, found ${found}`);
  }
}

function isLength(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value > 0;
}
