import type { Task } from "xpatch";
import { alignment, type LayerAlignment, type Place, type Ranks } from "../cells/alignment.ts";
import type { AskedSplit, Lab } from "../framework/lab.ts";
import { accuracy, type Hits } from "../statistics/accuracy.ts";
import type { Estimate } from "../statistics/estimate.ts";
import { mean } from "../statistics/resample.ts";
import { chanceReciprocalRank } from "../statistics/retrieval.ts";

/* What the cells of the experiment on grounding say: ranks and similarities by place and layer. */

/** Fewer items have too few pairs of distances to compare. */
export const FEWEST_ITEMS = 4;

export type Method = "raw" | "centred" | "random";

export interface PlaceFindings {
  readonly place: Place;
  /** The rest is of test items. */
  readonly layer: number;
  /** A reciprocal rank an item, the mean of both directions. */
  readonly ranks: Readonly<Record<Method, Hits>>;
  readonly reciprocal: Readonly<Record<Method, Estimate>>;
  readonly top1: Readonly<Record<Method, Estimate>>;
  readonly chance: number;
  readonly chanceTop1: number;
  readonly kinds: readonly { readonly task: string; readonly at: LayerAlignment }[];
}

/** Where counterparts are found best on validation items. */
export function nearestLayer(lab: Lab, place: Place): number {
  const means = layersOf(lab).map((layer) => reciprocal(lab, place, "validation", layer, "centred").mean);
  return means.indexOf(Math.max(...means));
}

export function layersOf({ layers }: Lab): number[] {
  return Array.from({ length: layers }, (_, layer) => layer);
}

export function atPlace(lab: Lab, place: Place, layer: number): PlaceFindings {
  const kinds = kindsOf(lab).map((task) => ({
    task: task.name,
    at: lab.result(cellOf(lab, task, "test")).places[place][layer]!,
  }));
  const by = <T>(of: (method: Method) => T) => ({
    raw: of("raw"),
    centred: of("centred"),
    random: of("random"),
  });
  const ranks = by((method) => scoresOf(lab, place, "test", layer, method, (rank) => 1 / rank));
  return {
    place,
    layer,
    ranks,
    reciprocal: by((method) => accuracy(ranks[method])),
    top1: by((method) =>
      accuracy(scoresOf(lab, place, "test", layer, method, (rank) => (rank === 1 ? 1 : 0))),
    ),
    ...chancesOf(lab),
    kinds,
  };
}

/** A score an item, of all kinds: the mean of both directions. */
export function scoresOf(
  lab: Lab,
  place: Place,
  split: AskedSplit,
  layer: number,
  method: Method,
  score: (rank: number) => number,
): Hits {
  const scores = ({ names, pictures }: Ranks) =>
    names.map((rank, i) => (score(rank) + score(pictures[i]!)) / 2);
  const kinds = kindsOf(lab);
  const values = kinds.flatMap((task) =>
    scores(lab.result(cellOf(lab, task, split)).places[place][layer]![method]),
  );
  return [
    { inputs: kinds.flatMap((task) => lab.items(task, split).map(({ input }) => input)), seeds: [values] },
  ];
}

export function reciprocal(
  lab: Lab,
  place: Place,
  split: AskedSplit,
  layer: number,
  method: Method,
): Estimate {
  return accuracy(scoresOf(lab, place, split, layer, method, (rank) => 1 / rank));
}

/** Of counterparts in random order, over the items of all kinds. */
export function chancesOf(lab: Lab): { chance: number; chanceTop1: number } {
  const counts = kindsOf(lab).map((task) => lab.result(cellOf(lab, task, "test")).items);
  const all = counts.flatMap((count) => Array.from({ length: count }, () => count));
  return { chance: mean(all.map(chanceReciprocalRank)), chanceTop1: mean(all.map((count) => 1 / count)) };
}

/** Tasks whose items no earlier one has, with enough of them: bare questions say nothing of the task. */
export function kindsOf(lab: Lab): Task[] {
  const seen = new Set<string>();
  return lab.tasks.filter((task) => {
    if (!lab.isPictured(task)) return false;
    const isNew = task.items.every(({ input }) => !seen.has(input));
    for (const { input } of task.items) seen.add(input);
    return (
      isNew &&
      (["validation", "test"] as const).every((split) => lab.items(task, split).length >= FEWEST_ITEMS)
    );
  });
}

export function otherKind(lab: Lab, task: Task): string {
  const kinds = kindsOf(lab);
  if (kinds.length < 2) return "";
  return kinds[(kinds.findIndex(({ name }) => name === task.name) + 1) % kinds.length]!.name;
}

export function cellOf(lab: Lab, task: Task, split: AskedSplit) {
  return alignment({ task: task.name, other: otherKind(lab, task), split });
}

export function itemCount(lab: Lab): number {
  return kindsOf(lab).reduce((sum, task) => sum + lab.result(cellOf(lab, task, "test")).items, 0);
}
