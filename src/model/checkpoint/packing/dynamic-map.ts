const f = Math.fround;

/**
 * What the bytes of bitsandbytes' dynamic data type stand for (Dettmers 2015, arXiv 1511.04561; 2022, arXiv 2110.02861): a sign,
 * a run of zeros for a power of ten, and a linear fraction. Sorted; each step in f32, as `create_dynamic_map()` has them.
 */
export const DYNAMIC_MAP: Float32Array<ArrayBuffer> = dynamicMap();

function dynamicMap(): Float32Array<ArrayBuffer> {
  const values: number[] = [0, 1];
  for (let exponent = 0; exponent < 7; exponent++) {
    const bounds = linspace(2 ** exponent + 1);
    for (let i = 1; i < bounds.length; i++) {
      const mean = f(f(bounds[i - 1]! + bounds[i]!) / 2);
      const value = f(f(10 ** (exponent - 6)) * mean);
      values.push(value, -value);
    }
  }
  return Float32Array.from(values.sort((a, b) => a - b));
}

/** From 0.1 to 1, counted from whichever end is nearer; products and sums are rounded once. */
function linspace(count: number): number[] {
  const [start, end] = [f(0.1), 1];
  const step = f(f(end - start) / (count - 1));
  return Array.from({ length: count }, (_, i) =>
    i < count >> 1 ? f(start + step * i) : f(end - step * (count - 1 - i)),
  );
}

/** The byte for a number from -1 to 1, found as bitsandbytes' kernels find it. */
export function dynamicCode(x: number): number {
  let [pivot, low, high] = [127, 0, 255];
  for (let step = 64; step > 0; step >>= 1) {
    if (x > DYNAMIC_MAP[pivot]!) {
      low = pivot;
      pivot += step;
    } else {
      high = pivot;
      pivot -= step;
    }
  }
  const value = DYNAMIC_MAP[pivot]!;
  if (x > value) return x > f(f(DYNAMIC_MAP[high]! + value) * 0.5) ? high : pivot;
  return x < f(f(DYNAMIC_MAP[low]! + value) * 0.5) ? low : pivot;
}
