import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { stringify } from "csv-stringify/sync";
import { XpatchError } from "xpatch";
import { writeWhole } from "#src/platform/node-write";
import { CELL_FORMAT } from "../framework/cell-format.ts";
import type { Experiment, Findings, Outcome } from "../framework/experiment.ts";
import { FolderLock } from "../framework/folder-lock.ts";
import { type Finished, runExperiments } from "../framework/runner.ts";
import { differences, type Setting, taskSettings } from "../framework/setting.ts";
import { EXPERIMENTS } from "../index.ts";
import { type RowFormat, writeRows } from "../rows/write-rows.ts";
import { plannedCell } from "./cell-names.ts";
import { GridStore, type StoredRun } from "./grid-store.ts";
import { type MissingCell, missingOf, type ReadCells } from "./missing.ts";
import {
  type GridSources,
  openedWith,
  openOutline,
  outlineHash,
  readTask,
  tasksUnder,
  withoutWeights,
} from "./models.ts";
import type { Damage } from "./pack-reader.ts";
import { ReplayLab } from "./replay.ts";
import type { RunStore } from "./run-store.ts";

export interface MergeOptions {
  /** Where results go: a folder for each run, as `xpatch experiment` writes them, and a summary. */
  readonly out: string;
  /** Whether experiments that lack cells are reported as incomplete. Default: they are an error. */
  readonly partial?: boolean;
  /** How answers and measures are written, a row each. Default: Parquet. */
  readonly rows?: RowFormat;
  /** The command line that computes an experiment of a run. */
  readonly command?: (run: StoredRun, experiment: string) => string;
  readonly onProgress?: (label: string, experiment: string) => void;
}

export interface MergedRun {
  readonly label: string;
  readonly folder: string;
  readonly experiments: readonly {
    readonly name: string;
    readonly outcome: Outcome;
    readonly because: string;
  }[];
}

/** What is missing of which experiments of a run. */
interface Lacking {
  readonly run: StoredRun;
  readonly missing: ReadonlyMap<string, readonly MissingCell[]>;
  readonly damages: readonly Damage[];
}

/** Cells that an error names; there may be a million. */
const SHOWN = 5;

/**
 * Writes what the cells of a grid come to: the same bytes whoever computed them, and for each run those of `xpatch experiment`
 * but for times, which are left out.
 *
 * @throws XpatchError for missing cells (unless `partial`), damaged ones, models and tasks that have changed, a folder of other things
 */
export async function mergeGrid(
  { folder: grid }: GridStore,
  sources: GridSources,
  { out, partial = false, rows = "parquet", command, onProgress = () => {} }: MergeOptions,
): Promise<MergedRun[]> {
  // Of its own: what was read is let go, run by run.
  const store = GridStore.open(grid);
  checkOwn(store, out);
  const lacking = store.runs.map((run) => {
    const found = lackingOf(store, run);
    store.forget(run.id);
    return found;
  });
  if (!partial) refuseMissing(lacking);
  using _lock = FolderLock.take(out);
  await writeWhole(join(out, "grid.json"), ownMark(store));
  const merged: MergedRun[] = [];
  for (const one of lacking) {
    const folder = join(out, one.run.label);
    const finished = await mergeRun(store, sources, one, { folder, rows, command, onProgress });
    store.forget(one.run.id);
    merged.push({
      label: one.run.label,
      folder,
      experiments: finished.map(({ experiment: { name }, findings: { verdict } }) => ({
        name,
        outcome: verdict.outcome,
        because: verdict.because,
      })),
    });
  }
  await writeSummary(out, merged);
  return merged;
}

function lackingOf(store: GridStore, run: StoredRun): Lacking {
  const kept = store.storeOf(run.id);
  kept.refresh();
  const cells = store.cellsOf(run.id);
  const missing = new Map<string, MissingCell[]>();
  const read: ReadCells = new Map();
  for (const { name, cells: places } of store.experimentsOf(run.id)) {
    const found = missingOf(
      kept,
      places.map((place) => cells[place]!.key),
      read,
    );
    if (found.length > 0) missing.set(name, found);
  }
  return { run, missing, damages: kept.damages };
}

/** Throws XpatchError naming the cells that are missing, with what went wrong in them. */
function refuseMissing(lacking: readonly Lacking[]): void {
  const all = lacking.flatMap(({ run, missing }) => {
    const cells = new Map([...missing.values()].flat().map((cell) => [cell.key, cell]));
    return [...cells.values()].map(({ key, error }) => {
      const { name } = plannedCell(run.id, key);
      return `${name} (${run.label}: ${key})${error === undefined ? "" : `: ${error}`}`;
    });
  });
  if (all.length === 0) return;
  const more = all.length > SHOWN ? `; and ${all.length - SHOWN} more` : "";
  const damages = lacking.flatMap((one) => one.damages.map(({ where, what }) => `${where}: ${what}`));
  const damaged = damages.length > 0 ? `; not all could be read: ${damages.slice(0, SHOWN).join("; ")}` : "";
  throw new XpatchError(
    `${all.length} cells are missing: ${all.slice(0, SHOWN).join("; ")}${more}${damaged}; "xpatch grid run" computes them, --partial leaves their experiments out`,
  );
}

async function mergeRun(
  store: GridStore,
  sources: GridSources,
  { run, missing }: Lacking,
  {
    folder,
    rows,
    command,
    onProgress,
  }: Pick<MergeOptions, "command" | "onProgress"> & { readonly folder: string; readonly rows: RowFormat },
): Promise<Finished[]> {
  const { planFolder } = store;
  const kept = store.storeOf(run.id);
  kept.refresh();
  const opened = { ...openedWith(run.source, planFolder) };
  const outline = await openOutline(run.source, planFolder);
  const llm =
    run.source.llm === undefined ? undefined : await openOutline({ model: run.source.llm }, planFolder);
  const read = await Promise.all(run.tasks.map((ref) => readTask(ref, planFolder, sources)));
  const tasks = tasksUnder(run.options, read);
  checkSame(run, { outline: await outlineHash(outline.name, opened), tasks: await taskSettings(tasks) });
  const machine = { adapter: "nothing was computed yet", kernels: "none", versions: {} };
  const lab = new ReplayLab(
    {
      model: withoutWeights(outline),
      llm: llm && withoutWeights(llm),
      tasks,
      options: run.setting.options,
      setting: kept.setting ?? { ...run.setting, ...machine },
      folder,
      ...(command && { command: (name: string) => command(run, name) }),
    },
    kept,
  );
  const experiments = store.experimentsOf(run.id).map(({ name, untestable, cells }): Experiment => {
    const experiment = EXPERIMENTS.find((one) => one.name === name)!;
    const lacks = missing.get(name)?.length ?? 0;
    if (lacks > 0) return incomplete(experiment, lacks, cells.length);
    return { ...experiment, untestable: () => untestable };
  });
  mkdirSync(folder, { recursive: true });
  const finished = await runExperiments(
    lab,
    experiments,
    ({ experiment }) => onProgress?.(run.label, experiment),
    { goOn: true },
  );
  await writeCells(lab, kept);
  const { setting: settled, store: cells } = lab;
  await writeRows({ folder, setting: settled, records: cells.records, asked: lab }, rows);
  return finished;
}

/** An experiment of which cells are missing, as a section that says so. */
function incomplete(experiment: Experiment, lacks: number, of: number): Experiment {
  const because = `${lacks} of its ${of} cells, or of those that they need, have not been computed; the grid was merged with --partial`;
  const findings: Findings = {
    verdict: { outcome: "incomplete", because, checks: [] },
    text: [],
    figures: [],
    tables: [],
    controls: [],
  };
  return { ...experiment, untestable: () => undefined, cells: () => [], report: () => findings };
}

/** The finished cells and their files, as `xpatch experiment` has them, which could go on from there; without their seconds. */
async function writeCells(lab: ReplayLab, kept: RunStore): Promise<void> {
  const lines = [{ ...lab.setting, format: CELL_FORMAT }, ...lab.store.records];
  await writeWhole(
    join(lab.folder, "cells.jsonl"),
    lines.map((line) => `${JSON.stringify(line)}\n`).join(""),
  );
  for (const path of lab.files) {
    const target = join(lab.folder, path);
    mkdirSync(dirname(target), { recursive: true });
    await writeWhole(target, kept.file(path));
  }
}

/** Throws XpatchError where what reports are made with is no longer what was planned. */
function checkSame(run: StoredRun, now: Pick<Setting, "tasks"> & { readonly outline: string }): void {
  const { outline, setting } = run;
  const changed = differences({ outline, tasks: setting.tasks }, now);
  if (changed.length === 0) return;
  throw new XpatchError(`${run.label} is no longer what was planned: ${changed.join("; ")}`);
}

/** Throws XpatchError for a folder with anything in it but what the same grid was merged to. */
function checkOwn(store: GridStore, out: string): void {
  if (!existsSync(out)) return;
  const path = join(out, "grid.json");
  if (existsSync(path)) {
    if (readFileSync(path, "utf8") === ownMark(store)) return;
    throw new XpatchError(`${out} has the results of another grid; take another folder`);
  }
  // A lock is of a merge that was broken off before it had written anything.
  if (readdirSync(out).every((name) => name === "lock")) return;
  throw new XpatchError(
    `${out}: expected an empty folder or one that this grid was merged to, found other things in it`,
  );
}

function ownMark({ runs }: GridStore): string {
  return `${JSON.stringify({ runs: runs.map(({ id, label }) => ({ id, label })) }, null, 2)}\n`;
}

/** All verdicts: a table with a line a run and experiment. */
async function writeSummary(out: string, merged: readonly MergedRun[]): Promise<void> {
  const rows = merged.flatMap(({ label, experiments }) =>
    experiments.map(({ name, outcome, because }) => [label, name, outcome, because]),
  );
  await writeWhole(
    join(out, "summary.csv"),
    stringify([["run", "experiment", "verdict", "because"], ...rows]),
  );
}
