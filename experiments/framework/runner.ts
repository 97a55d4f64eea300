import { ImageError, PromptError, SiteError, type XpatchError } from "xpatch";
import { writePage } from "../report/page.ts";
import { writeFindings } from "../report/write.ts";
import type { Cell } from "./cell.ts";
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

/**
 * Runs experiments one after the other; each one's results are written as it ends, and the report after each.
 *
 * @param options.goOn - Whether the others follow one that the model refuses, by its sites or by how it takes prompts and pictures;
 * the report then has the reason. Default: the error is thrown.
 */
export async function runExperiments(
  lab: Lab,
  experiments: readonly Experiment[],
  onProgress: (progress: RunProgress) => void = () => {},
  { goOn = false }: { readonly goOn?: boolean } = {},
): Promise<Finished[]> {
  const plan = experiments.map((experiment) => {
    const untestable = experiment.untestable?.(lab);
    return { experiment, untestable, cells: untestable === undefined ? experiment.cells(lab) : [] };
  });
  const keys = new Map(plan.flatMap(({ cells }) => cells.map(({ key, kind }) => [key, kind] as const)));
  const progress = (experiment: string, cell?: string) => {
    const left = [...keys].filter(([key]) => !lab.store.has(key)).map(([, kind]) => kind);
    const done = keys.size - left.length;
    onProgress({ experiment, cell, done, total: keys.size, secondsLeft: secondsLeft(lab, left) });
  };
  const finished: Finished[] = [];
  for (const { experiment, untestable, cells } of plan) {
    const findings = await findingsOf(experiment, cells, untestable);
    finished.push({ experiment, findings });
    await writeFindings(lab, experiment, cells, findings);
    await writePage(lab, finished);
  }
  return finished;

  async function findingsOf(
    experiment: Experiment,
    cells: readonly Cell<unknown>[],
    untestable: string | undefined,
  ): Promise<Findings> {
    if (untestable !== undefined) {
      progress(experiment.name);
      return notTestable(untestable);
    }
    try {
      for (const cell of cells) {
        progress(experiment.name, cell.key);
        await lab.run(cell);
      }
    } catch (error) {
      if (!goOn || !isRefusal(error)) throw error;
      return notTestable(`it cannot be run: ${error.message}`);
    }
    progress(experiment.name);
    return experiment.report(lab);
  }
}

/** What says that a model has no such site, or takes no such prompt or picture; not what goes wrong otherwise. */
function isRefusal(error: unknown): error is XpatchError {
  return [SiteError, PromptError, ImageError].some((type) => error instanceof type);
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
  const records = store.records.filter(({ seconds }) => seconds !== undefined);
  const mean = (list: typeof records) => list.reduce((sum, { seconds }) => sum + seconds!, 0) / list.length;
  if (records.length === 0) return undefined;
  const byKind = new Map<string, number>();
  for (const kind of new Set(kinds)) {
    const same = records.filter((record) => record.kind === kind);
    byKind.set(kind, mean(same.length > 0 ? same : records));
  }
  return kinds.reduce((sum, kind) => sum + byKind.get(kind)!, 0);
}
