import { type Edit, type Modality, type SpecificationKind, set, type Task } from "xpatch";
import { type Cell, defineCell } from "../framework/cell.ts";
import type { Lab } from "../framework/lab.ts";
import { queries, seedsOf } from "../framework/prompts.ts";
import { type Scored, scored, taskHits } from "../framework/scored.ts";
import { accuracy, type Hits } from "../statistics/accuracy.ts";
import type { Estimate } from "../statistics/estimate.ts";
import { mean } from "../statistics/resample.ts";
import { vectorsOf } from "./task-vectors.ts";

/** Patches from one kind of specification into one kind of query. */
export interface Setup {
  readonly specification: SpecificationKind;
  readonly query: Modality;
  /** Of examples and queries; the lab's unless given. */
  readonly template?: string;
}

export interface LayerSweepResult {
  readonly layers: readonly number[];
  readonly noContext: Scored;
  /** `patched[seed][layer]` */
  readonly patched: readonly (readonly Scored[])[];
}

/** A kind of cell that tells layers apart by validation items. */
export type Sweep = (params: Setup & { task: string }) => Cell<LayerSweepResult>;

/** Accuracy on validation items, by patched layer. */
export const layerSweep: Sweep = defineCell("layer-sweep", (lab, { task, query, ...setup }) =>
  sweepVectors(
    lab,
    task,
    query,
    seedsOf(lab, setup.specification),
    (seed) => vectorsOf(lab, { source: "model", task, ...setup, seed }),
    setup.template,
  ),
);

/** The same with vectors of the language model that the model was fine-tuned from, as far as both have layers. */
export const llmLayerSweep: Sweep = defineCell("llm-layer-sweep", (lab, { task, query, ...setup }) =>
  sweepVectors(
    lab,
    task,
    query,
    seedsOf(lab, setup.specification),
    async (seed) => {
      const vectors = await vectorsOf(lab, { source: "llm", task, ...setup, seed });
      return vectors.slice(0, lab.layers);
    },
    setup.template,
  ),
);

/** Puts each layer's vector of each seed into the validation queries of a task. */
export async function sweepVectors(
  lab: Lab,
  task: string,
  query: Modality,
  seeds: readonly number[],
  vectorsOfSeed: (seed: number) => Promise<readonly Float32Array[]>,
  template?: string,
): Promise<LayerSweepResult> {
  const bySeed: (readonly Float32Array[])[] = [];
  for (const seed of seeds) bySeed.push(await vectorsOfSeed(seed));
  const grid = bySeed.map((vectors) => vectors.map((vector, layer) => patchAt(lab, layer, vector)));
  return { layers: [...bySeed[0]!.keys()], ...(await validationGrid(lab, task, query, grid, template)) };
}

/** How validation queries of a task are answered without edits, and under those of each row and column of a grid. */
export async function validationGrid(
  lab: Lab,
  name: string,
  query: Modality,
  grid: readonly (readonly Edit[][])[],
  template?: string,
): Promise<{ noContext: Scored; patched: Scored[][] }> {
  const task = lab.task(name);
  const items = lab.items(task, "validation");
  const bare = await queries(lab, task, "validation", query, template);
  const { unpatched, patched } = await lab.patchEach(bare, grid.flat());
  const scores = patched.map((answers) => scored(lab.model.tokenizer, items, answers, lab.options));
  const width = grid[0]!.length;
  return {
    noContext: scored(lab.model.tokenizer, items, unpatched, lab.options),
    patched: grid.map((_, row) => scores.slice(row * width, (row + 1) * width)),
  };
}

/** Puts a vector in place of the residual stream behind a layer, at the query's last token. */
export function patchAt(lab: Lab, layer: number, vector: Float32Array): Edit[] {
  return [set(lab.streamAt(layer), -1, vector)];
}

/** Accuracy on validation items by layer, over some tasks. */
export function accuracyByLayer(
  lab: Lab,
  setup: Setup,
  tasks: readonly Task[],
  sweep: Sweep = layerSweep,
): { layer: number; hits: Hits; accuracy: Estimate }[] {
  const sweeps = tasks.map(({ name }) => lab.result(sweep({ ...setup, task: name })));
  return sweeps[0]!.layers.map((layer, l) => {
    const hits = tasks.map((task, t) =>
      taskHits(
        lab.items(task, "validation"),
        sweeps[t]!.patched.map((byLayer) => byLayer[l]!),
      ),
    );
    return { layer, hits, accuracy: accuracy(hits) };
  });
}

/**
 * The layer to patch, chosen on validation items: the one with the highest mean accuracy over the tasks (or for this task
 * alone, if the user wants that); of equals the first.
 */
export function chosenLayer(lab: Lab, setup: Setup, task: Task, sweep: Sweep = layerSweep): number {
  return lab.options.layerBy === "task"
    ? bestLayer(lab, setup, [task], sweep)
    : commonLayer(lab, setup, sweep);
}

/** The one layer that serves all tasks best, whatever the user wants for patches. */
export function commonLayer(lab: Lab, setup: Setup, sweep: Sweep = layerSweep): number {
  return bestLayer(lab, setup, choosingTasks(lab, setup), sweep);
}

/** Those that choose a layer together: the ones in the means; where none of them allows the setup, the ones that do. */
function choosingTasks(lab: Lab, setup: Setup): Task[] {
  const inside = tasksWith(lab, setup, lab.tasksInMeans);
  return inside.length > 0 ? inside : tasksWith(lab, setup);
}

/** What {@link commonLayer} goes by. */
export function commonLayerCells(lab: Lab, setup: Setup): Cell<LayerSweepResult>[] {
  return choosingTasks(lab, setup).map(({ name: task }) => layerSweep({ ...setup, task }));
}

function bestLayer(lab: Lab, setup: Setup, tasks: readonly Task[], sweep: Sweep): number {
  const sweeps = tasks.map(({ name }) => lab.result(sweep({ ...setup, task: name })));
  const { layers } = sweeps[0]!;
  const means = layers.map((_, l) => {
    const ofTask = sweeps.map(({ patched }) => mean(patched.map((byLayer) => byLayer[l]!.accuracy)));
    return mean(ofTask);
  });
  return layers[means.indexOf(Math.max(...means))]!;
}

/** The layer that all tasks share; undefined where each has its own. */
export function sharedLayer(lab: Lab, setup: Setup, sweep: Sweep = layerSweep): number | undefined {
  const [task] = choosingTasks(lab, setup);
  return task && lab.options.layerBy === "mean" ? chosenLayer(lab, setup, task, sweep) : undefined;
}

/** What stands below figures in which chosen layers are marked. */
export const CHOSEN_NOTE = "the layer that validation items chose";

/** Those of the tasks that can be specified and asked about so. */
export function tasksWith(
  lab: Lab,
  { specification, query }: Setup,
  tasks: readonly Task[] = lab.tasks,
): Task[] {
  return tasks.filter((task) => {
    const modalities: readonly string[] = lab.modalities(task);
    const specified =
      specification === "instruction" ? lab.hasInstruction(task) : modalities.includes(specification);
    return specified && lab.specifies(specification) && modalities.includes(query);
  });
}

/** All setups that at least one of the tasks allows, in the order of tables. */
export function setupsOf(lab: Lab, tasks: readonly Task[] = lab.tasks): Setup[] {
  const all = (["text", "image"] as const).flatMap((query) =>
    (["text", "image", "instruction"] as const).map((specification): Setup => ({ specification, query })),
  );
  return all.filter((setup) => tasksWith(lab, setup, tasks).length > 0);
}
