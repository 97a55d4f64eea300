import type { TaskItem } from "xpatch";
import { type ArithmeticResult, arithmeticCell, STEPS, STRENGTHS } from "./cells/arithmetic.ts";
import { namingCells, namingTable } from "./cells/naming.ts";
import { nameOf, type Pair, pairsInMeans, pairsOf, sharedItems, withoutPairs } from "./cells/pairs.ts";
import { validationCells } from "./cells/validation.ts";
import { type AskedTask, constantAnswers } from "./framework/constants.ts";
import { aboveControl, difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { AskedSplit, Lab } from "./framework/lab.ts";
import { QUERY_NAMES, widestQuery } from "./framework/prompts.ts";
import { constantReferences } from "./framework/references.ts";
import { judged } from "./framework/rule.ts";
import { beside, taskHits } from "./framework/scored.ts";
import { type LinesFigure, pointOf } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy, accuracyDifference, type Hits } from "./statistics/accuracy.ts";

/** Whose outputs count as right. */
const SIDES = { "its own task": "own", "the other task": "other" } as const;

type Side = (typeof SIDES)[keyof typeof SIDES];

/** Edits of {@link arithmeticCell}, as they are called in tables. a: the task's vector, b: the other task's, m: the mean. */
const METHODS: Readonly<Record<string, string>> = {
  set: "set a",
  add: "add a",
  "interpolate half-way": "half-way from x to a",
  "replace along the direction": "x, its component along a − m replaced by a's",
  ...byStrength("add direction", (strength) => `add ${strength} (a − m)`),
  ...byStrength("set mean + direction", (strength) => `set m + ${strength} (a − m)`),
};

const COMPOSITIONS: Readonly<Record<string, string>> = {
  ...Object.fromEntries(STEPS.map((step) => [`mix ${step}`, `set ${1 - step} a + ${step} b`])),
  sum: "set a + b",
  "sum less mean": "set a + b − m",
};

const CONTROLS: Readonly<Record<string, string>> = {
  "set mean": "set m",
  "set random": "set a random vector of a's norm",
  ...byStrength(
    "add random direction",
    (strength) => `add ${strength} times a random vector of the norm of a − m`,
  ),
};

export const arithmetic: Experiment = {
  name: "arithmetic",
  title: "Adding, mixing and steering with task vectors",
  claim:
    "Task vectors can be computed with: a task's direction away from the mean of the tasks, added to the query's own residual stream, makes the model do the task, and between the vectors of two tasks the model goes from one to the other.",
  untestable: (lab) => withoutPairs(lab, widestQuery(lab)),
  cells: (lab) => [
    ...validationCells(lab),
    ...(["validation", "test"] as const).flatMap((split) =>
      pairsOf(lab, widestQuery(lab)).map((pair) => cellOf(lab, pair, split)),
    ),
    ...namingCells(lab),
  ],
  report(lab): Findings {
    return {
      verdict: verdictOf(lab),
      text: [
        "x is the residual stream of the bare query at its last token, a the vector of the query's task, b that of another task that asks about the same things, m the mean over the tasks. Only things that both tasks have are asked about.",
        "The layer is the one that validation items chose for a alone, and the strength on which the verdict rests was chosen on validation items; the test items were scored once.",
      ],
      figures: [strengthsFigure(lab), mixFigure(lab)],
      tables: [
        table(lab, "methods", "Ways to write a task vector", METHODS),
        compositionTable(lab),
        byPairTable(lab),
        ...regurgitationTable(lab),
      ],
      controls: [table(lab, "controls", "Vectors that do not know the task", CONTROLS)],
    };
  },
};

function cellOf(lab: Lab, pair: Pair, split: AskedSplit) {
  return arithmeticCell({ ...pair, query: widestQuery(lab), split });
}

interface TestedPair {
  readonly pair: Pair;
  /** The items asked about, as both tasks answer them. */
  readonly items: Readonly<Record<Side, readonly TaskItem[]>>;
  readonly result: ArithmeticResult;
}

function resultsOf(
  lab: Lab,
  split: AskedSplit = "test",
  pairs = pairsInMeans(lab, widestQuery(lab)),
): TestedPair[] {
  return pairs.map((pair) => ({
    pair,
    items: sharedItems(lab, pair, split),
    result: lab.result(cellOf(lab, pair, split)),
  }));
}

function hitsOf(tested: readonly TestedPair[], edit: string, side: Side = "own"): Hits {
  return tested.map(({ items, result }) =>
    taskHits(
      items[side],
      result.edited[edit]!.map((scores) => scores[side]),
    ),
  );
}

function unpatched(tested: readonly TestedPair[], side: Side = "own"): Hits {
  return tested.map(({ items, result }) => taskHits(items[side], [result.unpatched[side]]));
}

/** What constant answers would get by one of the tasks, those under an edit among them. */
function constantsOf(lab: Lab, tested: readonly TestedPair[], edit: string, side: Side) {
  return constantAnswers(askedBy(lab, tested, edit, side), lab.options);
}

/** What was asked about by one of the tasks, and answered under an edit. */
function askedBy(lab: Lab, tested: readonly TestedPair[], edit: string, side: Side): AskedTask[] {
  return tested.map(({ pair, items, result }) => ({
    task: lab.task(side === "own" ? pair.task : pair.other),
    items: items[side],
    answers: result.edited[edit]!.flatMap((scores) => scores[side].answers),
  }));
}

/** The strength with the highest accuracy on validation items; of equals the first. */
function chosenStrength(lab: Lab): number {
  const results = resultsOf(lab, "validation");
  const means = STRENGTHS.map((strength) => accuracy(hitsOf(results, `add direction × ${strength}`)).mean);
  return STRENGTHS[means.indexOf(Math.max(...means))]!;
}

function verdictOf(lab: Lab): Verdict {
  const tested = resultsOf(lab);
  const strength = chosenStrength(lab);
  const edit = `add direction × ${strength}`;
  const added = hitsOf(tested, edit);
  const random = hitsOf(tested, `add random direction × ${strength}`);
  const { frequent, constant } = constantsOf(lab, tested, edit, "own");
  // From where a has three quarters to where b has: each task has to lose, or win, what the other one wins, or loses.
  const [near, far] = ["mix 0.25", "mix 0.75"];
  const nearer = [
    { side: "own", edit: near, name: "first task" },
    { side: "other", edit: far, name: "other task" },
  ] as const;
  const mixed = nearer.map(({ side, edit: mix, name }) => ({
    name,
    hits: hitsOf(tested, mix, side),
    constants: constantsOf(lab, tested, mix, side),
  }));
  const { majority } = beside(tested.map(({ result }) => result.unpatched.own));
  const shown = Object.entries({
    [`direction added ${strength} times`]: added,
    "random direction": random,
    "no context": unpatched(tested),
    set: hitsOf(tested, "set"),
  }).map(([name, hits]) => `${name} ${showEstimate(accuracy(hits))}`);
  return judged(
    RULES.arithmetic,
    {
      steers: {
        noContext: aboveControl(added, unpatched(tested)),
        random: aboveControl(added, random),
        mean: aboveControl(added, hitsOf(tested, "set mean")),
        frequent: aboveControl(added, frequent),
        constant: aboveControl(added, constant),
      },
      mixes: {
        own: difference(hitsOf(tested, near), hitsOf(tested, far)),
        other: difference(hitsOf(tested, far, "other"), hitsOf(tested, near, "other")),
        frequent: mixed.flatMap(({ hits, constants, name }) => aboveControl(hits, constants.frequent, name)),
        constant: mixed.flatMap(({ hits, constants, name }) => aboveControl(hits, constants.constant, name)),
      },
    },
    `${shown.join(", ")}, majority ${majority.toFixed(2)}`,
  );
}

function strengthsFigure(lab: Lab): LinesFigure {
  const results = resultsOf(lab);
  const series = {
    "add (a − m)": "add direction",
    "set m + (a − m)": "set mean + direction",
    "add random (control)": "add random direction",
  };
  return {
    kind: "lines",
    name: "strengths",
    title: "Accuracy by the strength of the direction",
    caption: captionOf(lab),
    chosen: "the strength that validation items chose",
    x: "strength",
    y: "accuracy",
    rows: Object.entries(series).flatMap(([name, edit]) =>
      STRENGTHS.map((strength) => ({
        series: name,
        x: strength,
        ...pointOf(accuracy(hitsOf(results, `${edit} × ${strength}`))),
        chosen: edit === "add direction" && strength === chosenStrength(lab),
      })),
    ),
    references: constantReferences(
      lab.options,
      askedBy(lab, results, `add direction × ${chosenStrength(lab)}`, "own"),
    ),
  };
}

function mixFigure(lab: Lab): LinesFigure {
  const results = resultsOf(lab);
  return {
    kind: "lines",
    name: "mix",
    title: "Accuracy between the vectors of two tasks",
    caption: captionOf(lab),
    x: "part of the other task's vector",
    y: "accuracy",
    rows: Object.entries(SIDES).flatMap(([series, side]) =>
      STEPS.map((step) => ({ series, x: step, ...pointOf(accuracy(hitsOf(results, `mix ${step}`, side))) })),
    ),
    // Each where its task is the nearer one, as in the verdict.
    references: Object.entries(SIDES).flatMap(([name, side]) =>
      constantReferences(
        lab.options,
        askedBy(lab, results, side === "own" ? "mix 0.25" : "mix 0.75", side),
      ).map((reference) => ({ ...reference, label: `${reference.label}, ${name}` })),
    ),
  };
}

function table(lab: Lab, name: string, title: string, edits: Readonly<Record<string, string>>): Table {
  const results = resultsOf(lab);
  return {
    name,
    title: `${title}: accuracy on test items, mean over ${pairNames(lab)}`,
    columns: ["edit", "layer", "majority", "no context", "accuracy", "less set a", "distinct answers"],
    rows: Object.entries(edits).map(([edit, called]) => [
      called,
      layersOf(results),
      beside(results.map(({ result }) => result.unpatched.own)).majority,
      accuracy(unpatched(results)),
      accuracy(hitsOf(results, edit)),
      accuracyDifference(hitsOf(results, edit), hitsOf(results, "set")),
      distinctOf(results, edit),
    ]),
  };
}

function compositionTable(lab: Lab): Table {
  const results = resultsOf(lab);
  return {
    name: "compositions",
    title: `Two tasks' vectors together: accuracy on test items by either task, mean over ${pairNames(lab)}`,
    columns: [
      "edit",
      "layer",
      "majority, own",
      "majority, other",
      ...Object.keys(SIDES),
      "own − other",
      "distinct answers",
    ],
    rows: Object.entries(COMPOSITIONS).map(([edit, called]) => [
      called,
      layersOf(results),
      ...Object.values(SIDES).map(
        (side) => beside(results.map(({ result }) => result.unpatched[side])).majority,
      ),
      ...Object.values(SIDES).map((side) => accuracy(hitsOf(results, edit, side))),
      accuracyDifference(hitsOf(results, edit), hitsOf(results, edit, "other")),
      distinctOf(results, edit),
    ]),
  };
}

function byPairTable(lab: Lab): Table {
  const strength = chosenStrength(lab);
  const edits = ["set", `add direction × ${strength}`, "replace along the direction", "mix 0.5", "sum"];
  const names: Readonly<Record<string, string>> = { ...METHODS, ...COMPOSITIONS };
  return {
    name: "by-pair",
    title: "Some of these by pair of tasks",
    columns: [
      "pair",
      "edit",
      "layer",
      "majority, own",
      "majority, other",
      ...Object.keys(SIDES),
      "distinct answers",
    ],
    rows: pairsOf(lab, widestQuery(lab)).flatMap((pair) => {
      const results = resultsOf(lab, "test", [pair]);
      return edits.map((edit) => [
        nameOf(pair),
        names[edit]!,
        layersOf(results),
        ...Object.values(SIDES).map((side) => results[0]!.result.unpatched[side].majority),
        ...Object.values(SIDES).map((side) => accuracy(hitsOf(results, edit, side))),
        distinctOf(results, edit),
      ]);
    }),
  };
}

function regurgitationTable(lab: Lab): Table[] {
  if (widestQuery(lab) !== "image") return [];
  const results = resultsOf(lab);
  const edits = { ...METHODS, ...COMPOSITIONS };
  return namingTable(
    lab,
    ["edit"],
    Object.entries(edits).map(([edit, called]) => ({
      head: [called],
      answers: results.map(({ pair, items, result }) => ({
        task: lab.task(pair.task),
        items: items.own,
        seeds: result.edited[edit]!.map(({ own }) => own),
      })),
    })),
  );
}

function layersOf(results: readonly TestedPair[]): string {
  return [...new Set(results.map(({ result }) => result.layer))].join(", ");
}

function distinctOf(results: readonly TestedPair[], edit: string): string {
  return beside(results.map(({ result }) => result.edited[edit]![0]!.own)).distinct;
}

function byStrength(edit: string, name: (strength: number) => string): Record<string, string> {
  return Object.fromEntries(STRENGTHS.map((strength) => [`${edit} × ${strength}`, name(strength)]));
}

function captionOf(lab: Lab): string {
  return `${QUERY_NAMES[widestQuery(lab)]}, mean over ${pairNames(lab)} on test items.`;
}

function pairNames(lab: Lab): string {
  return pairsInMeans(lab, widestQuery(lab)).map(nameOf).join(", ");
}
