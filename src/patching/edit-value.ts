import { DTypeError, LifetimeError, SiteError } from "../errors.ts";
import { abs } from "../kernels/elementwise/elementwise.ts";
import { max } from "../kernels/reduction/reduce.ts";
import type { Device } from "../tensor/device.ts";
import { isFloat } from "../tensor/dtype.ts";
import { showShape } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import type { Edit, EditOperation } from "./edit.ts";
import type { Target } from "./site-targets.ts";

/** An edit worked out for the prompts of a run. */
export interface ResolvedEdit {
  readonly edit: Edit;
  readonly target: Target;
  readonly value: Tensor | undefined;
}

export const PROJECTIONS: ReadonlySet<EditOperation> = new Set(["projectOut", "projectOnto"]);
const NEEDS_VALUE: ReadonlySet<EditOperation> = new Set(["set", "add", "interpolate", ...PROJECTIONS]);

/**
 * The value of an edit on the device: [features] or [positions, features]. Throws SiteError when it is missing or does
 * not fit the site or names no direction where one is needed, or the site takes no function, LifetimeError for a tensor that is gone or of another
 * device. Keys of scores and patterns are counted only when the edit is applied.
 */
export function editValue(edit: Edit, target: Target, device: Device): Tensor | undefined {
  if (edit.operation === "transform" && target.layout === "attention") {
    throw new SiteError(`${target.label}: scores and patterns take no function, only the other edits`);
  }
  if (!NEEDS_VALUE.has(edit.operation)) return undefined;
  const { value } = edit;
  if (value === undefined) throw new SiteError(`${target.label}: the edit has no value`);
  const { width } = target;
  const counts = new Set([...target.positions.values()].map((p) => p.length));
  const rows = counts.size === 1 ? [...counts][0]! : undefined;
  const perRow = rows === undefined ? "" : ` or [${rows}, ${width ?? "keys"}]`;
  const reject = (found: string): never => {
    throw new SiteError(`${target.label}: expected a value [${width ?? "keys"}]${perRow}, found ${found}`);
  };
  if (value instanceof Tensor) {
    if (value.disposed) throw new LifetimeError(`${target.label}: the value ${value} has been disposed of`);
    if (value.device !== device) {
      throw new LifetimeError(`${target.label}: the value ${value} lives on another device than the model`);
    }
    if (!isFloat(value.dtype)) throw new DTypeError(`${target.label}: expected floats, found ${value.dtype}`);
    const [n, w] = value.rank === 1 ? [rows, value.dim(0)] : [value.dim(0), value.dim(1)];
    if (value.rank < 1 || value.rank > 2 || n !== rows || (width !== undefined && w !== width)) {
      reject(showShape(value.shape));
    }
    return value.alias(); // the caller may dispose of it while a generation goes on
  }
  const size = width ?? value.length;
  const whole = rows !== undefined && value.length === rows * size;
  if (value.length !== size && !whole) reject(`${value.length} numbers`);
  const shape = value.length === size ? [size] : [rows!, size];
  const numbers = PROJECTIONS.has(edit.operation) ? directions(value, size, target) : value;
  const large = Array.isArray(numbers) ? numbers.find((x) => Number.isFinite(x) && !isF32(x)) : undefined;
  if (large !== undefined) throw new SiteError(`${target.label}: ${large} is beyond the range of f32`);
  return device.tensor(numbers, { shape });
}

/**
 * Looks at the directions that are tensors, which waits for the device. Throws SiteError for one that is all 0 or holds
 * what is not finite.
 */
export async function checkDirections(edits: readonly ResolvedEdit[]): Promise<void> {
  const onDevice = edits.filter(
    ({ edit }) => PROJECTIONS.has(edit.operation) && edit.value instanceof Tensor,
  );
  const [first] = onDevice;
  if (!first) return;
  const { device } = first.value!;
  const sizes = device.scope(() => onDevice.map(({ value }) => max(abs(value!), -1)));
  const read = await device.read(sizes);
  for (const size of sizes) size.dispose();
  onDevice.forEach(({ target }, i) => {
    // Scores have -infinity where their row does not attend.
    const infinite = target.layout === "attention";
    for (const largest of read[i]!) checkDirection(infinite ? Math.min(largest, 1) : largest, target);
  });
}

/** Throws SiteError when the largest magnitude of a direction's numbers is none. */
function checkDirection(largest: number, { label }: Target): void {
  if (largest > 0 && largest < Number.POSITIVE_INFINITY) return;
  const found = largest === 0 ? "zeros alone" : largest;
  throw new SiteError(`${label}: expected a direction of finite numbers, not all 0, found ${found}`);
}

const isF32 = (x: number) => Number.isFinite(Math.fround(x));

/** Directions of `size` numbers each, with a largest magnitude of 1, so that those of any length fit f32. */
function directions(value: ArrayLike<number>, size: number, target: Target): Float32Array {
  const scaled = new Float32Array(value.length);
  for (let start = 0; start < value.length; start += size) {
    const row = Array.from({ length: size }, (_, i) => value[start + i]!);
    const attended = target.layout === "attention" ? row.filter((x) => x !== Number.NEGATIVE_INFINITY) : row;
    const largest = attended.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    checkDirection(largest, target);
    scaled.set(
      row.map((x) => x / largest),
      start,
    );
  }
  return scaled;
}
