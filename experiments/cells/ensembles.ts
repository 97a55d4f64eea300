import {
  type Modality,
  type Prompt,
  type PromptImage,
  stack,
  type Tap,
  type Task,
  type Tensor,
  tap,
  upToLastExample,
} from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { Lab } from "../framework/lab.ts";
import { queries, seedsOf, specifiedQueries } from "../framework/prompts.ts";
import { type Answered, answered } from "../framework/scored.ts";
import { seededRandom } from "../statistics/random.ts";
import { meanOf, randomLike } from "../statistics/vectors.ts";
import { chosenLayer, patchAt, type Setup, type Sweep, sweepVectors, tasksWith } from "./layer-sweep.ts";
import { rowsOf, vectorsOf } from "./task-vectors.ts";

/** Prompts of examples that are averaged. The paper has one to six, of five examples each. */
const COUNTS = [1, 2, 3, 4, 5, 6, 10, 20, 30] as const;
/** So many there always are. */
export const PAPER_PROMPTS = 6;

const BATCH_PROMPTS = 8;

/** Accuracy on validation items, by patched layer, of the mean of the instruction's vector and that of text examples. */
export const ensembleSweep: Sweep = defineCell("ensemble-sweep", async (lab, { task, query }) =>
  sweepVectors(lab, task, query, seedsOf(lab, "text"), async (seed) => {
    const examples = await vectorsOf(lab, { source: "model", task, specification: "text", seed });
    const instruction = await vectorsOf(lab, ofInstruction(task));
    return examples.map((vector, layer) => meanOf([vector, instruction[layer]!]));
  }),
);

/** What is put in place of the instruction's vector in an ensemble. */
export const ENSEMBLE_CONTROLS = ["anotherInstruction", "random"] as const;

export type EnsembleControl = (typeof ENSEMBLE_CONTROLS)[number];

export interface EnsembleTestResult {
  readonly layers: Readonly<Record<"text" | "instruction" | "ensemble", number>>;
  /** The numbers of prompts: those of {@link COUNTS} up to that of the validation items, and that; at least one to six. */
  readonly counts: readonly number[];
  readonly noContext: Answered;
  readonly instruction: Answered;
  /** `[count][seed]` */
  readonly examples: readonly (readonly Answered[])[];
  readonly ensemble: readonly (readonly Answered[])[];
  /** With the most prompts, by seed. With a single task there is no other instruction. */
  readonly controls: Readonly<Partial<Record<EnsembleControl, readonly Answered[]>>>;
}

/** The test items of a task under vectors from so many prompts of examples, with the instruction's and without. */
export const ensembleTest = defineCell(
  "ensemble-test",
  async (lab, { task: name, query }: { task: string; query: Modality }): Promise<EnsembleTestResult> => {
    const task = lab.task(name);
    const items = lab.items(task, "test");
    const layers = layersOf(lab, task, query);
    const pairs: { layer: number; vector: Float32Array }[] = [];
    /** Queues a patch; its answers come at the index returned. */
    const patch = (layer: number, vector: Float32Array) => pairs.push({ layer, vector }) - 1;
    const instruction = await vectorsOf(lab, ofInstruction(name));
    const inEnsemble = instruction[layers.ensemble]!;
    const other = anotherInstructed(lab, task, query);
    const substitutes = {
      ...(other && {
        anotherInstruction: (await vectorsOf(lab, ofInstruction(other.name)))[layers.ensemble]!,
      }),
      random: randomLike(inEnsemble, layers.ensemble),
    };
    const counts = countsFor(lab, task);
    const ofInstructionAlone = patch(layers.instruction, instruction[layers.instruction]!);
    const seeds: { examples: number[]; ensemble: number[]; controls: Record<string, number> }[] = [];
    for (const seed of seedsOf(lab, "text")) {
      const rows = await vectorsOfPrompts(lab, task, seed, [layers.text, layers.ensemble]);
      const means = (l: 0 | 1) => counts.map((count) => meanOf(rows[l]!.slice(0, count)));
      const [alone, joined] = [means(0), means(1)];
      const controls = Object.entries(substitutes).map(([control, vector]) => [
        control,
        patch(layers.ensemble, meanOf([joined.at(-1)!, vector])),
      ]);
      seeds.push({
        examples: alone.map((vector) => patch(layers.text, vector)),
        ensemble: joined.map((vector) => patch(layers.ensemble, meanOf([vector, inEnsemble]))),
        controls: Object.fromEntries(controls),
      });
    }
    const bare = await queries(lab, task, "test", query);
    const edits = pairs.map(({ layer, vector }) => patchAt(lab, layer, vector));
    const { unpatched, patched } = await lab.patchEach(bare, edits);
    const scores = patched.map((answers) => answered(lab.model.tokenizer, items, answers, lab.options));
    return {
      layers,
      counts,
      noContext: answered(lab.model.tokenizer, items, unpatched, lab.options),
      instruction: scores[ofInstructionAlone]!,
      examples: counts.map((_, c) => seeds.map(({ examples }) => scores[examples[c]!]!)),
      ensemble: counts.map((_, c) => seeds.map(({ ensemble }) => scores[ensemble[c]!]!)),
      controls: Object.fromEntries(
        Object.keys(substitutes).map((control) => [
          control,
          seeds.map(({ controls }) => scores[controls[control]!]!),
        ]),
      ),
    };
  },
);

/** Tasks that have an instruction and examples, and can be asked about so. */
export function instructedTasks(lab: Lab, query: Modality, tasks: readonly Task[] = lab.tasks): Task[] {
  return tasksWith(lab, { specification: "instruction", query }, tasks);
}

function layersOf(lab: Lab, task: Task, query: Modality): EnsembleTestResult["layers"] {
  const instructed: Setup = { specification: "instruction", query };
  return {
    text: chosenLayer(lab, { specification: "text", query }, task),
    instruction: chosenLayer(lab, instructed, task),
    ensemble: chosenLayer(lab, instructed, task, ensembleSweep),
  };
}

function countsFor(lab: Lab, task: Task): number[] {
  const prompts = Math.max(PAPER_PROMPTS, lab.items(task, "validation").length);
  const counts = COUNTS.filter((count) => count <= prompts);
  return prompts < COUNTS.at(-1)! && !counts.some((count) => count === prompts)
    ? [...counts, prompts]
    : [...counts];
}

/**
 * `[layer][prompt]`: what each prompt of examples for a validation item gives, in an order that the seed shuffles; where
 * these are fewer than the paper has, others for the same items, with examples drawn anew, follow.
 */
async function vectorsOfPrompts(
  lab: Lab,
  task: Task,
  seed: number,
  layers: readonly number[],
): Promise<Float32Array[][]> {
  const { model } = lab;
  const whole: Prompt<PromptImage>[] = [];
  const count = countsFor(lab, task).at(-1)!;
  for (let round = 0; whole.length < count; round++) {
    const drawn = seed + round * lab.options.seeds;
    const specified = { split: "validation", specification: "text", query: "text", seed: drawn } as const;
    whole.push(...shuffled(await specifiedQueries(lab, task, specified), seed));
  }
  whole.length = count;
  const prompts = whole.map((prompt) => upToLastExample(model, prompt));
  const ofLayers: Float32Array[][] = layers.map(() => []);
  for (let first = 0; first < prompts.length; first += BATCH_PROMPTS) {
    const batch = prompts.slice(first, first + BATCH_PROMPTS);
    const rows = await lastRows(lab, batch, layers);
    ofLayers.forEach((list, l) => {
      list.push(...rows.slice(l * batch.length, (l + 1) * batch.length));
    });
  }
  lab.spendPasses(prompts, model, whole);
  return ofLayers;
}

/** The residual stream at the last token of each prompt: of all prompts behind the first layer, then the second, … */
export async function lastRows(
  lab: Lab,
  prompts: readonly Prompt[],
  layers: readonly number[],
): Promise<Float32Array[]> {
  const { model } = lab;
  const taps: Record<string, Tap<number>> = {};
  layers.forEach((layer, l) => {
    taps[l] = tap(lab.streamAt(layer), -1);
  });
  using rows = model.device.scope(() => {
    const tapped = model.run(prompts, { taps, stopAfter: lab.lastLayerOf(layers) });
    return stack(layers.map((_, l) => tapped[l] as Tensor)).reshape([
      layers.length * prompts.length,
      lab.width,
    ]);
  });
  return rowsOf(rows);
}

function shuffled<T>(values: readonly T[], seed: number): T[] {
  const random = seededRandom(seed);
  return values
    .map((value) => ({ value, rank: random() }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ value }) => value);
}

function anotherInstructed(lab: Lab, task: Task, query: Modality): Task | undefined {
  const tasks = instructedTasks(lab, query);
  return tasks.length < 2 ? undefined : tasks[(tasks.indexOf(task) + 1) % tasks.length];
}

function ofInstruction(task: string) {
  return { source: "model", task, specification: "instruction", seed: 0 } as const;
}
