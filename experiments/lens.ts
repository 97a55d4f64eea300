import type { SpecificationKind } from "xpatch";
import { decodedVectors } from "./cells/decoded-vectors.ts";
import { type Setup, setupsOf, tasksWith } from "./cells/layer-sweep.ts";
import { type LensPhasesResult, lensPhases, type Traced } from "./cells/lens-phases.ts";
import { TARGETS, type Target, tokenSets } from "./cells/token-sets.ts";
import { contrast, difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { AskedSplit, Lab } from "./framework/lab.ts";
import { QUERY_NAMES, SPECIFICATION_NAMES } from "./framework/prompts.ts";
import { type Contrast, judged, verdictText } from "./framework/rule.ts";
import { withoutUnembedding } from "./framework/stacks.ts";
import { type LinesFigure, pointOf } from "./report/figure.ts";
import type { Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy, type Hits } from "./statistics/accuracy.ts";
import { type Estimate, LEVEL } from "./statistics/estimate.ts";
import { mean, resampled } from "./statistics/resample.ts";

const TARGET_NAMES: Readonly<Record<Target, string>> = {
  delimiter: "the delimiter's token",
  input: "the item's name",
  task: "the task's word",
  answers: "answers to other items",
  answer: "the item's answer",
};

/** The phases in the order claimed, the input as the paper has it. */
const PHASES = ["delimiter", "task", "answer"] as const;
/** The input as what the query is about. */
const NAME_PHASES = ["input", "task"] as const;

type Measure = keyof Traced;

export const lens: Experiment = {
  name: "lens",
  title: "Input, task, answer: the logit lens",
  claim:
    "Read through the unembedding, the query's last token goes from the input over the task to the answer, layer by layer, whether the task is told by text, pictures or an instruction, and the query is text or a picture.",
  untestable: (lab) =>
    hasDistinctItems(lab)
      ? withoutUnembedding(lab)
      : "the names and answers of all items begin alike, so that they cannot be told apart, or with what the tokenizer has no token for",
  cells: (lab) => [
    ...lensSetups(lab).flatMap((setup) =>
      tasksWith(lab, setup).flatMap(({ name: task }) =>
        (["validation", "test"] as const).map((split) => lensPhases({ task, ...setup, split })),
      ),
    ),
    ...decoded(lab).map(decodedVectors),
  ],
  report(lab): Findings {
    const phases = lensSetups(lab).map((setup) => phasesOf(lab, setup));
    return {
      verdict: verdictOf(phases),
      text: [
        `Each query stands behind examples of its own modality, or behind the instruction. A set of tokens is looked for: how the item's name, the task's word, the answers to the other items of the task, and the answer itself may begin, with and without a space${lab.options.caseSensitive ? "" : ", as written and in small letters"}; no token is in two sets. Items whose name and answer begin alike are left out, and those for whose beginning the tokenizer has no token.`,
        `What the input is has two readings. The paper's is a fixed token, the same for all items, that the delimiter itself reads as: here the one that most validation prompts read as behind the first layer (${delimitersOf(lab)}). Being the same whatever is asked, it says little of the query; its control is the token before the delimiter. The other is what is asked about, the item's name. The verdict is on the paper's.`,
        verdictText("With the item's name as the input", nameVerdict(phases)),
        "A phase's layer is where the mean reciprocal rank of its set is farthest above that of the control, on validation items; what it comes to is measured on test items.",
      ],
      figures: [linesFigure(lab, phases, "reciprocalRank"), linesFigure(lab, phases, "mass")],
      tables: [phasesTable(phases), decodedTable(lab)],
      controls: [controlTable(lab, phases)],
    };
  },
};

interface Phases {
  readonly setup: Setup;
  readonly layers: Readonly<Record<Target, Estimate>>;
  /** Mean reciprocal rank above the control, on test items in the phase's layer. */
  readonly excess: Readonly<Record<Target, Contrast>>;
  /** Layers from one phase to the next. */
  readonly steps: readonly Contrast[];
  /** From the item's name to the task. */
  readonly nameStep: Contrast;
  readonly ambiguous: number;
}

function phasesOf(lab: Lab, setup: Setup): Phases {
  const validation = tracesOf(lab, setup, "validation");
  const test = tracesOf(lab, setup, "test");
  const above = (traces: Traces, target: Target) =>
    traces.own[target].reciprocalRank.map((row, i) =>
      row.map((value, layer) => value - traces.other[target].reciprocalRank[i]![layer]!),
    );
  const found = byTarget((target) => above(validation, target));
  const peak = (target: Target) => (indices: readonly number[]) => peakLayer(found[target], indices);
  const last = lab.model.config.layers - 1;
  const layers = byTarget((target) => resampled(validation.inputs, peak(target), { range: [0, last] }));
  const named = (what: string) => `${what}, ${nameOf(setup)}`;
  const stepTo = (phase: Target, before: Target) => {
    const step = (indices: readonly number[]) => peak(phase)(indices) - peak(before)(indices);
    return contrast(
      (level) => resampled(validation.inputs, step, { range: [-last, last], level }),
      named(`${before} to ${phase}`),
    );
  };
  return {
    setup,
    layers,
    excess: byTarget((target) => {
      const at = ({ reciprocalRank }: Traced) => hitsAt(reciprocalRank, layers[target].mean, test.inputs);
      return difference(at(test.own[target]), at(test.other[target]), named(target));
    }),
    steps: PHASES.slice(1).map((phase, i) => stepTo(phase, PHASES[i]!)),
    nameStep: stepTo(NAME_PHASES[1], NAME_PHASES[0]),
    ambiguous: test.ambiguous,
  };
}

/** The layer with the highest mean over items; of equals the first. */
function peakLayer(values: readonly (readonly number[])[], indices: readonly number[]): number {
  const means = values[0]!.map((_, layer) => mean(indices.map((i) => values[i]![layer]!)));
  return means.indexOf(Math.max(...means));
}

function verdictOf(phases: readonly Phases[]): Verdict {
  const shown = phases.map(({ setup, layers }) => {
    const found = PHASES.map(
      (phase) => `${phase} ${layers[phase].mean} [${layers[phase].low}, ${layers[phase].high}]`,
    );
    return `Layers, ${nameOf(setup)}: ${found.join(", ")}`;
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

function nameVerdict(phases: readonly Phases[]): Verdict {
  return judged(RULES["lens, the item's name"], {
    visible: { control: phases.flatMap(({ excess }) => NAME_PHASES.map((phase) => excess[phase])) },
    ordered: { step: phases.map(({ nameStep }) => nameStep) },
  });
}

function linesFigure(lab: Lab, phases: readonly Phases[], measure: Measure): LinesFigure {
  const called = measure === "mass" ? "probability" : "mean reciprocal rank";
  return {
    kind: "lines",
    name: measure === "mass" ? "probability" : "reciprocal-rank",
    title: `What the query's last token reads as: ${called}`,
    caption: "Test items, all tasks.",
    chosen: "the layer of each phase, which validation items chose",
    x: "layer",
    y: called,
    rows: lensSetups(lab).flatMap((setup) => {
      const { own, inputs } = tracesOf(lab, setup, "test");
      return TARGETS.flatMap((target) => {
        const rows = own[target][measure];
        const phase = phases.find((one) => nameOf(one.setup) === nameOf(setup))!;
        return rows[0]!.map((_, layer) => ({
          panel: nameOf(setup),
          series: TARGET_NAMES[target],
          x: layer,
          ...pointOf(accuracy(hitsAt(rows, layer, inputs))),
          chosen: phase.layers[target].mean === layer,
        }));
      });
    }),
  };
}

function phasesTable(phases: readonly Phases[]): Table {
  return {
    name: "phases",
    title: "The layer of each phase",
    columns: [
      "prompt",
      "tokens",
      "layer (validation items)",
      "from",
      "to",
      "reciprocal rank above control",
      "left out",
    ],
    rows: phases.flatMap(({ setup, layers, excess, ambiguous }) =>
      TARGETS.map((target) => [
        nameOf(setup),
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
      "Mean reciprocal rank of the sets in their layer, beside the sets of another item (name, answer) or another task (word, answers), or the token before the delimiter",
    columns: ["prompt", "tokens", "layer", "own", "control"],
    rows: phases.flatMap(({ setup, layers }) => {
      const { own, other, inputs } = tracesOf(lab, setup, "test");
      return TARGETS.map((target) => {
        const layer = layers[target].mean;
        const at = ({ reciprocalRank }: Traced) => accuracy(hitsAt(reciprocalRank, layer, inputs));
        return [nameOf(setup), TARGET_NAMES[target], layer, at(own[target]), at(other[target])];
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
function tracesOf(lab: Lab, setup: Setup, split: AskedSplit): Traces {
  const results = tasksWith(lab, setup).map(({ name: task }) =>
    lab.result(lensPhases({ task, ...setup, split })),
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

/** Examples of the query's own modality, and the instruction. */
function lensSetups(lab: Lab): Setup[] {
  return setupsOf(lab).filter(
    ({ specification, query }) => specification === query || specification === "instruction",
  );
}

function nameOf({ specification, query }: Setup): string {
  return `${SPECIFICATION_NAMES[specification]}, ${QUERY_NAMES[query]}`;
}

/** The tokens that delimiters read as, each once. */
function delimitersOf(lab: Lab): string {
  const ids = lensSetups(lab).flatMap((setup) =>
    tasksWith(lab, setup).map(
      ({ name: task }) => lab.result(lensPhases({ task, ...setup, split: "validation" })).delimiter,
    ),
  );
  const known = [...new Set(ids)].filter((id) => id !== undefined);
  return known.map((id) => JSON.stringify(lab.model.tokenizer.decode([id]))).join(", ");
}

/** Whether each split leaves something to look at, in each modality. */
function hasDistinctItems(lab: Lab): boolean {
  return lensSetups(lab).every((setup) =>
    (["validation", "test"] as const).every((split) =>
      tasksWith(lab, setup).some((task) => {
        const items = lab.items(task, split);
        return items.some(
          (item) => tokenSets(lab.model.tokenizer, task, items, item, undefined, lab.options) !== undefined,
        );
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
  return {
    delimiter: of("delimiter"),
    input: of("input"),
    task: of("task"),
    answers: of("answers"),
    answer: of("answer"),
  };
}
