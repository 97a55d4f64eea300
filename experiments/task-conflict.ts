import type { TaskItem } from "xpatch";
import {
  type ConflictParams,
  type ConflictTestResult,
  conflictSweep,
  conflictTest,
  SCALES,
} from "./cells/conflict.ts";
import { namingCells, namingTable } from "./cells/naming.ts";
import {
  nameOf,
  type Pair,
  pairsInMeans,
  pairsOf,
  type ScoredTwice,
  sharedItems,
  withoutPairs,
} from "./cells/pairs.ts";
import { SPREAD_NOTE } from "./cells/spread.ts";
import { validationCells } from "./cells/validation.ts";
import { constantAnswers } from "./framework/constants.ts";
import { aboveControl, difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES, SPECIFICATION_NAMES, seedsOf, widestQuery } from "./framework/prompts.ts";
import { constantReferences } from "./framework/references.ts";
import { type Contrast, judged } from "./framework/rule.ts";
import { beside, taskHits } from "./framework/scored.ts";
import { type HeatFigure, type LinesFigure, pointOf } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy, accuracyDifference, type Hits } from "./statistics/accuracy.ts";
import { mean } from "./statistics/resample.ts";

type Asked = ConflictParams["specification"];

/** Whose outputs count as right: those of the task that the prompt asks for, or of the one that is patched in. */
const SIDES = { "the prompt's task": "own", "the patch's task": "other" } as const;

type Side = (typeof SIDES)[keyof typeof SIDES];

/** The vector as it is. */
const FULL = SCALES.indexOf(1);

export const taskConflict: Experiment = {
  name: "task-conflict",
  title: "Prompt against patch",
  claim:
    "Where the prompt asks for one task and the patched vector is of another, the model does the task of the patch.",
  untestable: (lab) => withoutPairs(lab, widestQuery(lab)),
  cells: (lab) => [
    ...validationCells(lab),
    ...askedWays(lab).flatMap((specification) =>
      pairsAsked(lab, specification, pairsOf(lab, widestQuery(lab))).flatMap((pair) => [
        conflictSweep({ ...paramsOf(lab, pair, specification), seed: 0 }),
        ...seedsFor(lab, specification).map((seed) =>
          conflictTest({ ...paramsOf(lab, pair, specification), seed }),
        ),
      ]),
    ),
    ...namingCells(lab),
  ],
  report(lab): Findings {
    return {
      verdict: verdictOf(lab),
      text: [
        "The same answers are scored twice: by the outputs of the task that the prompt asks for, and by those of the task whose vector is patched into the last token. Only things that both tasks have are asked about.",
        "The layer is the one that validation items chose for the patched vector in queries without context; scales and layers in the heat maps are of validation items.",
      ],
      figures: [scalesFigure(lab), layersFigure(lab)],
      tables: [methodsTable(lab), byPairTable(lab), ...regurgitationTable(lab)],
      controls: [controlsTable(lab)],
    };
  },
};

interface TestedPair {
  readonly pair: Pair;
  /** The items asked about, as both tasks answer them. */
  readonly items: Readonly<Record<Side, readonly TaskItem[]>>;
  /** By seed. */
  readonly results: readonly ConflictTestResult[];
}

function resultsOf(lab: Lab, specification: Asked, list: readonly Pair[]): TestedPair[] {
  return list.map((pair) => ({
    pair,
    items: sharedItems(lab, pair, "test"),
    results: seedsFor(lab, specification).map((seed) =>
      lab.result(conflictTest({ ...paramsOf(lab, pair, specification), seed })),
    ),
  }));
}

function hitsOf(
  tested: readonly TestedPair[],
  pick: (result: ConflictTestResult) => ScoredTwice,
  side: Side,
): Hits {
  return tested.map(({ items, results }) =>
    taskHits(
      items[side],
      results.map((result) => pick(result)[side]),
    ),
  );
}

const unpatched = (result: ConflictTestResult) => result.unpatched;
const patchedBy = (scale: number) => (result: ConflictTestResult) => result.patched[scale]!;

function verdictOf(lab: Lab): Verdict {
  const found = askedWays(lab).map((specification) => ({
    name: SPECIFICATION_NAMES[specification],
    tested: resultsOf(lab, specification, pairsAsked(lab, specification)),
  }));
  const patched = patchedBy(FULL);
  /** Of answers that are right by the patch's task, against a rival's that are. */
  const each = (rival: (tested: readonly TestedPair[]) => Hits): Contrast[] =>
    found.flatMap(({ name, tested }) => aboveControl(hitsOf(tested, patched, "other"), rival(tested), name));
  const constants = (tested: readonly TestedPair[]) =>
    constantAnswers(
      tested.map(({ pair, items, results }) => ({
        task: lab.task(pair.other),
        items: items.other,
        answers: results.flatMap((result) => patched(result).other.answers),
      })),
      lab.options,
    );
  const shown = found.map(({ name, tested }) => {
    const of = (pick: typeof patched, side: Side) => showEstimate(accuracy(hitsOf(tested, pick, side)));
    return `${name}: patch's task ${of(patched, "other")}, prompt's ${of(patched, "own")}; unpatched ${of(unpatched, "other")} and ${of(unpatched, "own")}`;
  });
  return judged(
    RULES["task-conflict"],
    {
      moves: {
        unpatched: each((tested) => hitsOf(tested, unpatched, "other")),
        same: each((tested) => hitsOf(tested, ({ controls }) => controls.same, "other")),
        random: each((tested) => hitsOf(tested, ({ controls }) => controls.random, "other")),
        frequent: each((tested) => constants(tested).frequent),
        constant: each((tested) => constants(tested).constant),
      },
      wins: {
        prompt: found.map(({ name, tested }) =>
          difference(hitsOf(tested, patched, "other"), hitsOf(tested, patched, "own"), name),
        ),
      },
    },
    shown.join(". "),
  );
}

function scalesFigure(lab: Lab): LinesFigure {
  return {
    kind: "lines",
    name: "scales",
    title: "Which task wins, by the scale of the patch",
    caption: `${QUERY_NAMES[widestQuery(lab)]}, mean over ${pairNames(lab)} on test items. At 0 nothing is patched.`,
    x: "scale of the patched vector",
    y: "accuracy",
    rows: askedWays(lab).flatMap((specification) => {
      const results = resultsOf(lab, specification, pairsAsked(lab, specification));
      return Object.entries(SIDES).flatMap(([series, side]) =>
        [unpatched, ...SCALES.map((_, s) => patchedBy(s))].map((pick, i) => ({
          panel: `prompt of ${SPECIFICATION_NAMES[specification]}`,
          series,
          x: [0, ...SCALES][i]!,
          ...pointOf(accuracy(hitsOf(results, pick, side))),
        })),
      );
    }),
    references: askedWays(lab).flatMap((specification) =>
      constantReferences(
        lab.options,
        resultsOf(lab, specification, pairsAsked(lab, specification)).map(({ pair, items, results }) => ({
          task: lab.task(pair.other),
          items: items.other,
          answers: results.flatMap((result) => patchedBy(FULL)(result).other.answers),
        })),
        { panel: `prompt of ${SPECIFICATION_NAMES[specification]}` },
      ).map((reference) => ({ ...reference, label: `${reference.label}, patch's task` })),
    ),
  };
}

function layersFigure(lab: Lab): HeatFigure {
  return {
    kind: "heat",
    name: "layers",
    title: "Which task wins, by layer and scale",
    caption: `Accuracy by the patch's task less that by the prompt's, by the scale of the patched vector; mean over ${pairNames(lab)} on validation items, one seed. ${SPREAD_NOTE}`,
    x: "layer",
    y: "scale",
    value: "patch − prompt",
    diverging: true,
    rows: askedWays(lab).flatMap((specification) => {
      const results = pairsAsked(lab, specification).map((pair) =>
        lab.result(conflictSweep({ ...paramsOf(lab, pair, specification), seed: 0 })),
      );
      const inputs = pairsAsked(lab, specification).flatMap((pair) =>
        sharedItems(lab, pair, "validation").own.map(({ input }) => input),
      );
      return SCALES.flatMap((scale, s) =>
        results[0]!.layers.map((layer, l) => {
          const margins = results.map(({ patched }) => {
            const { own, other } = patched[s]![l]!;
            return other.accuracy - own.accuracy;
          });
          return {
            panel: `prompt of ${SPECIFICATION_NAMES[specification]}`,
            x: layer,
            y: scale,
            value: mean(margins),
            items: new Set(inputs).size,
            seeds: 1,
          };
        }),
      );
    }),
  };
}

const COLUMNS = [
  "prompt",
  "layer",
  "scale",
  "answers of",
  "majority",
  "unpatched",
  "patched",
  "patched − unpatched",
  "patch's task − prompt's task",
  "distinct answers",
];

function methodsTable(lab: Lab): Table {
  return {
    name: "methods",
    title: `Accuracy on test items by either task, mean over ${pairNames(lab)}`,
    columns: COLUMNS,
    rows: askedWays(lab).flatMap((specification) =>
      SCALES.flatMap((_, scale) => rowsFor(lab, specification, pairsAsked(lab, specification), scale)),
    ),
  };
}

function byPairTable(lab: Lab): Table {
  return {
    name: "by-pair",
    title: "The same by pair of tasks, at full scale",
    columns: ["pair", ...COLUMNS],
    rows: askedWays(lab).flatMap((specification) =>
      pairsAsked(lab, specification, pairsOf(lab, widestQuery(lab))).flatMap((pair) =>
        rowsFor(lab, specification, [pair], FULL).map((row) => [nameOf(pair), ...row]),
      ),
    ),
  };
}

function rowsFor(lab: Lab, specification: Asked, list: readonly Pair[], scale: number) {
  const results = resultsOf(lab, specification, list);
  const patched = patchedBy(scale);
  const margin = accuracyDifference(hitsOf(results, patched, "other"), hitsOf(results, patched, "own"));
  const layers = [...new Set(results.map((one) => one.results[0]!.layer))].join(", ");
  return Object.entries(SIDES).map(([name, side]) => {
    const [before, after] = [hitsOf(results, unpatched, side), hitsOf(results, patched, side)];
    const { majority, distinct } = beside(results.map((one) => patched(one.results[0]!)[side]));
    return [
      SPECIFICATION_NAMES[specification],
      layers,
      SCALES[scale]!,
      name,
      majority,
      accuracy(before),
      accuracy(after),
      accuracyDifference(after, before),
      margin,
      distinct,
    ];
  });
}

function regurgitationTable(lab: Lab): Table[] {
  if (widestQuery(lab) !== "image") return [];
  const methods = { unpatched, patched: patchedBy(FULL) };
  return namingTable(
    lab,
    ["prompt", "query", "answers of"],
    askedWays(lab).flatMap((specification) => {
      const tested = resultsOf(lab, specification, pairsAsked(lab, specification));
      return Object.entries(methods).flatMap(([method, pick]) =>
        Object.entries(SIDES).map(([name, side]) => ({
          head: [SPECIFICATION_NAMES[specification], method, name],
          answers: tested.map(({ pair, items, results }) => ({
            task: lab.task(pair.task),
            items: items[side],
            seeds: results.map((result) => pick(result)[side]),
          })),
        })),
      );
    }),
  );
}

function controlsTable(lab: Lab): Table {
  const vectors = {
    "of the prompt's own task": ({ controls }: ConflictTestResult) => controls.same,
    "random, of the same norm": ({ controls }: ConflictTestResult) => controls.random,
  };
  return {
    name: "controls",
    title: "Other vectors in the same place",
    columns: ["prompt", "vector", "answers of", "accuracy", "majority", "distinct answers"],
    rows: askedWays(lab).flatMap((specification) => {
      const results = resultsOf(lab, specification, pairsAsked(lab, specification));
      return Object.entries(vectors).flatMap(([vector, pick]) =>
        Object.entries(SIDES).map(([name, side]) => {
          const { majority, distinct } = beside(results.map((one) => pick(one.results[0]!)[side]));
          const value = accuracy(hitsOf(results, pick, side));
          return [SPECIFICATION_NAMES[specification], vector, name, value, majority, distinct];
        }),
      );
    }),
  };
}

/** The ways to ask that at least one pair allows. */
function askedWays(lab: Lab): Asked[] {
  return (["text", "instruction"] as const).filter((way) => pairsAsked(lab, way).length > 0);
}

/** Those of some pairs whose first task can be asked for so. */
function pairsAsked(lab: Lab, specification: Asked, list = pairsInMeans(lab, widestQuery(lab))): Pair[] {
  return list.filter(({ task }) => specification === "text" || lab.hasInstruction(lab.task(task)));
}

function paramsOf(lab: Lab, { task, other }: Pair, specification: Asked) {
  return { task, other, specification, query: widestQuery(lab) };
}

/** Few-shot prompts cost most of all. */
function seedsFor(lab: Lab, specification: Asked): number[] {
  return seedsOf(lab, specification, lab.options.promptSeeds);
}

function pairNames(lab: Lab): string {
  return pairsInMeans(lab, widestQuery(lab)).map(nameOf).join(", ");
}
