/** Where the cells of a run are. */
export interface RunCounts {
  readonly label: string;
  readonly cells: number;
  readonly finished: number;
  readonly givenUp: number;
  readonly computing: number;
  readonly waiting: number;
  /** Finished in a second, over the last minute. */
  readonly perSecond: number;
  readonly secondsLeft?: number | undefined;
  /** Mean over the finished cells that have patched answers to test items. */
  readonly accuracy?: number;
}

export interface GridProgress {
  readonly runs: readonly RunCounts[];
  /** Processes that compute or wait for cells; undefined where the server does not tell. */
  readonly workers?: number | undefined;
  readonly seconds: number;
}

/** A cell that was given up, and the error of its last attempt. */
export interface GivenUp {
  readonly run: string;
  readonly cell: string;
  readonly key: string;
  readonly attempts: number;
  readonly error: string;
  readonly stack: string;
}

/** All runs together. */
export function totalOf({ runs }: GridProgress): RunCounts {
  const sum = (of: (run: RunCounts) => number) => runs.reduce((total, run) => total + of(run), 0);
  const perSecond = sum((run) => run.perSecond);
  const left = sum(({ cells, finished, givenUp }) => cells - finished - givenUp);
  const secondsLeft = left === 0 ? 0 : perSecond > 0 ? left / perSecond : undefined;
  return {
    label: "all",
    cells: sum(({ cells }) => cells),
    finished: sum(({ finished }) => finished),
    givenUp: sum(({ givenUp }) => givenUp),
    computing: sum(({ computing }) => computing),
    waiting: sum(({ waiting }) => waiting),
    perSecond,
    ...(secondsLeft !== undefined && { secondsLeft }),
  };
}

const HEADING = ["", "cells", "done", "computing", "waiting", "given up", "a minute", "left", "accuracy"];

/** A table of text: a heading, a row a run, and all together where there are several. */
export function progressRows(progress: GridProgress): string[][] {
  const rows = progress.runs.length > 1 ? [...progress.runs, totalOf(progress)] : progress.runs;
  return [HEADING, ...rows.map(row)];
}

function row({
  label,
  cells,
  finished,
  computing,
  waiting,
  givenUp,
  perSecond,
  secondsLeft,
  accuracy,
}: RunCounts): string[] {
  return [
    label,
    `${cells}`,
    `${finished}`,
    `${computing}`,
    `${waiting}`,
    `${givenUp}`,
    (60 * perSecond).toFixed(perSecond > 0 && perSecond < 0.1 ? 1 : 0),
    showTime(secondsLeft),
    accuracy === undefined ? "" : accuracy.toFixed(3),
  ];
}

/** One line: what there is to say where no table can be drawn anew. */
export function progressLine(progress: GridProgress): string {
  const { cells, finished, computing, givenUp, perSecond, secondsLeft } = totalOf(progress);
  const parts = [
    `${finished}/${cells} cells`,
    `${computing} computing`,
    ...(progress.workers === undefined ? [] : [`${progress.workers} workers`]),
    ...(givenUp > 0 ? [`${givenUp} given up`] : []),
    `${(60 * perSecond).toFixed(perSecond < 1 ? 1 : 0)} a minute`,
    ...(secondsLeft === undefined ? [] : [`${showTime(secondsLeft)} left`]),
  ];
  return parts.join(", ");
}

/** 754 → "13 min". */
export function showTime(seconds: number | undefined): string {
  if (seconds === undefined) return "";
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  return seconds < 48 * 3600 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} days`;
}
