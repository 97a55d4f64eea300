/** Numbers beside the colours, with both ends. */
const STEPS = 4;

/**
 * The colours of a heat map: from the least value (or 0) to the largest, and the numbers that its legend has to show. Values
 * that are not finite do not count.
 */
export function heatScale(values: readonly number[], diverging = false) {
  let [least, most] = [0, 0];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    least = Math.min(least, value);
    most = Math.max(most, value);
  }
  const largest = Math.max(-least, most) || 1;
  const domain: readonly [number, number] = diverging
    ? [-largest, largest]
    : [least, most || (least < 0 ? 0 : 1)];
  const [low, high] = domain;
  const ticks = Array.from({ length: STEPS + 1 }, (_, i) => low + ((high - low) * i) / STEPS);
  return { ...(diverging ? { scheme: "redblue", reverse: true } : { scheme: "viridis" }), domain, ticks };
}
