import { writePage } from "../report/page.ts";
import { writeFindings } from "../report/write.ts";
import type { Experiment, Findings } from "./experiment.ts";
import type { Lab } from "./lab.ts";

export interface RunProgress {
  readonly experiment: string;
  /** The cell that is next, or undefined at the end. */
  readonly cell: string | undefined;
  readonly done: number;
  readonly total: number;
  /** Estimate from the cells of the same kind so far; undefined while there are none. */
  readonly secondsLeft: number | undefined;
}

export interface Finished {
  readonly experiment: Experiment;
  readonly findings: Findings;
}

/** Runs experiments one after the other; each one's results are written as it ends, and the report after each. */
export async function runExperiments(
  lab: Lab,
  experiments: readonly Experiment[],
  onProgress: (progress: RunProgress) => void = () => {},
): Promise<Finished[]> {
  const plan = experiments.map((experiment) => {
    const untestable = experiment.untestable?.(lab);
    return { experiment, untestable, cells: untestable === undefined ? experiment.cells(lab) : [] };
  });
  const keys = new Map(plan.flatMap(({ cells }) => cells.map(({ key, kind }) => [key, kind] as const)));
  const progress = (experiment: string, cell?: string) => {
    const left = [...keys].filter(([key]) => !lab.store.get(key)).map(([, kind]) => kind);
    const done = keys.size - left.length;
    onProgress({ experiment, cell, done, total: keys.size, secondsLeft: secondsLeft(lab, left) });
  };
  const finished: Finished[] = [];
  for (const { experiment, untestable, cells } of plan) {
    for (const cell of cells) {
      progress(experiment.name, cell.key);
      await lab.run(cell);
    }
    progress(experiment.name);
    const findings = untestable === undefined ? experiment.report(lab) : notTestable(untestable);
    finished.push({ experiment, findings });
    await writeFindings(lab, experiment, cells, findings);
    await writePage(lab, finished);
  }
  return finished;
}

function notTestable(because: string): Findings {
  return {
    verdict: { outcome: "not testable here", because, checks: [] },
    text: [],
    figures: [],
    tables: [],
    controls: [],
  };
}

function secondsLeft({ store }: Lab, kinds: readonly string[]): number | undefined {
  const { records } = store;
  const mean = (list: typeof records) => list.reduce((sum, { seconds }) => sum + seconds, 0) / list.length;
  if (records.length === 0) return undefined;
  const byKind = new Map<string, number>();
  for (const kind of new Set(kinds)) {
    const same = records.filter((record) => record.kind === kind);
    byKind.set(kind, mean(same.length > 0 ? same : records));
  }
  return kinds.reduce((sum, kind) => sum + byKind.get(kind)!, 0);
}
