import { resolve } from "node:path";
import { openDevice, type Task, XpatchError } from "xpatch";
import { allLayers } from "#src/analysis/layers";
import type { ModelOutline } from "#src/model/language-model";
import type { CellStore } from "../framework/cell-store.ts";
import type { Experiment } from "../framework/experiment.ts";
import { Lab } from "../framework/lab.ts";
import { checkTasks, labOptions } from "../framework/lab-options.ts";
import { modelSetting, taskSettings } from "../framework/setting.ts";
import { EXPERIMENTS } from "../index.ts";
import { runId, VERSION } from "./cell-names.ts";
import {
  type GridSources,
  loadSource,
  openedWith,
  openOutline,
  outlineHash,
  placeOf,
  readTask,
  readWith,
  tasksUnder,
  WeightsNeeded,
  withoutWeights,
} from "./models.ts";
import type {
  ExpandedPlan,
  GridPlan,
  PlanEntry,
  PlanModel,
  PlannedExperiment,
  PlannedRun,
  RunCells,
} from "./plan.ts";

/**
 * The runs and cells of a plan, models one after the other. Opens configs, tokenizers and tasks, and reads weights only to
 * hash them; but for experiments that have to look at them (`fine-tuning`), which take a device.
 *
 * Throws XpatchError with the place in the plan for models and tasks that are none, and for options that do not fit them.
 */
export async function expandPlan(
  plan: GridPlan,
  sources: GridSources,
  onProgress: (model: string, done: number, total: number) => void = () => {},
): Promise<ExpandedPlan> {
  const runs: (PlannedRun & RunCells)[] = [];
  for (const [i, model] of plan.models.entries()) {
    onProgress(model.label, i, plan.models.length);
    runs.push(...(await runsOf(plan, model, sources)));
  }
  const ids = runs.map(({ id }) => id);
  const twice = runs.find(({ id }, i) => ids.indexOf(id) < i);
  if (twice)
    throw new XpatchError(
      `${twice.label} is the same as another run of the plan: the same model and options`,
    );
  return { version: VERSION, folder: resolve(plan.folder), runs };
}

async function runsOf(
  plan: GridPlan,
  { value: given, where, label }: PlanEntry<PlanModel>,
  sources: GridSources,
): Promise<(PlannedRun & RunCells)[]> {
  const { folder } = plan;
  const llmRef = given.llm ?? sources.knownLlm?.(placeOf(folder, given.model));
  const source: PlanModel = { ...given, ...(llmRef !== undefined && { llm: llmRef }) };
  const llmSource = llmRef === undefined ? undefined : { model: llmRef };
  const outline = await at(where, () => openOutline(source, folder));
  const llm = llmSource && (await at(`${where}.llm`, () => openOutline(llmSource, folder)));
  const setting = {
    model: { ...(await modelSetting(outline, openedWith(source, folder))), ...readWith(source) },
    ...(llm && { llm: await modelSetting(llm) }),
  };
  const hash = await outlineHash(outline.name, openedWith(source, folder));
  const read = await readTasks(plan, outline, sources);
  const runs: (PlannedRun & RunCells)[] = [];
  for (const { value: options, label: variant, where: place } of plan.variants) {
    const part = { source, options, tasks: plan.tasks.map(({ value }) => value) };
    const chosen = labOptions(options);
    const tasks = await at(place, () => {
      const asked = tasksUnder(options, read);
      checkTasks(asked, chosen, (option) => option);
      allLayers(outline, options.stack === "encoder" ? "encoder.resid_post" : "resid_post", "stack");
      return asked;
    });
    const planned = { ...setting, options: chosen, tasks: await taskSettings(tasks) };
    const run = {
      ...part,
      id: runId(planned),
      label: variant === "" ? label : `${label}/${variant}`,
      setting: planned,
      outline: hash,
    };
    runs.push({ ...run, ...(await cellsOf(plan, run, { outline, llm }, tasks)) });
  }
  return runs;
}

/** Throws XpatchError for what is no task, and for pictures of its that are not there. */
function readTasks(plan: GridPlan, outline: ModelOutline, sources: GridSources): Promise<Task[]> {
  const read = async ({ value, where }: PlanEntry<string>) =>
    at(where, async () => {
      const task = await readTask(value, plan.folder, sources);
      const asked = task.items.filter(({ split }) => split !== "train");
      if (outline.config.vision) await sources.checkPictures?.(asked);
      return task;
    });
  return Promise.all(plan.tasks.map(read));
}

async function cellsOf(
  plan: GridPlan,
  run: PlannedRun,
  { outline, llm }: { readonly outline: ModelOutline; readonly llm: ModelOutline | undefined },
  tasks: readonly Task[],
): Promise<RunCells> {
  const lab = planningLab(run, withoutWeights(outline), llm && withoutWeights(llm), tasks);
  const keys = new Map<string, number>();
  const experiments: PlannedExperiment[] = [];
  for (const name of plan.experiments) {
    const experiment = EXPERIMENTS.find((one) => one.name === name)!;
    const untestable = await untestableOf(experiment, lab, run, plan.folder);
    const cells = untestable === undefined ? experiment.cells(lab) : [];
    for (const { key } of cells) if (!keys.has(key)) keys.set(key, keys.size);
    const places = [...new Set(cells.map(({ key }) => keys.get(key)!))];
    experiments.push({ name, ...(untestable !== undefined && { untestable }), cells: places });
  }
  return { experiments, keys: [...keys.keys()] };
}

/** A lab that lists cells and computes nothing. */
function planningLab(
  { setting, source }: PlannedRun,
  model: Lab["model"],
  llm: Lab["llm"],
  tasks: readonly Task[],
): Lab {
  const machine = { adapter: "", kernels: "", versions: {} };
  return new Lab({
    model,
    llm,
    tasks,
    options: setting.options,
    setting: { ...setting, ...machine },
    store: EMPTY,
    folder: source.model,
  });
}

async function untestableOf(
  experiment: Experiment,
  lab: Lab,
  run: PlannedRun,
  folder: string,
): Promise<string | undefined> {
  try {
    return experiment.untestable?.(lab);
  } catch (error) {
    if (!(error instanceof WeightsNeeded)) throw error;
  }
  await using device = await openDevice();
  using model = await loadSource(run.source, folder, device);
  return experiment.untestable?.(planningLab(run, model, lab.llm, lab.tasks));
}

/** What `act` gives; the message of an error of xpatch's is led by the place in the plan. */
async function at<T>(where: string, act: () => T | Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    if (error instanceof XpatchError || (error instanceof Error && "syscall" in error)) {
      throw new XpatchError(`${where}: ${error.message}`, { cause: error });
    }
    throw error;
  }
}

const EMPTY: CellStore = {
  records: [],
  has: () => false,
  get: () => undefined,
  add: nothing,
  keepFile: nothing,
  file: nothing,
};

function nothing(): never {
  throw new XpatchError("this lab computes nothing");
}
