import type { SpecificationKind } from "xpatch";
import { decodedSets } from "./cells/decoded-sets.ts";
import { CHOSEN_NOTE, setupsOf, sharedLayer, tasksWith } from "./cells/layer-sweep.ts";
import { validationCells } from "./cells/validation.ts";
import { contrast } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { SPECIFICATION_NAMES, seedsOf } from "./framework/prompts.ts";
import { type Contrast, judged } from "./framework/rule.ts";
import { withoutUnembedding } from "./framework/stacks.ts";
import type { LinesFigure } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { LEVEL } from "./statistics/estimate.ts";
import { resampled } from "./statistics/resample.ts";

type Specification = SpecificationKind;

/** The specifications that are compared: sets of one among themselves, or of one with those of another. */
const COMPARED = [
  ["text", "text"],
  ["image", "image"],
  ["text", "image"],
  ["text", "instruction"],
  ["image", "instruction"],
] as const satisfies readonly (readonly [Specification, Specification])[];

/** Tokens of each task that are shown. */
const SHOWN = 6;

export const decoded: Experiment = {
  name: "decoded",
  title: "What many task vectors read as",
  claim:
    "Read through the unembedding where it is patched, the vector of each set of examples gives much the same tokens as those of the task's other sets, of text or of pictures, and as the instruction's, and other ones than another task's.",
  onlyInFull: true,
  untestable: (lab) =>
    tasksOf(lab, "text").length > 1
      ? withoutUnembedding(lab)
      : "it takes two tasks, whose vectors could read differently",
  cells: (lab) => [
    ...validationCells(lab),
    ...specificationsOf(lab).flatMap((specification) =>
      tasksOf(lab, specification).flatMap((task) =>
        seedsOf(lab, specification).map((seed) => decodedSets({ task, specification, seed })),
      ),
    ),
  ],
  report(lab): Findings {
    return {
      verdict: verdictOf(lab),
      text: [
        "Each prompt of examples gives a vector by itself, not averaged, and each instruction one. Two vectors are compared by their five most probable tokens: the share that they have in common. Sets that were drawn for the same item are never compared, in whichever task.",
        "Beside the share among sets of the same task stands that among sets of different tasks, which is what a model gives that says the same whatever the task. Intervals are over the items that sets were drawn for.",
        "The verdict rests on the layer that validation items chose for text vectors in text queries. The figure has other layers, without a verdict.",
      ],
      figures: [layersFigure(lab)],
      tables: [overlapTable(lab), tokensTable(lab)],
      controls: [],
    };
  },
};

interface Point {
  readonly task: string;
  readonly of: string;
  readonly ids: readonly number[];
}

/** The sets of a specification in a layer; in the one that is patched, if none is named. */
function pointsOf(lab: Lab, specification: Specification, layer?: number): Point[] {
  return tasksOf(lab, specification).flatMap((task) =>
    seedsOf(lab, specification).flatMap((seed) => {
      const found = lab.result(decodedSets({ task, specification, seed }));
      const l = found.layers.indexOf(layer ?? found.layer);
      return found.sets.map(({ of, ids }) => ({ task, of, ids: ids[l]! }));
    }),
  );
}

/** Tokens in common, as a share. */
export function overlap(a: readonly number[], b: readonly number[]): number {
  return a.filter((id) => b.includes(id)).length / Math.max(a.length, b.length);
}

interface Overlaps {
  /** The items that the first sets were drawn for, and their tasks. */
  readonly names: readonly string[];
  /** Mean share in common with sets of the same task, less that with sets of others, for any draw of the first sets. */
  readonly same: (indices: readonly number[]) => number;
  readonly different: (indices: readonly number[]) => number;
}

/**
 * Compares each of the first sets with each of the second, but for sets drawn for the same item. Where both are the same
 * sets, a draw takes both sides from those drawn, since the items that they stand for are what is drawn.
 */
export function overlaps(first: readonly Point[], second: readonly Point[], within: boolean): Overlaps {
  const shares = first.map((a) => second.map((b) => (a.of === b.of ? Number.NaN : overlap(a.ids, b.ids))));
  const sameTask = first.map((a) => second.map((b) => a.task === b.task));
  const meanOf = (indices: readonly number[], same: boolean) => {
    const weights = new Float64Array(second.length).fill(within ? 0 : 1);
    if (within) for (const i of indices) weights[i]!++;
    let [sum, count] = [0, 0];
    for (const i of indices) {
      const row = shares[i]!;
      const tasks = sameTask[i]!;
      for (let j = 0; j < row.length; j++) {
        const weight = weights[j]!;
        if (weight === 0 || tasks[j] !== same || Number.isNaN(row[j]!)) continue;
        sum += weight * row[j]!;
        count += weight;
      }
    }
    return count === 0 ? undefined : sum / count;
  };
  const all = [...first.keys()];
  // Of few items some draws have no such pair, and so say nothing.
  const drawn = (same: boolean) => {
    const whole = meanOf(all, same) ?? 0;
    return (indices: readonly number[]) => meanOf(indices, same) ?? whole;
  };
  return {
    names: first.map(({ of }) => of),
    same: drawn(true),
    different: drawn(false),
  };
}

function overlapsOf(lab: Lab, [a, b]: (typeof COMPARED)[number], layer?: number): Overlaps {
  return overlaps(pointsOf(lab, a, layer), pointsOf(lab, b, layer), a === b);
}

function excess({ names, same, different }: Overlaps, of: string): Contrast {
  const statistic = (indices: readonly number[]) => same(indices) - different(indices);
  return contrast((level) => resampled(names, statistic, { range: [-1, 1], level }), of);
}

function verdictOf(lab: Lab): Verdict {
  const pairs = comparedIn(lab).map((pair) => ({
    pair,
    contrast: excess(overlapsOf(lab, pair), nameOf(pair)),
  }));
  const among = (within: boolean) =>
    pairs.filter(({ pair: [a, b] }) => (a === b) === within).map((one) => one.contrast);
  const shown = pairs.map(({ pair, contrast: one }) => `${nameOf(pair)} ${showEstimate(one.at(LEVEL))}`);
  return judged(
    RULES.decoded,
    { stable: { sets: among(true) }, shared: { specifications: among(false) } },
    `Above different tasks: ${shown.join(", ")}`,
  );
}

function layersFigure(lab: Lab): LinesFigure {
  const layers = layersOf(lab);
  const patched = sharedLayer(lab, { specification: "text", query: "text" });
  return {
    kind: "lines",
    name: "layers",
    title: "Tokens in common between vectors, by layer",
    caption:
      "Share of the five most probable tokens in common, mean over pairs of sets of examples (or instructions).",
    chosen: CHOSEN_NOTE,
    x: "layer",
    y: "share in common",
    rows: comparedIn(lab).flatMap((pair) =>
      layers.flatMap((layer) => {
        const found = overlapsOf(lab, pair, layer);
        const all = [...found.names.keys()];
        const at = { panel: nameOf(pair), x: layer, items: new Set(found.names).size };
        return [
          { ...at, series: "same task", y: found.same(all), chosen: layer === patched },
          { ...at, series: "different tasks", y: found.different(all) },
        ];
      }),
    ),
  };
}

function overlapTable(lab: Lab): Table {
  return {
    name: "overlap",
    title: "Tokens in common in the layer that is patched",
    columns: ["compared", "same task", "different tasks (control)", "difference"],
    rows: comparedIn(lab).map((pair) => {
      const found = overlapsOf(lab, pair);
      const of = (statistic: Overlaps["same"]) => resampled(found.names, statistic, { range: [0, 1] });
      return [nameOf(pair), of(found.same), of(found.different), excess(found, "").at(LEVEL)];
    }),
  };
}

/** Descriptive: the tokens that most sets of a task have among their five. */
function tokensTable(lab: Lab): Table {
  return {
    name: "tokens",
    title:
      "The tokens that most sets have among their five, and the share of sets that have them (no verdict)",
    columns: ["task", "specification", "layer", "sets", "tokens", "different first tokens"],
    rows: specificationsOf(lab).flatMap((specification) =>
      tasksOf(lab, specification).map((task) => {
        const results = seedsOf(lab, specification).map((seed) =>
          lab.result(decodedSets({ task, specification, seed })),
        );
        const { layer, layers } = results[0]!;
        const sets = results.flatMap((one) => one.sets.map(({ tokens }) => tokens[layers.indexOf(layer)]!));
        const counts = new Map<string, number>();
        for (const token of sets.flat()) counts.set(token, (counts.get(token) ?? 0) + 1);
        const most = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, SHOWN);
        return [
          task,
          SPECIFICATION_NAMES[specification],
          layer,
          sets.length,
          most.map(([token, n]) => `${spelt(token)} ${(n / sets.length).toFixed(2)}`).join(", "),
          new Set(sets.map(([first]) => first)).size,
        ];
      }),
    ),
  };
}

/** In quotation marks, with what would look like a blank by its number. */
function spelt(token: string): string {
  return JSON.stringify(token).replace(/[^\S ]|\p{Cf}/gu, (blank) => {
    return `\\u{${blank.codePointAt(0)!.toString(16)}}`;
  });
}

/** Layers that all tasks have been read in. */
function layersOf(lab: Lab): readonly number[] {
  const lists = tasksOf(lab, "text").map(
    (task) => lab.result(decodedSets({ task, specification: "text", seed: 0 })).layers,
  );
  return lists[0]!.filter((layer) => lists.every((list) => list.includes(layer)));
}

function comparedIn(lab: Lab): (typeof COMPARED)[number][] {
  const present = specificationsOf(lab);
  return COMPARED.filter(([a, b]) => present.includes(a) && present.includes(b));
}

function nameOf([a, b]: (typeof COMPARED)[number]): string {
  return a === b ? SPECIFICATION_NAMES[a] : `${SPECIFICATION_NAMES[a]}, ${SPECIFICATION_NAMES[b]}`;
}

function specificationsOf(lab: Lab): Specification[] {
  const all = [...new Set(setupsOf(lab).map(({ specification }) => specification))];
  return all.filter((specification) => tasksOf(lab, specification).length > 1);
}

/** Of the means; different tasks are the control. */
function tasksOf(lab: Lab, specification: Specification): string[] {
  return tasksWith(lab, { specification, query: "text" }, lab.tasksInMeans).map(({ name }) => name);
}
