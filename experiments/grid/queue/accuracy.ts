/** The mean accuracy of the patched answers to test items that a cell's result has; undefined where it has none. */
export function accuracyOf(result: unknown): number | undefined {
  const patched = (result as { patched?: unknown } | undefined)?.patched;
  if (!Array.isArray(patched) || patched.length === 0) return undefined;
  // Sweeps over validation items have scores without answers, a layer each: their mean says nothing.
  if (!patched.every((score) => Array.isArray(score?.answers) && typeof score.accuracy === "number"))
    return undefined;
  return patched.reduce((sum, { accuracy }) => sum + accuracy, 0) / patched.length;
}
