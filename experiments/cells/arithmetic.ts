import { addVector, type Edit, interpolate, type Modality, projectOut, set } from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { AskedSplit, Lab } from "../framework/lab.ts";
import { queries, seedsOf } from "../framework/prompts.ts";
import { combine, dot, meanOf, randomLike } from "../statistics/vectors.ts";
import { chosenLayer, type Setup, tasksWith } from "./layer-sweep.ts";
import { type Pair, type ScoredTwice, scoredTwice, sharedItems } from "./pairs.ts";
import { vectorsOf } from "./task-vectors.ts";

/** Multiples of a task's direction that are added. */
export const STRENGTHS = [0.5, 1, 2, 4] as const;

/** How far from the task's vector to the other task's. */
export const STEPS = [0, 0.25, 0.5, 0.75, 1] as const;

/** The vectors that edits are made of, each [width]. */
export interface Ingredients {
  /** Of the task whose queries are asked, and of the other one. */
  readonly own: Float32Array;
  readonly other: Float32Array;
  /** Over all tasks. */
  readonly mean: Float32Array;
}

/** The edits of the residual stream behind a layer, at the query's last token, by name. */
export function arithmeticEdits(
  lab: Lab,
  layer: number,
  { own, other, mean }: Ingredients,
): Record<string, Edit[]> {
  const site = lab.streamAt(layer);
  const put = (vector: Float32Array) => [set(site, -1, vector)];
  const add = (vector: Float32Array, scale = 1) => [addVector(site, -1, vector, { scale })];
  const direction = combine([1, own], [-1, mean]);
  const squared = dot(direction, direction);
  const along = combine([squared === 0 ? 0 : dot(own, direction) / squared, direction]);
  const byStrength = (name: string, edit: (strength: number) => Edit[]) =>
    STRENGTHS.map((strength) => [`${name} × ${strength}`, edit(strength)] as const);
  return {
    set: put(own),
    add: add(own),
    "interpolate half-way": [interpolate(site, -1, own, 0.5)],
    "replace along the direction": [projectOut(site, -1, direction), addVector(site, -1, along)],
    ...Object.fromEntries([
      ...byStrength("add direction", (strength) => add(direction, strength)),
      ...byStrength("set mean + direction", (strength) => put(combine([1, mean], [strength, direction]))),
      ...byStrength("add random direction", (strength) => add(randomLike(direction, layer), strength)),
      ...STEPS.map((step) => [`mix ${step}`, put(combine([1 - step, own], [step, other]))] as const),
    ]),
    sum: put(combine([1, own], [1, other])),
    "sum less mean": put(combine([1, own], [1, other], [-1, mean])),
    "set mean": put(mean),
    "set random": put(randomLike(own, layer)),
  };
}

export interface ArithmeticResult {
  readonly layer: number;
  readonly unpatched: ScoredTwice;
  /** By the names of {@link arithmeticEdits}, then by seed. */
  readonly edited: Readonly<Record<string, readonly ScoredTwice[]>>;
}

/** Queries of a task under sums and differences of task vectors, in place of the residual stream or added to it. */
export const arithmeticCell = defineCell(
  "arithmetic",
  async (
    lab,
    { query, split, ...pair }: Pair & { query: Modality; split: AskedSplit },
  ): Promise<ArithmeticResult> => {
    const task = lab.task(pair.task);
    const items = sharedItems(lab, pair, split);
    const all = await queries(lab, task, split, query);
    const setup: Setup = { specification: "text", query };
    const layer = chosenLayer(lab, setup, task);
    const bySeed: Record<string, Edit[]>[] = [];
    for (const seed of seedsOf(lab, "text")) {
      bySeed.push(arithmeticEdits(lab, layer, await ingredientsOf(lab, pair, setup, layer, seed)));
    }
    const names = Object.keys(bySeed[0]!);
    const { unpatched, patched } = await lab.patchEach(
      items.indices.map((index) => all[index]!),
      bySeed.flatMap((edits) => names.map((name) => edits[name]!)),
    );
    const scores = patched.map((answers) => scoredTwice(lab.model.tokenizer, items, answers, lab.options));
    return {
      layer,
      unpatched: scoredTwice(lab.model.tokenizer, items, unpatched, lab.options),
      edited: Object.fromEntries(
        names.map((name, n) => [name, bySeed.map((_, s) => scores[s * names.length + n]!)]),
      ),
    };
  },
);

async function ingredientsOf(
  lab: Lab,
  { task, other }: Pair,
  setup: Setup,
  layer: number,
  seed: number,
): Promise<Ingredients> {
  const vectors = new Map<string, Float32Array>();
  for (const { name } of tasksWith(lab, setup)) {
    const ofLayers = await vectorsOf(lab, { source: "model", task: name, specification: "text", seed });
    vectors.set(name, ofLayers[layer]!);
  }
  return { own: vectors.get(task)!, other: vectors.get(other)!, mean: meanOf([...vectors.values()]) };
}
