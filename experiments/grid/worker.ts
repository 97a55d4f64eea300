import { type Device, openDevice, type PatchableModel, XpatchError } from "xpatch";
import type { AdapterChoice } from "#src/platform/platform";
import type { Cell } from "../framework/cell.ts";
import { differences, type Setting, settingOf } from "../framework/setting.ts";
import { EXPERIMENTS } from "../index.ts";
import { abortable, pause } from "./abortable.ts";
import { Claims } from "./claims.ts";
import { CellBusy, CellFailed, GridLab, isRefusal } from "./grid-lab.ts";
import type { GridStore, StoredRun } from "./grid-store.ts";
import { type GridSources, loadSource, openedWith, readTask, readWith, tasksUnder } from "./models.ts";
import { PackWriter } from "./pack-writer.ts";
import type { PlanModel } from "./plan.ts";
import { Presence, Watch } from "./presence.ts";
import type { CellState } from "./run-store.ts";

export interface WorkerOptions {
  readonly adapter?: AdapterChoice;
  /** Of no other process ever. Made up unless given. */
  readonly id?: string;
  /** For how long a worker's beat has to stay the same before its cells are taken over. Default: 180. */
  readonly staleSeconds?: number;
  readonly onProgress?: (progress: WorkerProgress) => void;
}

export interface WorkerProgress {
  readonly doing: "loading" | "waiting" | "computing";
  /** The label of a run that is loaded, or the key of a cell. */
  readonly what: string;
}

export interface CellOutcome {
  /** `already`: the store had it. `refused`: the model has no such site, or takes no such prompt; as final as a result. */
  readonly state: "finished" | "already" | "refused" | "failed";
  readonly seconds: number;
  readonly error?: string;
}

export interface ComputeOptions {
  /** Gives the cell up: its claim is released, and the reason thrown. What the device is at goes on; end the process. */
  readonly signal?: AbortSignal;
  /** Whether cells that it asks for, and that failed in this worker, are computed again. Default: they are. */
  readonly retry?: boolean;
}

/** How long to wait for another worker before looking again, at first and at most, in milliseconds. */
const FIRST_LOOK = 100;
const LAST_LOOK = 3000;

/** What is loaded: a run's models, and its cells by key. */
interface LoadedRun {
  readonly run: StoredRun;
  readonly model: PatchableModel;
  readonly llm: PatchableModel | undefined;
  readonly lab: GridLab;
  readonly pack: PackWriter;
  readonly cells: ReadonlyMap<string, Cell<unknown>>;
}

/** A process that computes cells of a grid, one at a time, and keeps the model of the last one loaded. */
export class GridWorker {
  readonly store: GridStore;
  readonly #sources: GridSources;
  readonly #options: WorkerOptions;
  readonly #presence: Presence;
  readonly #watch: Watch;
  #device: Device | undefined;
  #loaded: LoadedRun | undefined;

  constructor(store: GridStore, sources: GridSources, options: WorkerOptions = {}) {
    this.store = store;
    this.#sources = sources;
    this.#options = options;
    this.#presence = new Presence(store.workerFolder, options.id);
    this.#watch = new Watch(store.workerFolder, options.staleSeconds ?? 180);
  }

  get id(): string {
    return this.#presence.id;
  }

  /** Id of the run whose models are loaded. */
  get loaded(): string | undefined {
    return this.#loaded?.run.id;
  }

  /**
   * Computes a cell and what it asks for, where the store has not got it; waits while another worker does. What goes wrong in
   * the cell is an outcome, and written down.
   *
   * @param name - {@link PlannedCell.name}
   * @throws XpatchError for a name that is none, models and tasks that are not those of the plan, another setting than the run was
   * begun with; FileError where the store cannot be written; DeviceLostError
   */
  async compute(name: string, options: ComputeOptions = {}): Promise<CellOutcome> {
    for (let wait = FIRST_LOOK; ; wait = Math.min(2 * wait, LAST_LOOK)) {
      const outcome = await this.attempt(name, options);
      if (outcome) return outcome;
      this.#options.onProgress?.({ doing: "waiting", what: this.store.cell(name).key });
      await pause(wait, options.signal);
      this.store.refresh(this.store.cell(name).run);
    }
  }

  /** The same, but undefined where another worker computes it, or a cell that it asks for. */
  async attempt(
    name: string,
    { signal, retry = true }: ComputeOptions = {},
  ): Promise<CellOutcome | undefined> {
    signal?.throwIfAborted();
    const { key, run } = this.store.cell(name);
    const kept = this.store.storeOf(run);
    if (!isFinal(kept.state(key))) kept.refreshNowAndThen();
    if (isFinal(kept.state(key))) return { state: "already", seconds: 0 };
    const { lab, cells } = await this.#enter(this.store.run(run));
    const cell = cells.get(key);
    if (!cell)
      throw new XpatchError(
        `the cell "${key}" is no longer one of its experiment; the grid is of another version`,
      );
    if (retry) lab.forgetFailures();
    const start = performance.now();
    const seconds = () => (performance.now() - start) / 1000;
    try {
      await abortable(lab.run(cell), signal);
      return { state: "finished", seconds: seconds() };
    } catch (error) {
      if (error instanceof CellBusy) return undefined;
      if (error instanceof CellFailed) return { state: "failed", seconds: seconds(), error: error.message };
      if (!isRefusal(error)) throw error;
      return { state: "refused", seconds: seconds(), error: error.message };
    }
  }

  /** Writes down what is finished. It is at the latest half a second after a cell. */
  flush(): void {
    this.#loaded?.pack.flush();
  }

  async #enter(run: StoredRun): Promise<LoadedRun> {
    if (this.#loaded?.run.id === run.id) return this.#loaded;
    this.#leave();
    this.#options.onProgress?.({ doing: "loading", what: run.label });
    const { adapter } = this.#options;
    this.#device ??= await openDevice({ ...(adapter && { adapter }) });
    const folder = this.store.planFolder;
    const { source } = run;
    const loaded: PatchableModel[] = [];
    const load = async (one: PlanModel) => {
      const model = await loadSource(one, folder, this.#device!);
      loaded.push(model);
      return model;
    };
    try {
      const model = await load(source);
      const llm = source.llm === undefined ? undefined : await load({ model: source.llm });
      return await this.#begin(run, model, llm);
    } catch (error) {
      for (const model of loaded) model.dispose();
      throw error;
    }
  }

  /** Makes loaded models ready for the cells of a run. */
  async #begin(run: StoredRun, model: PatchableModel, llm: PatchableModel | undefined): Promise<LoadedRun> {
    const folder = this.store.planFolder;
    const { source, options } = run;
    const read = await Promise.all(run.tasks.map((ref) => readTask(ref, folder, this.#sources)));
    const tasks = tasksUnder(options, read);
    const parts = { model, llm, tasks, options: run.setting.options };
    const setting = await settingOf({ ...parts, opened: openedWith(source, folder), read: readWith(source) });
    checkPlanned(run, setting);
    const kept = this.store.storeOf(run.id);
    const pack = new PackWriter(kept.packFolder, this.id, await kept.begin(setting));
    kept.refresh();
    const claims = new Claims(kept.claimFolder, this.#presence, this.#watch);
    const onCell = (what: string) => this.#options.onProgress?.({ doing: "computing", what });
    const lab = new GridLab({ ...parts, setting, folder: kept.folder, kept, pack, claims, onCell });
    const cells = this.store
      .experimentsOf(run.id)
      .filter(({ untestable }) => untestable === undefined)
      .flatMap(({ name }) => EXPERIMENTS.find((one) => one.name === name)!.cells(lab));
    const byKey = new Map(cells.map((cell) => [cell.key, cell]));
    this.#loaded = { run, model, llm, lab, pack, cells: byKey };
    return this.#loaded;
  }

  #leave(): void {
    const loaded = this.#loaded;
    this.#loaded = undefined;
    loaded?.pack.close();
    loaded?.model.dispose();
    loaded?.llm?.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#leave();
    } finally {
      this.#presence[Symbol.dispose]();
      await this.#device?.[Symbol.asyncDispose]();
    }
  }
}

function isFinal(state: CellState): boolean {
  return state === "finished" || state === "refused";
}

/** Throws XpatchError where models, tasks or options are no longer those of the plan. */
function checkPlanned({ label, setting }: StoredRun, { model, llm, options, tasks }: Setting): void {
  const now = JSON.parse(JSON.stringify({ model, llm, options, tasks }));
  const changed = differences(JSON.parse(JSON.stringify(setting)), now);
  if (changed.length === 0) return;
  throw new XpatchError(`${label} is no longer what was planned: ${changed.join("; ")}`);
}
