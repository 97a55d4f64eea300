import type { JobResult } from "./jobs.ts";

/** What is counted rather than timed: the same on every machine with the same kernels. */
const COUNTED: ReadonlySet<string> = new Set([
  "dispatches",
  "copies",
  "submits",
  "pipelines",
  "bindGroups",
  "bytesWritten",
  "rowLayers",
]);

export interface Comparison {
  /** Counts that are higher than they were. */
  readonly grown: readonly string[];
  readonly lines: readonly string[];
}

/** The main jobs of a run beside those of an earlier one: counts have to be no higher, times are a ratio to look at. */
export function compareJobs(now: readonly JobResult[], before: readonly JobResult[]): Comparison {
  const grown: string[] = [];
  const lines: string[] = [];
  for (const job of now) {
    const old = before.find(({ name }) => name === job.name);
    if (!old) {
      lines.push(`${job.name}: not in the earlier results`);
      continue;
    }
    const [figures, earlier] = [numbersOf(job), numbersOf(old)];
    const counts: string[] = [];
    const times: string[] = [];
    for (const [path, value] of figures) {
      const other = earlier.get(path);
      if (other === undefined) continue;
      const key = path.split(".").at(-1)!;
      if (COUNTED.has(key)) {
        if (value > other) grown.push(`${job.name}: ${path} ${value}, was ${other}`);
        counts.push(`${path} ${value}${value === other ? "" : ` (was ${other})`}`);
      } else if (key === "bestMs") times.push(`${path} × ${(value / other).toFixed(2)}`);
    }
    lines.push(`${job.name.padEnd(12)} ${[...counts, ...times].join(", ")}`);
  }
  return { grown, lines };
}

/** Every number of a result by its path. */
function numbersOf(value: object, prefix = ""): Map<string, number> {
  return new Map(
    Object.entries(value).flatMap(([key, inner]): [string, number][] =>
      typeof inner === "number"
        ? [[prefix + key, inner]]
        : typeof inner === "object" && inner !== null
          ? [...numbersOf(inner, `${prefix}${key}.`)]
          : [],
    ),
  );
}
