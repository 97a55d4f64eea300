import {
  type Asker,
  byText,
  type Edit,
  loadPictures,
  type Modality,
  mostProbableTokens,
  type PatchableModel,
  type PicturedItem,
  type Prompt,
  patchEach,
  type SiteName,
  type SpecificationKind,
  type Task,
  type TaskItem,
  type Tensor,
  XpatchError,
} from "xpatch";
import { rowLayersOf } from "#src/patching/row-layers";
import { type AskedSplit, AskedTasks, hasPictures } from "./asked-tasks.ts";
import type { Cell } from "./cell.ts";
import type { CellRecord, CellStore } from "./cell-store.ts";
import { addCosts, type Cost, NO_COST } from "./cost.ts";
import type { LabOptions, Setting, SettingParts } from "./setting.ts";

export type { AskedSplit } from "./asked-tasks.ts";

/** Tokens of prompts in one pass; bounds the memory. */
const BATCH_TOKENS = 1024;

export interface LabParts extends SettingParts {
  readonly setting: Setting;
  readonly store: CellStore;
  /** Where results, and files beside them, go. */
  readonly folder: string;
  /** The command line that computes an experiment again under this setting. */
  readonly command?: (experiment: string) => string;
}

/** What experiments work with: the models, the tasks, the finished cells, and a meter of what was computed. */
export class Lab {
  readonly model: PatchableModel;
  /** The language model that `model` was fine-tuned from, if the user has it. */
  readonly llm: PatchableModel | undefined;
  readonly tasks: readonly Task[];
  readonly options: LabOptions;
  readonly setting: Setting;
  readonly folder: string;
  readonly store: CellStore;
  readonly command: LabParts["command"];
  readonly #asked: AskedTasks;
  readonly #pictures = new Map<string, Promise<Asker>>();
  #meter = { cost: NO_COST, secondsOfOthers: 0 };

  constructor(parts: LabParts) {
    this.model = parts.model;
    this.llm = parts.llm;
    this.tasks = parts.tasks;
    this.options = parts.options;
    this.setting = parts.setting;
    this.folder = parts.folder;
    this.command = parts.command;
    this.store = parts.store;
    this.#asked = new AskedTasks(parts.tasks, parts.options, (task) => this.isPictured(task));
  }

  /** The result of a cell: the stored one, or else it is computed and stored. */
  async run<R>(cell: Cell<R>): Promise<R> {
    const stored = this.store.get(cell.key) ?? this.store.add(await this.compute(cell));
    return stored.result as R;
  }

  /** Computes a cell, whether or not there is a stored one, with what that costs. Stores nothing but the cells that it asks for. */
  protected async compute<R>(cell: Cell<R>): Promise<CellRecord> {
    const outer = this.#meter;
    const meter = { cost: NO_COST, secondsOfOthers: 0 };
    this.#meter = meter;
    const start = performance.now();
    try {
      const result = await cell.compute(this);
      const seconds = (performance.now() - start) / 1000;
      outer.secondsOfOthers += seconds;
      const { key, kind, params } = cell;
      return { key, kind, params, result, cost: meter.cost, seconds: seconds - meter.secondsOfOthers };
    } finally {
      this.#meter = outer;
    }
  }

  /** The result of a cell that has been run. */
  result<R>({ key }: Cell<R>): R {
    const stored = this.store.get(key);
    if (stored) return stored.result as R;
    throw new XpatchError(`the cell "${key}" has not been run; an experiment has to list what it reports`);
  }

  /** Puts what was computed on the account of the cell that is being run. */
  spend(cost: Cost): void {
    this.#meter.cost = addCosts(this.#meter.cost, cost);
  }

  task(name: string): Task {
    return this.#asked.task(name);
  }

  /** Where task vectors are read and put: the residual stream of the decoder's layers, or of an encoder's. */
  get stream(): "resid_post" | "encoder.resid_post" {
    return this.options.stack === "encoder" ? "encoder.resid_post" : "resid_post";
  }

  /** The same behind a layer. */
  streamAt(layer: number): SiteName {
    return `${this.stream}.${layer}`;
  }

  /** How many layers there are of that stack, and how wide it is; undefined where a model has no such stack. */
  stackOf({ config }: PatchableModel): { readonly layers: number; readonly width: number } | undefined {
    return this.options.stack === "encoder" ? config.encoder : config;
  }

  /** Layers of the model's. */
  get layers(): number {
    return this.#stack.layers;
  }

  /** Width of the model's. */
  get width(): number {
    return this.#stack.width;
  }

  get #stack() {
    const stack = this.stackOf(this.model);
    if (stack) return stack;
    throw new XpatchError(`${this.model.name} has no encoder of text, whose layers task vectors could be of`);
  }

  /** The layer of the decoder behind which a run can stop that is to see these layers; an encoder's come before all of it. */
  lastLayerOf(layers: readonly number[]): number {
    return this.options.stack === "encoder" ? 0 : Math.max(...layers);
  }

  /**
   * Whether the layers that task vectors are of have a row for each token of a prompt. Those of an encoder-decoder's decoder have
   * none: it reads prompts by cross-attention.
   */
  get readsPrompts(): boolean {
    return this.model.config.encoder === undefined || this.options.stack === "encoder";
  }

  /** Whether the user wants a kind of specification. */
  specifies(kind: SpecificationKind): boolean {
    return this.options.specifications?.includes(kind) ?? true;
  }

  /** Whether a task can be told by its instruction. */
  hasInstruction({ instruction }: Task): boolean {
    return instruction !== undefined && this.specifies("instruction");
  }

  /** Tasks whose accuracies go into means. */
  get tasksInMeans(): readonly Task[] {
    const inside = this.tasks.filter(({ name }) => !this.options.outsideMeans.includes(name));
    return inside.length > 0 ? inside : this.tasks;
  }

  /** Whether a task can be asked about by pictures: the model takes them and both splits have them. */
  isPictured(task: Task): boolean {
    return this.model.config.vision !== undefined && hasPictures(task);
  }

  modalities(task: Task): Modality[] {
    return this.isPictured(task) ? ["text", "image"] : ["text"];
  }

  /** Where the examples of a split's prompts are drawn from. Where there are pictures, only items with one. */
  pool(task: Task, split: AskedSplit): TaskItem[] {
    return this.#asked.pool(task, split);
  }

  /**
   * The items of a split that are asked about, the same for both modalities.
   *
   * @param pool - To take them from, if not from all.
   */
  items(task: Task, split: AskedSplit, pool?: readonly TaskItem[]): TaskItem[] {
    return this.#asked.items(task, split, pool);
  }

  /** How items of a split are asked about. */
  async asker(task: Task, split: AskedSplit, modality: Modality): Promise<Asker> {
    if (modality === "text") return byText;
    const key = `${task.name} ${split}`;
    let pictures = this.#pictures.get(key);
    if (!pictures) {
      // Those of one task and split at a time: a large model's are a gigabyte in all.
      this.#pictures.clear();
      const { pictureWidth: width } = this.options;
      pictures = loadPictures(this.model, this.pool(task, split) as PicturedItem[], { width });
      this.#pictures.set(key, pictures);
    }
    return pictures;
  }

  /** The next token of each query under each set of edits, and without any. */
  async patchEach(
    queries: readonly Prompt[],
    edits: readonly (readonly Edit[])[],
  ): Promise<{ unpatched: readonly number[]; patched: readonly (readonly number[])[] }> {
    const { unpatched, patched, rowLayers, plainRowLayers } = await patchEach(this.model, queries, edits);
    this.spend({ rowLayers, plainRowLayers, plainPasses: queries.length * (edits.length + 1) });
    return { unpatched, patched };
  }

  /** The next token of each prompt, under edits. Throws GenerationError, with model and prompt, where logits are NaN. */
  async answers(prompts: readonly Prompt[], edits: readonly Edit[] = []): Promise<number[]> {
    const ids: number[] = [];
    const { model } = this;
    for (const batch of batchesOf(prompts)) {
      using logits = model.run(batch, { edits }).logits as Tensor;
      const where = (row: number) =>
        `${model.name}, logits of the prompt ${JSON.stringify(batch[row]!.text)}`;
      ids.push(...(await mostProbableTokens(logits, where)));
    }
    this.spendPasses(prompts, this.model);
    return ids;
  }

  /** Puts whole passes over prompts, up to and with `layers`, on the account. */
  spendPasses(prompts: readonly Prompt[], model: PatchableModel, plain: readonly Prompt[] = prompts): void {
    const passes = (list: readonly Prompt[]) =>
      list.reduce((sum, prompt) => sum + rowLayersOf(model, prompt), 0);
    this.spend({
      rowLayers: passes(prompts),
      plainRowLayers: passes(plain),
      plainPasses: prompts.length,
    });
  }
}

function batchesOf(prompts: readonly Prompt[]): Prompt[][] {
  const batches: Prompt[][] = [];
  let tokens = Number.POSITIVE_INFINITY;
  for (const prompt of prompts) {
    tokens += prompt.length;
    if (tokens > BATCH_TOKENS) {
      batches.push([]);
      tokens = prompt.length;
    }
    batches.at(-1)!.push(prompt);
  }
  return batches;
}
