import {
  drawItems,
  extractActivations,
  mean,
  neighbourPlane,
  type Plane,
  type Prompt,
  PromptError,
  type PromptImage,
  principalPlane,
  type SpecificationKind,
  stack,
  type TaskItem,
  tap,
  upToLastExample,
} from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { Lab } from "../framework/lab.ts";
import { instructionOf, specifiedQueries, widestQuery } from "../framework/prompts.ts";
import { shuffled } from "../statistics/permutation.ts";
import { centred, cosineDistances, type Points } from "../statistics/points.ts";
import { crossValidated, probe } from "../statistics/probe.ts";
import { neighbourPurity, type Purity } from "../statistics/purity.ts";
import { sample, seededRandom } from "../statistics/random.ts";
import { silhouettes } from "../statistics/silhouette.ts";
import { cosine } from "../statistics/vectors.ts";
import { commonLayer } from "./layer-sweep.ts";
import { noisyInstructions } from "./noisy-instructions.ts";
import { rowsOf } from "./task-vectors.ts";

/**
 * What a prompt is turned into: the mean embedding of what its examples are about, the tokens of their pictures or of their
 * names, or the residual stream at the last answer cue.
 */
export const STATES = ["context", "vector"] as const;
export type State = (typeof STATES)[number];

const MODALITIES = ["text", "image"] as const;

/** Prompts of a task and modality: t-SNE takes the square of all of them. */
const MOST_PROMPTS = 30;
const NEIGHBOURS = 5;
const FOLDS = 5;

/** A prompt: its task, the kind of its specification, and the item that its examples were drawn for; of an instruction none. */
export interface ClusterPoint {
  readonly task: string;
  readonly modality: SpecificationKind;
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
  /** Whether the nearest instruction, as written or put otherwise, is the task's: 1 or 0. Empty where a task has none. */
  readonly toInstruction: readonly number[];
  /** With the mean of the examples' points, and that of the instructions', removed. */
  readonly toInstructionCentred: readonly number[];
  /** Of the points and then the instructions. */
  readonly principal: Plane;
  readonly neighbours: Plane;
}

export interface ClustersResult {
  /** The task vector's, which validation items chose for patches of text examples. */
  readonly layer: number;
  /** Prompts of examples: what is measured. */
  readonly points: readonly ClusterPoint[];
  readonly instructions: readonly ClusterPoint[];
  readonly states: Readonly<Record<State, ClustersOfState>>;
}

/** How prompts of all pictured tasks lie to each other, by what they show and by their vectors. */
export const clusters = defineCell("clusters", async (lab): Promise<ClustersResult> => {
  const layer = commonLayer(lab, { specification: "text", query: widestQuery(lab) });
  const points: ClusterPoint[] = [];
  const instructions: ClusterPoint[] = [];
  const ofPoints: Vectors = { context: [], vector: [] };
  const ofInstructions: Vectors = { context: [], vector: [] };
  for (const task of lab.tasks.filter((one) => lab.isPictured(one))) {
    const items = lab.items(task, "test");
    for (const [seed, modality] of MODALITIES.entries()) {
      // Other draws for pictures: the same examples in both would pair the points.
      const asked = { split: "test", specification: modality, query: "text", seed } as const;
      const whole = await specifiedQueries(lab, task, asked);
      const kept = sample([...items.keys()], MOST_PROMPTS);
      const prompts = kept.map((i) => upToLastExample(lab.model, whole[i]!));
      const pool = lab.pool(task, "test");
      const shown =
        modality === "image"
          ? kept.map((i) => positionsOf(whole[i]!, /^image\d*$/))
          : kept.map((i) => namePositions(lab, pool, items[i]!, { seed, whole: whole[i]! }));
      await addVectors(lab, ofPoints, { prompts, shown, layer });
      points.push(...kept.map((i) => ({ task: task.name, modality, item: items[i]!.input })));
    }
    if (!lab.hasInstruction(task)) continue;
    const written = instructionOf(task);
    const texts = [written, ...noisyInstructions(written, "paraphrase")];
    const prompts = texts.map((text) => lab.model.prompt(text));
    const shown = prompts.map((prompt) => range(0, prompt.length));
    await addVectors(lab, ofInstructions, { prompts, shown, layer });
    instructions.push(...texts.map(() => ({ task: task.name, modality: "instruction" as const, item: "" })));
  }
  const found = (state: State) =>
    measured({ points, vectors: ofPoints[state] }, { points: instructions, vectors: ofInstructions[state] });
  return { layer, points, instructions, states: { context: found("context"), vector: found("vector") } };
});

type Vectors = Record<State, Float32Array[]>;

interface Shown {
  readonly prompts: readonly Prompt<PromptImage>[];
  /** Positions whose embeddings are the context, for each prompt. */
  readonly shown: readonly (readonly number[])[];
  readonly layer: number;
}

async function addVectors(lab: Lab, to: Vectors, { prompts, shown, layer }: Shown): Promise<void> {
  to.context.push(...(await contextsOf(lab, prompts, shown)));
  using activations = extractActivations(lab.model, prompts, { site: lab.stream, layers: [layer] });
  to.vector.push(...(await rowsOf(activations.reshape([prompts.length, lab.width]))));
  lab.spendPasses(prompts, lab.model);
}

/** The mean embedding of some positions of each prompt: [width] a prompt. */
async function contextsOf(
  { model }: Lab,
  prompts: readonly Prompt<PromptImage>[],
  shown: readonly (readonly number[])[],
): Promise<Float32Array[]> {
  const site = model.config.encoder ? "encoder.embed" : "embed"; // what reads prompts
  using means = model.device.scope(() =>
    stack(
      prompts.map((prompt, i) =>
        model.device.scope(() => {
          const { embedded } = model.run(prompt, {
            taps: { embedded: tap(site, shown[i]!) },
            stopAfter: 0,
          });
          return mean(embedded, 0);
        }),
      ),
    ),
  );
  return rowsOf(means);
}

/** Where the names of a prompt's examples stand, in the order drawn. */
export function namePositions(
  lab: Lab,
  pool: readonly TaskItem[],
  item: TaskItem,
  { seed, whole }: { seed: number; whole: Prompt },
): number[] {
  const { shots: count, template } = lab.options;
  const [before = "", rest = ""] = template.split("{x}");
  const [cue = "", after = ""] = rest.split("{y}");
  const examples = drawItems(pool, item, { count, seed });
  const named = lab.model.prompt([
    ...examples.flatMap(({ input, outputs }) => [
      before,
      { text: input, name: "name" },
      `${cue}${outputs[0]!}${after}`,
    ]),
    `${before}${item.input}${cue.trimEnd()}`,
  ]);
  if (named.ids.join() !== whole.ids.join()) {
    throw new PromptError(
      `expected the prompt ${JSON.stringify(whole.text)}, made ${JSON.stringify(named.text)}`,
    );
  }
  return positionsOf(named, /^name\d*$/);
}

function positionsOf(prompt: Prompt, name: RegExp): number[] {
  const spans = Object.entries(prompt.spans).filter(([key]) => name.test(key));
  return spans.flatMap(([, { start, end }]) => range(start, end));
}

function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, i) => start + i);
}

interface Cloud {
  readonly points: readonly ClusterPoint[];
  readonly vectors: readonly Float32Array[];
}

function measured({ points, vectors }: Cloud, instructions: Cloud): ClustersOfState {
  const distances = cosineDistances(vectors);
  const tasks = points.map(({ task }) => task);
  const items = [...new Set(points.map(({ item }) => item))];
  const folds = points.map(({ item }) => items.indexOf(item) % FOLDS);
  const separation = (labels: readonly string[]): Separation => ({
    silhouette: silhouettes(distances, labels),
    purity: neighbourPurity(distances, labels, NEIGHBOURS),
    probe: crossValidated({ points: vectors, labels }, folds),
  });
  const all = [...vectors, ...instructions.vectors];
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
    toInstruction: nearestInstruction({ points, vectors }, instructions),
    toInstructionCentred: nearestInstruction(
      { points, vectors: centred(vectors) },
      { points: instructions.points, vectors: centred(instructions.vectors) },
    ),
    principal: principalPlane(all).plane,
    neighbours: neighbourPlane(cosineDistances(all)),
  };
}

/** Whether each point's nearest instruction by cosine is of its task; nothing where some task has no instruction. */
function nearestInstruction(
  { points, vectors }: { points: readonly ClusterPoint[]; vectors: Points },
  instructions: { points: readonly ClusterPoint[]; vectors: Points },
): number[] {
  const told = new Set(instructions.points.map(({ task }) => task));
  if (points.some(({ task }) => !told.has(task))) return [];
  return vectors.map((vector, i) => {
    const cosines = instructions.vectors.map((other) => cosine(vector, other));
    const nearest = cosines.indexOf(Math.max(...cosines));
    return instructions.points[nearest]!.task === points[i]!.task ? 1 : 0;
  });
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
