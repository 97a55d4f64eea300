/** Numbers beside the colours, with both ends. */
const STEPS = 4;

/** The colours of a heat map: from the least value (or 0) to the largest, and the numbers that its legend has to show. */
export function heatScale(values: readonly number[], diverging = false) {
  const largest = Math.max(...values.map(Math.abs)) || 1;
  const domain = diverging
    ? [-largest, largest]
    : [Math.min(0, ...values), Math.max(0, ...values) || (values.some((value) => value < 0) ? 0 : 1)];
  const [low, high] = domain as [number, number];
  const ticks = Array.from({ length: STEPS + 1 }, (_, i) => low + ((high - low) * i) / STEPS);
  return { ...(diverging ? { scheme: "redblue", reverse: true } : { scheme: "viridis" }), domain, ticks };
}
