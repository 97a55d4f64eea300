import type { Modality, SpecificationKind } from "xpatch";
import { decodedVectors } from "./cells/decoded-vectors.ts";
import { setupsOf, tasksWith } from "./cells/layer-sweep.ts";
import { type LensPhasesResult, lensPhases, type Traced } from "./cells/lens-phases.ts";
import { TARGETS, type Target, tokenSets } from "./cells/token-sets.ts";
import { contrast, difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { AskedSplit, Lab } from "./framework/lab.ts";
import { QUERY_NAMES, SPECIFICATION_NAMES } from "./framework/prompts.ts";
import { type Contrast, judged } from "./framework/rule.ts";
import type { LinesFigure } from "./report/figure.ts";
import type { Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy, type Hits } from "./statistics/accuracy.ts";
import { type Estimate, LEVEL } from "./statistics/estimate.ts";
import { mean, resampled } from "./statistics/resample.ts";

const TARGET_NAMES: Readonly<Record<Target, string>> = {
  input: "the item's name",
  task: "the task's word",
  answers: "answers to other items",
  answer: "the item's answer",
};

/** The phases in the order claimed. */
const PHASES = ["input", "task", "answer"] as const;

type Measure = keyof Traced;

export const lens: Experiment = {
  name: "lens",
  title: "Input, task, answer: the logit lens",
  claim:
    "Read through the unembedding, the query's last token goes from the input over the task to the answer, layer by layer, whether the query is text or a picture.",
  untestable: (lab) =>
    hasDistinctItems(lab)
      ? undefined
      : "the names and answers of all items begin alike, so that they cannot be told apart",
  cells: (lab) => [
    ...modalitiesOf(lab).flatMap((modality) =>
      tasksWith(lab, { specification: modality, query: modality }).flatMap(({ name: task }) =>
        (["validation", "test"] as const).map((split) => lensPhases({ task, modality, split })),
      ),
    ),
    ...decoded(lab).map(decodedVectors),
  ],
  report(lab): Findings {
    const phases = modalitiesOf(lab).map((modality) => phasesOf(lab, modality));
    return {
      verdict: verdictOf(phases),
      text: [
        "Each query stands behind examples of its own modality. A set of tokens is looked for: how the item's name, the task's word, the answers to the other items of the task, and the answer itself may begin, with and without a space; no token is in two sets. Items whose name and answer begin alike are left out.",
        "A phase's layer is where the mean reciprocal rank of its set is farthest above that of the control, on validation items; what it comes to is measured on test items.",
      ],
      figures: [linesFigure(lab, "reciprocalRank"), linesFigure(lab, "mass")],
      tables: [phasesTable(phases), decodedTable(lab)],
      controls: [controlTable(lab, phases)],
    };
  },
};

interface Phases {
  readonly modality: Modality;
  readonly layers: Readonly<Record<Target, Estimate>>;
  /** Mean reciprocal rank above the control, on test items in the phase's layer. */
  readonly excess: Readonly<Record<Target, Contrast>>;
  /** Layers from one phase to the next. */
  readonly steps: readonly Contrast[];
  readonly ambiguous: number;
}

function phasesOf(lab: Lab, modality: Modality): Phases {
  const validation = tracesOf(lab, modality, "validation");
  const test = tracesOf(lab, modality, "test");
  const above = (traces: Traces, target: Target) =>
    traces.own[target].reciprocalRank.map((row, i) =>
      row.map((value, layer) => value - traces.other[target].reciprocalRank[i]![layer]!),
    );
  const found = byTarget((target) => above(validation, target));
  const peak = (target: Target) => (indices: readonly number[]) => peakLayer(found[target], indices);
  const last = lab.model.config.layers - 1;
  const layers = byTarget((target) => resampled(validation.inputs, peak(target), { range: [0, last] }));
  const named = (what: string) => `${what}, ${QUERY_NAMES[modality]}`;
  return {
    modality,
    layers,
    excess: byTarget((target) => {
      const at = ({ reciprocalRank }: Traced) => hitsAt(reciprocalRank, layers[target].mean, test.inputs);
      return difference(at(test.own[target]), at(test.other[target]), named(target));
    }),
    steps: PHASES.slice(1).map((phase, i) => {
      const before = PHASES[i]!;
      const step = (indices: readonly number[]) => peak(phase)(indices) - peak(before)(indices);
      return contrast(
        (level) => resampled(validation.inputs, step, { range: [-last, last], level }),
        named(`${before} to ${phase}`),
      );
    }),
    ambiguous: test.ambiguous,
  };
}

/** The layer with the highest mean over items; of equals the first. */
function peakLayer(values: readonly (readonly number[])[], indices: readonly number[]): number {
  const means = values[0]!.map((_, layer) => mean(indices.map((i) => values[i]![layer]!)));
  return means.indexOf(Math.max(...means));
}

function verdictOf(phases: readonly Phases[]): Verdict {
  const shown = phases.map(({ modality, layers }) => {
    const found = PHASES.map(
      (phase) => `${phase} ${layers[phase].mean} [${layers[phase].low}, ${layers[phase].high}]`,
    );
    return `Layers, ${QUERY_NAMES[modality]}: ${found.join(", ")}`;
  });
  return judged(
    RULES.lens,
    {
      visible: { control: phases.flatMap(({ excess }) => PHASES.map((phase) => excess[phase])) },
      ordered: { step: phases.flatMap(({ steps }) => steps) },
    },
    shown.join(". "),
  );
}

function linesFigure(lab: Lab, measure: Measure): LinesFigure {
  const called = measure === "mass" ? "probability" : "mean reciprocal rank";
  return {
    kind: "lines",
    name: measure === "mass" ? "probability" : "reciprocal-rank",
    title: `What the query's last token reads as: ${called}`,
    caption: `Few-shot prompts of test items, all tasks, ${modalitiesOf(lab)
      .map(
        (modality) => `${QUERY_NAMES[modality]} n ${tracesOf(lab, modality, "test").own.input.mass.length}`,
      )
      .join(", ")}; bands are 95 % intervals over inputs.`,
    x: "layer",
    y: called,
    rows: modalitiesOf(lab).flatMap((modality) => {
      const { own, inputs } = tracesOf(lab, modality, "test");
      return TARGETS.flatMap((target) => {
        const rows = own[target][measure];
        return rows[0]!.map((_, layer) => {
          const { mean: y, low, high } = accuracy(hitsAt(rows, layer, inputs));
          return { panel: QUERY_NAMES[modality], series: TARGET_NAMES[target], x: layer, y, low, high };
        });
      });
    }),
  };
}

function phasesTable(phases: readonly Phases[]): Table {
  return {
    name: "phases",
    title: "The layer of each phase",
    columns: [
      "query",
      "tokens",
      "layer (validation items)",
      "from",
      "to",
      "reciprocal rank above control",
      "left out",
    ],
    rows: phases.flatMap(({ modality, layers, excess, ambiguous }) =>
      TARGETS.map((target) => [
        QUERY_NAMES[modality],
        TARGET_NAMES[target],
        layers[target].mean,
        layers[target].low,
        layers[target].high,
        excess[target].at(LEVEL),
        ambiguous,
      ]),
    ),
  };
}

function controlTable(lab: Lab, phases: readonly Phases[]): Table {
  return {
    name: "controls",
    title:
      "Mean reciprocal rank of the sets in their layer, beside the sets of another item (name, answer) or another task (word, answers)",
    columns: ["query", "tokens", "layer", "own", "control"],
    rows: phases.flatMap(({ modality, layers }) => {
      const { own, other, inputs } = tracesOf(lab, modality, "test");
      return TARGETS.map((target) => {
        const layer = layers[target].mean;
        const at = ({ reciprocalRank }: Traced) => accuracy(hitsAt(reciprocalRank, layer, inputs));
        return [QUERY_NAMES[modality], TARGET_NAMES[target], layer, at(own[target]), at(other[target])];
      });
    }),
  };
}

/** The vectors of each task in the layers of a quarter, half and three quarters of the model, and the last. */
function decodedTable(lab: Lab): Table {
  const { layers } = lab.model.config;
  const shown = [...new Set([0.25, 0.5, 0.75, 1].map((part) => Math.max(0, Math.round(part * layers) - 1)))];
  return {
    name: "decoded-vectors",
    title: "Task vectors read through the unembedding: the most probable tokens",
    columns: ["task", "specification", ...shown.map((layer) => `layer ${layer}`)],
    rows: decoded(lab).map((params) => {
      const { tokens } = lab.result(decodedVectors(params));
      const cells = shown.map((layer) => tokens[layer]!.map((token) => JSON.stringify(token)).join(" "));
      return [params.task, SPECIFICATION_NAMES[params.specification], ...cells];
    }),
  };
}

/** A layer's value an item, between 0 and 1; probabilities may add up to a little more by rounding. */
function hitsAt(rows: readonly (readonly number[])[], layer: number, inputs: readonly string[]): Hits {
  return [{ inputs, seeds: [rows.map((row) => Math.min(1, row[layer]!))] }];
}

interface Traces extends Pick<LensPhasesResult, "own" | "other" | "inputs"> {
  readonly ambiguous: number;
}

/** Of the items of all tasks. */
function tracesOf(lab: Lab, modality: Modality, split: AskedSplit): Traces {
  const results = tasksWith(lab, { specification: modality, query: modality }).map(({ name: task }) =>
    lab.result(lensPhases({ task, modality, split })),
  );
  const joined = (side: "own" | "other") =>
    byTarget(
      (target): Traced => ({
        mass: results.flatMap((result) => result[side][target].mass),
        reciprocalRank: results.flatMap((result) => result[side][target].reciprocalRank),
      }),
    );
  const ambiguous = results.reduce((sum, result) => sum + result.ambiguous, 0);
  const inputs = results.flatMap((result) => result.inputs);
  return { own: joined("own"), other: joined("other"), inputs, ambiguous };
}

function modalitiesOf(lab: Lab): Modality[] {
  return (["text", "image"] as const).filter(
    (modality) => tasksWith(lab, { specification: modality, query: modality }).length > 0,
  );
}

/** Whether each split leaves something to look at, in each modality. */
function hasDistinctItems(lab: Lab): boolean {
  return modalitiesOf(lab).every((modality) =>
    (["validation", "test"] as const).every((split) =>
      tasksWith(lab, { specification: modality, query: modality }).some((task) => {
        const items = lab.items(task, split);
        return items.some((item) => tokenSets(lab.model.tokenizer, task, items, item) !== undefined);
      }),
    ),
  );
}

function decoded(lab: Lab): { task: string; specification: SpecificationKind }[] {
  const specifications = [...new Set(setupsOf(lab).map(({ specification }) => specification))];
  return lab.tasks.flatMap(({ name }) =>
    specifications
      .filter((specification) =>
        tasksWith(lab, { specification, query: "text" }).some((task) => task.name === name),
      )
      .map((specification) => ({ task: name, specification })),
  );
}

function byTarget<T>(of: (target: Target) => T): Record<Target, T> {
  return { input: of("input"), task: of("task"), answers: of("answers"), answer: of("answer") };
}
