import { extractActivations, type Modality, mean, type Prompt, type PromptImage, stack, tap } from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { Lab } from "../framework/lab.ts";
import { specifiedQueries } from "../framework/prompts.ts";
import { shuffled } from "../statistics/permutation.ts";
import { cosineDistances } from "../statistics/points.ts";
import { crossValidated, probe } from "../statistics/probe.ts";
import { neighbourPlane, type Plane, principalPlane } from "../statistics/projection.ts";
import { neighbourPurity, type Purity } from "../statistics/purity.ts";
import { sample, seededRandom } from "../statistics/random.ts";
import { silhouettes } from "../statistics/silhouette.ts";
import { rowsOf, upToLastExample } from "./task-vectors.ts";

/** What a prompt is turned into: the mean embedding of its examples, or the residual stream at the last answer cue. */
export const STATES = ["context", "vector"] as const;
export type State = (typeof STATES)[number];

const MODALITIES = ["text", "image"] as const;

/** Prompts of a task and modality: t-SNE takes the square of all of them. */
const MOST_PROMPTS = 30;
const NEIGHBOURS = 5;
const FOLDS = 5;

/** A prompt: its task, the modality of its examples, and the item that its examples were drawn for. */
export interface ClusterPoint {
  readonly task: string;
  readonly modality: Modality;
  readonly item: string;
}

/** A value a point, in the order of the points. */
export interface Separation {
  readonly silhouette: readonly number[];
  /** Among all points. */
  readonly purity: Purity;
  /** Whether a probe trained on other items' points labels it rightly: 1 or 0. */
  readonly probe: readonly number[];
}

export interface ClustersOfState {
  readonly byTask: Separation;
  readonly byModality: Separation;
  /** With the tasks given out at random among the points: a control. */
  readonly shuffledTasks: Separation;
  /** Of the task, among the points of the other modality. */
  readonly acrossPurity: Purity;
  /** Of the task, by a probe trained on the other modality's points of other items. */
  readonly acrossProbe: readonly number[];
  readonly principal: Plane;
  readonly neighbours: Plane;
}

export interface ClustersResult {
  readonly points: readonly ClusterPoint[];
  readonly states: Readonly<Record<State, ClustersOfState>>;
}

/** How prompts of all pictured tasks lie to each other, by their context and by their vectors in a layer. */
export const clusters = defineCell(
  "clusters",
  async (lab, { layer }: { layer: number }): Promise<ClustersResult> => {
    const points: ClusterPoint[] = [];
    const context: Float32Array[] = [];
    const vector: Float32Array[] = [];
    for (const task of lab.tasks.filter((one) => lab.isPictured(one))) {
      const items = lab.items(task, "validation");
      for (const [seed, modality] of MODALITIES.entries()) {
        // Other draws for pictures: the same examples in both would pair the points.
        const asked = { split: "validation", specification: modality, query: "text", seed } as const;
        const whole = await specifiedQueries(lab, task, asked);
        const kept = sample([...items.keys()], MOST_PROMPTS);
        const shown = kept.map((i) => whole[i]!);
        const prompts = shown.map((prompt) => upToLastExample(lab.model, prompt));
        context.push(...(await contextsOf(lab, prompts, shown)));
        using activations = extractActivations(lab.model, prompts, { layers: [layer] });
        vector.push(...(await rowsOf(activations.reshape([prompts.length, lab.model.config.width]))));
        lab.spendPasses(prompts, lab.model);
        points.push(...kept.map((i) => ({ task: task.name, modality, item: items[i]!.input })));
      }
    }
    return { points, states: { context: measured(points, context), vector: measured(points, vector) } };
  },
);

/** The mean embedding of a prompt's pictures, or of its text where the examples are text: [width] a prompt. */
async function contextsOf(
  { model }: Lab,
  prompts: readonly Prompt<PromptImage>[],
  whole: readonly Prompt[],
): Promise<Float32Array[]> {
  using means = model.device.scope(() =>
    stack(
      prompts.map((prompt, i) =>
        model.device.scope(() => {
          const pictured = Object.entries(whole[i]!.spans).filter(([name]) => /^image\d*$/.test(name));
          const positions = pictured.flatMap(([, { start, end }]) => range(start, end));
          const at = positions.length > 0 ? positions : range(0, prompt.length);
          const { embedded } = model.run(prompt, { taps: { embedded: tap("embed", at) }, stopAfter: 0 });
          return mean(embedded, 0);
        }),
      ),
    ),
  );
  return rowsOf(means);
}

function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, i) => start + i);
}

function measured(points: readonly ClusterPoint[], vectors: readonly Float32Array[]): ClustersOfState {
  const distances = cosineDistances(vectors);
  const tasks = points.map(({ task }) => task);
  const items = [...new Set(points.map(({ item }) => item))];
  const folds = points.map(({ item }) => items.indexOf(item) % FOLDS);
  const separation = (labels: readonly string[]): Separation => ({
    silhouette: silhouettes(distances, labels),
    purity: neighbourPurity(distances, labels, NEIGHBOURS),
    probe: crossValidated({ points: vectors, labels }, folds),
  });
  return {
    byTask: separation(tasks),
    byModality: separation(points.map(({ modality }) => modality)),
    shuffledTasks: separation(shuffled(tasks, seededRandom(0))),
    acrossPurity: neighbourPurity(
      distances,
      tasks,
      NEIGHBOURS,
      (i, j) => points[i]!.modality !== points[j]!.modality,
    ),
    acrossProbe: acrossModalities(points, vectors, folds),
    principal: principalPlane(vectors),
    neighbours: neighbourPlane(distances),
  };
}

/** Whether each point's task is told by a probe of the other modality's points, those of its fold left out. */
function acrossModalities(
  points: readonly ClusterPoint[],
  vectors: readonly Float32Array[],
  folds: readonly number[],
): number[] {
  const right = points.map(() => 0);
  for (const modality of MODALITIES) {
    for (const fold of new Set(folds)) {
      const indices = [...points.keys()];
      const asked = indices.filter((i) => points[i]!.modality === modality && folds[i] === fold);
      const known = indices.filter((i) => points[i]!.modality !== modality && folds[i] !== fold);
      const train = { points: known.map((i) => vectors[i]!), labels: known.map((i) => points[i]!.task) };
      const given = probe(
        train,
        asked.map((i) => vectors[i]!),
      );
      asked.forEach((index, i) => {
        right[index] = given[i] === points[index]!.task ? 1 : 0;
      });
    }
  }
  return right;
}
