/** Numbers beside the colours, with both ends. */
const STEPS = 4;

/**
 * The colours of a heat map: from the least value (or 0) to the largest, and the numbers that its legend has to show, with their format. Values
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
  // Two decimals would make those of small values all alike.
  const format = Math.max(-low, high) < 0.1 || Math.max(-low, high) >= 1e6 ? ".3~g" : ".2f";
  return {
    ...(diverging ? { scheme: "redblue", reverse: true } : { scheme: "viridis" }),
    domain,
    ticks,
    format,
  };
}
