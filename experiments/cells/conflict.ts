import type { Modality } from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { AskedSplit, Lab } from "../framework/lab.ts";
import { specifiedQueries } from "../framework/prompts.ts";
import { combine, randomLike } from "../statistics/vectors.ts";
import { chosenLayer, patchAt } from "./layer-sweep.ts";
import { type Pair, type ScoredTwice, scoredTwice, sharedItems } from "./pairs.ts";
import { spread } from "./spread.ts";
import { vectorsOf } from "./task-vectors.ts";

/** Factors that the patched vector is multiplied by. */
export const SCALES = [0.5, 0.75, 1, 1.5, 2] as const;

export interface ConflictParams extends Pair {
  /** How the prompt asks for `task`: by text examples or by the instruction. The patch is for `other`. */
  readonly specification: "text" | "instruction";
  readonly query: Modality;
  readonly seed: number;
}

export interface ConflictSweepResult {
  readonly layers: readonly number[];
  /** `patched[scale][layer]` */
  readonly patched: readonly (readonly ScoredTwice[])[];
}

/** Which task validation prompts are answered by, by the scale and layer of the other task's vector. */
export const conflictSweep = defineCell(
  "conflict-sweep",
  async (lab, params: ConflictParams): Promise<ConflictSweepResult> => {
    const { prompts, items } = await promptsOf(lab, params, "validation");
    const vectors = await vectorsOf(lab, vectorOf(params, params.other));
    const layers = spread(vectors.length);
    const edits = SCALES.flatMap((scale) =>
      layers.map((layer) => patchAt(lab, layer, combine([scale, vectors[layer]!]))),
    );
    const { patched } = await lab.patchEach(prompts, edits);
    const scores = patched.map((answers) => scoredTwice(lab.model.tokenizer, items, answers, lab.options));
    return {
      layers,
      patched: SCALES.map((_, s) => scores.slice(s * layers.length, (s + 1) * layers.length)),
    };
  },
);

export interface ConflictTestResult {
  /** The layer that validation items chose for the other task's vector in bare queries. */
  readonly layer: number;
  readonly prompts: readonly string[];
  readonly unpatched: ScoredTwice;
  /** By {@link SCALES}. */
  readonly patched: readonly ScoredTwice[];
  readonly controls: {
    /** The vector of the task that the prompt asks for. */
    readonly same: ScoredTwice;
    /** A random vector of the norm of the other task's. */
    readonly random: ScoredTwice;
  };
}

export const conflictTest = defineCell(
  "conflict-test",
  async (lab, params: ConflictParams): Promise<ConflictTestResult> => {
    const { prompts, items } = await promptsOf(lab, params, "test");
    const { query } = params;
    const layer = chosenLayer(lab, { specification: "text", query }, lab.task(params.other));
    const vector = (await vectorsOf(lab, vectorOf(params, params.other)))[layer]!;
    const same = (await vectorsOf(lab, vectorOf(params, params.task)))[layer]!;
    const vectors = [...SCALES.map((scale) => combine([scale, vector])), same, randomLike(vector, layer)];
    const { unpatched, patched } = await lab.patchEach(
      prompts,
      vectors.map((patch) => patchAt(lab, layer, patch)),
    );
    const scores = patched.map((answers) => scoredTwice(lab.model.tokenizer, items, answers, lab.options));
    return {
      layer,
      prompts: prompts.map(({ text }) => text),
      unpatched: scoredTwice(lab.model.tokenizer, items, unpatched, lab.options),
      patched: scores.slice(0, SCALES.length),
      controls: { same: scores[SCALES.length]!, random: scores[SCALES.length + 1]! },
    };
  },
);

async function promptsOf(lab: Lab, params: ConflictParams, split: AskedSplit) {
  const { specification, query, seed } = params;
  const items = sharedItems(lab, params, split);
  const all = await specifiedQueries(lab, lab.task(params.task), { split, specification, query, seed });
  return { prompts: items.indices.map((index) => all[index]!), items };
}

function vectorOf({ seed }: ConflictParams, task: string) {
  return { source: "model", task, specification: "text", seed } as const;
}
