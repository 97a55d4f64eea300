import { drawItems, exampleOf, fewShotPrompt, type Task, type TaskItem } from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { Lab } from "../framework/lab.ts";
import { combine } from "../statistics/vectors.ts";
import { chosenLayer } from "./layer-sweep.ts";
import { extractInto, vectorsIn } from "./task-vectors.ts";

/** Most questions whose few-shot prompts a task vector is the mean of. */
const VECTOR_PROMPTS = 16;

/** What a training has of a task: its labelled items, and which. */
export interface Labelled {
  readonly task: string;
  /** Labelled items; all there are, where these are fewer. */
  readonly examples: number;
  readonly seed: number;
}

/** What a task has to train on; none, if it has no such split. */
export function trainItems({ items }: Task): TaskItem[] {
  return items.filter(({ split }) => split === "train");
}

/** The labelled items; those of fewer examples are among those of more. */
export function labelledItems(lab: Lab, { task, examples, seed }: Labelled): TaskItem[] {
  const pool = trainItems(lab.task(task));
  return drawItems(pool, { input: "" }, { count: Math.min(examples, pool.length), seed });
}

/**
 * The task vector that the labelled items make: train items' questions, their answers unseen, behind as many of the labelled as
 * a prompt shows, read at the query's last token. It knows no other label.
 */
export const tuningVectors = defineCell("fine-tuning-vectors", (lab, params: Labelled) => {
  const { task, examples, seed } = params;
  const labelled = labelledItems(lab, params);
  const prompts = questionsOf(lab, { task, seed }).flatMap((item) => {
    const others = labelled.filter(({ input }) => input !== item.input);
    if (others.length === 0) return [];
    const shown = drawItems(others, item, { count: Math.min(lab.options.shots, others.length), seed });
    const given = shown.map((one) => exampleOf(one));
    return [fewShotPrompt(lab.model, given, item.input, lab.options.template)];
  });
  lab.spendPasses(prompts, lab.model);
  return extractInto(lab, `fine-tuning-${encodeURIComponent(task)}-${examples}-${seed}`, prompts);
});

/** The mean over bare queries of train items: what a task vector is told apart from. */
export const bareVectors = defineCell(
  "fine-tuning-bare-vectors",
  (lab, { task, seed }: Omit<Labelled, "examples">) => {
    const prompts = questionsOf(lab, { task, seed }).map(({ input }) =>
      fewShotPrompt(lab.model, [], input, lab.options.template),
    );
    lab.spendPasses(prompts, lab.model);
    return extractInto(lab, `fine-tuning-${encodeURIComponent(task)}-bare-${seed}`, prompts);
  },
);

/** Train items whose questions are asked, without their answers. */
function questionsOf(lab: Lab, { task, seed }: Omit<Labelled, "examples">): TaskItem[] {
  const pool = trainItems(lab.task(task));
  return drawItems(pool, { input: "\n" }, { count: Math.min(VECTOR_PROMPTS, pool.length), seed });
}

export interface TuningVector {
  /** The one that validation items chose for patches of text examples into text queries. */
  readonly layer: number;
  /** The task vector behind it. */
  readonly vector: Float32Array;
  /** What it is beyond the mean bare query: added to one, it makes about the task vector of it. */
  readonly direction: Float32Array;
}

export async function tuningVector(lab: Lab, { task, examples, seed }: Labelled): Promise<TuningVector> {
  const layer = chosenLayer(lab, { specification: "text", query: "text" }, lab.task(task));
  const vectors = await vectorsIn(lab, await lab.run(tuningVectors({ task, examples, seed })));
  const bare = await vectorsIn(lab, await lab.run(bareVectors({ task, seed })));
  const vector = vectors[layer]!;
  return { layer, vector, direction: combine([1, vector], [-1, bare[layer]!]) };
}
