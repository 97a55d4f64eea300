import { CheckpointError } from "../errors.ts";
import { type Shape, sizeOf } from "../tensor/shape.ts";

/** Stands for a value that a thinned golden leaves out: a number that no activation has, the largest f32 but one. */
export const OMITTED: number = new Float32Array(new Uint32Array([0x7f7ffffe]).buffer)[0]!;

/** A golden of which only every n-th number is in the file, row-major, and behind those, if not among them, that at `largest`. */
export interface Thinned {
  readonly shape: Shape;
  readonly every: number;
  /** Where the number of the largest absolute value is: tolerances may be relative to it. */
  readonly largest: number;
}

/** The safetensors `__metadata__` of thinned goldens: JSON, by name. */
const KEY = "thinned";

/** Throws CheckpointError for metadata that is not what `thinnedMetadata` writes. */
export function readThinned(
  metadata: ReadonlyMap<string, string>,
  where: string,
): ReadonlyMap<string, Thinned> {
  const text = metadata.get(KEY);
  if (text === undefined) return new Map();
  const entries: [string, Thinned][] = Object.entries(JSON.parse(text));
  for (const [name, { shape, every, largest }] of entries) {
    const whole = [...shape, every, largest].every((n) => Number.isSafeInteger(n) && n >= 0);
    if (whole && every > 0 && largest < sizeOf(shape)) continue;
    throw new CheckpointError(
      `${where}: ${name} is said to be thinned, with a shape, step or place that makes no sense`,
    );
  }
  return new Map(entries);
}

export function thinnedMetadata(thinned: ReadonlyMap<string, Thinned>): Record<string, string> {
  return thinned.size === 0 ? {} : { [KEY]: JSON.stringify(Object.fromEntries(thinned)) };
}

/** What is kept of a golden, or undefined where values of its own could be taken for ones left out. */
export function thin(
  values: Float32Array,
  { every, largest }: Omit<Thinned, "shape">,
): Float32Array | undefined {
  if (values.some((value) => value === OMITTED || Number.isNaN(value))) return undefined;
  const kept = values.filter((_, i) => i % every === 0);
  return largest % every === 0 ? kept : Float32Array.from([...kept, values[largest]!]);
}

/** A thinned golden in its own shape. Throws CheckpointError when `kept` has another length than it would have. */
export function expand(kept: Float32Array, { shape, every, largest }: Thinned, where: string): Float32Array {
  const values = new Float32Array(sizeOf(shape)).fill(OMITTED);
  const places = Array.from({ length: Math.ceil(values.length / every) }, (_, i) => i * every);
  if (largest % every !== 0) places.push(largest);
  if (kept.length !== places.length) {
    throw new CheckpointError(
      `${where}: expected ${places.length} numbers of [${shape}], found ${kept.length}`,
    );
  }
  for (const [i, place] of places.entries()) values[place] = kept[i]!;
  return values;
}
