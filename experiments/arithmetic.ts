import { type ArithmeticResult, arithmeticCell, STEPS, STRENGTHS } from "./cells/arithmetic.ts";
import { nameOf, type Pair, pairsInMeans, pairsOf, withoutPairs } from "./cells/pairs.ts";
import { validationCells } from "./cells/validation.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { AskedSplit, Lab } from "./framework/lab.ts";
import { QUERY_NAMES, widestQuery } from "./framework/prompts.ts";
import { beside } from "./framework/scored.ts";
import type { LinesFigure } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { accuracy, accuracyDifference, type Hits } from "./statistics/bootstrap.ts";

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
      ],
      controls: [table(lab, "controls", "Vectors that do not know the task", CONTROLS)],
    };
  },
};

function cellOf(lab: Lab, pair: Pair, split: AskedSplit) {
  return arithmeticCell({ ...pair, query: widestQuery(lab), split });
}

function resultsOf(
  lab: Lab,
  split: AskedSplit = "test",
  pairs = pairsInMeans(lab, widestQuery(lab)),
): ArithmeticResult[] {
  return pairs.map((pair) => lab.result(cellOf(lab, pair, split)));
}

function hitsOf(results: readonly ArithmeticResult[], edit: string, side: Side = "own"): Hits {
  return results.map(({ edited }) => edited[edit]!.map((scores) => scores[side].hits));
}

function unpatched(results: readonly ArithmeticResult[], side: Side = "own"): Hits {
  return results.map((result) => [result.unpatched[side].hits]);
}

/** The strength with the highest accuracy on validation items; of equals the first. */
function chosenStrength(lab: Lab): number {
  const results = resultsOf(lab, "validation");
  const means = STRENGTHS.map((strength) => accuracy(hitsOf(results, `add direction × ${strength}`)).mean);
  return STRENGTHS[means.indexOf(Math.max(...means))]!;
}

function verdictOf(lab: Lab): Verdict {
  const results = resultsOf(lab);
  const strength = chosenStrength(lab);
  const added = hitsOf(results, `add direction × ${strength}`);
  const rivals = [unpatched(results), hitsOf(results, `add random direction × ${strength}`)];
  const steers = rivals.every((rival) => accuracyDifference(added, rival).low > 0);
  // From where a has three quarters to where b has: each task has to lose, or win, what the other one wins, or loses.
  const change = (side: Side) =>
    accuracyDifference(hitsOf(results, "mix 0.75", side), hitsOf(results, "mix 0.25", side));
  const [own, other] = [change("own"), change("other")];
  const goesOver = own.high < 0 && other.low > 0;
  const because = `direction added ${strength} times ${showEstimate(accuracy(added))}, random direction ${showEstimate(accuracy(rivals[1]!))}, no context ${showEstimate(accuracy(rivals[0]!))}, set ${showEstimate(accuracy(hitsOf(results, "set")))}; from 0.25 to 0.75 b its own task changes by ${showEstimate(own)}, the other by ${showEstimate(other)}`;
  if (steers && goesOver) return { outcome: "replicates", because };
  return { outcome: steers || goesOver ? "replicates in part" : "does not replicate", because };
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
    x: "strength",
    y: "accuracy",
    rows: Object.entries(series).flatMap(([name, edit]) =>
      STRENGTHS.map((strength) => {
        const { mean, low, high } = accuracy(hitsOf(results, `${edit} × ${strength}`));
        return { series: name, x: strength, y: mean, low, high };
      }),
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
      STEPS.map((step) => {
        const { mean, low, high } = accuracy(hitsOf(results, `mix ${step}`, side));
        return { series, x: step, y: mean, low, high };
      }),
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
      beside(results.map((result) => result.unpatched.own)).majority,
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
      ...Object.values(SIDES).map((side) => beside(results.map((result) => result.unpatched[side])).majority),
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
        ...Object.values(SIDES).map((side) => results[0]!.unpatched[side].majority),
        ...Object.values(SIDES).map((side) => accuracy(hitsOf(results, edit, side))),
        distinctOf(results, edit),
      ]);
    }),
  };
}

function layersOf(results: readonly ArithmeticResult[]): string {
  return [...new Set(results.map(({ layer }) => layer))].join(", ");
}

function distinctOf(results: readonly ArithmeticResult[], edit: string): string {
  return beside(results.map(({ edited }) => edited[edit]![0]!.own)).distinct;
}

function byStrength(edit: string, name: (strength: number) => string): Record<string, string> {
  return Object.fromEntries(STRENGTHS.map((strength) => [`${edit} × ${strength}`, name(strength)]));
}

function captionOf(lab: Lab): string {
  return `${QUERY_NAMES[widestQuery(lab)]}, mean over ${pairNames(lab)} on test items, with 95 % intervals.`;
}

function pairNames(lab: Lab): string {
  return pairsInMeans(lab, widestQuery(lab)).map(nameOf).join(", ");
}
