import { type ClusterPoint, clusters, STATES, type State } from "./cells/clusters.ts";
import { commonLayerCells } from "./cells/layer-sweep.ts";
import { contrast } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES, widestQuery } from "./framework/prompts.ts";
import { type Contrast, judged } from "./framework/rule.ts";
import type { ScatterFigure } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy } from "./statistics/accuracy.ts";
import { type Estimate, LEVEL, negated, shifted } from "./statistics/estimate.ts";
import { meanOverInputs } from "./statistics/resample.ts";

const STATE_NAMES: Readonly<Record<State, string>> = {
  context: "mean embedding of what the examples show",
  vector: "task vector",
};

export const clustering: Experiment = {
  name: "clustering",
  title: "What prompts cluster by: modality before, task after",
  claim:
    "The embeddings of what the examples show cluster by modality; the task vectors made from them cluster by task, across modalities, with those of the instructions.",
  untestable(lab) {
    if (pictured(lab).length < 2) return "it takes two tasks with pictures, and a model that takes pictures";
    if (!lab.specifies("image"))
      return "it compares prompts of pictures, which were left out, with those of text";
    return lab.model.config.vision?.embeds === false
      ? "pictures do not enter the model's embedding, where they could be compared with names: it reads them by cross-attention"
      : undefined;
  },
  cells: (lab) => [
    ...commonLayerCells(lab, { specification: "text", query: widestQuery(lab) }),
    clusters({}),
  ],
  report(lab): Findings {
    const { points, instructions, layer } = lab.result(clusters({}));
    const measures = STATES.map((state) => measuresOf(lab, state));
    return {
      verdict: verdictOf(lab, measures[0]!, measures[1]!),
      text: [
        `A point is a prompt of test items: ${points.length} of them, of ${pictured(lab).length} tasks in two modalities, whose examples are drawn apart. Task vectors are read at the answer cue of the last example behind layer ${layer}, which validation items chose for patches of text examples (${QUERY_NAMES[widestQuery(lab)]}), not averaged. Distances are 1 − cosine.`,
        "Contexts are compared like with like: the mean embedding of the tokens of the examples' pictures, and of the tokens of their names, without template and answers, which are the same in both. Text and pictures enter by different ways, so that their separation is expected; that the vectors' is less is what tells.",
        `Instructions are ${instructions.length} points more, as written and put otherwise, read at their last token; as contexts, all their tokens. They have no items, so that silhouettes, neighbours and probes are of examples; whether an example's nearest instruction is its task's is counted by itself.`,
        "Points share examples, so that neighbours of the same task and modality are near for that alone; what tells is the other modality: its nearest points, and a linear probe trained on it. Probes are tested on items that they were not trained on. Intervals are over inputs.",
      ],
      figures: STATES.flatMap((state) => [
        figureOf(lab, state, "neighbours"),
        figureOf(lab, state, "principal"),
      ]),
      tables: [measuresTable(measures)],
      controls: [shuffledTable(lab)],
    };
  },
};

interface Measure {
  readonly name: string;
  /** A value a point. */
  readonly values: readonly number[];
  readonly value: Estimate;
  readonly chance: number;
}

interface Measures {
  readonly state: State;
  readonly taskSilhouette: Measure;
  readonly modalitySilhouette: Measure;
  readonly acrossPurity: Measure;
  readonly acrossProbe: Measure;
  /** Absent where a task has no instruction. */
  readonly toInstruction?: Measure;
  readonly others: readonly Measure[];
}

function measuresOf(lab: Lab, state: State): Measures {
  const { points, states } = lab.result(clusters({}));
  const of = states[state];
  const silhouette = (name: string, values: readonly number[]): Measure => ({
    name,
    values,
    value: spreadOver(points, values),
    chance: 0,
  });
  const share = (name: string, values: readonly number[], chance: number): Measure => ({
    name,
    values,
    value: shareOver(points, values),
    chance,
  });
  const tasks = mostCommon(points.map(({ task }) => task));
  const modalities = mostCommon(points.map(({ modality }) => modality));
  const { byTask, byModality, acrossPurity, acrossProbe, toInstruction, toInstructionCentred } = of;
  const told = toInstruction.length > 0;
  return {
    state,
    taskSilhouette: silhouette("silhouette by task", byTask.silhouette),
    modalitySilhouette: silhouette("silhouette by modality", byModality.silhouette),
    acrossPurity: share(
      "neighbours in the other modality of the same task",
      acrossPurity.values,
      acrossPurity.chance,
    ),
    acrossProbe: share("task, by a probe of the other modality", acrossProbe, tasks),
    ...(told && { toInstruction: share("the nearest instruction is the task's", toInstruction, tasks) }),
    others: [
      ...(told
        ? [share("the nearest instruction is the task's, means removed", toInstructionCentred, tasks)]
        : []),
      share("neighbours of the same task", byTask.purity.values, byTask.purity.chance),
      share("neighbours of the same modality", byModality.purity.values, byModality.purity.chance),
      share("task, by a probe", byTask.probe, tasks),
      share("modality, by a probe", byModality.probe, modalities),
    ],
  };
}

/** The mean over points of what lies between 0 and 1; the points of an input are one draw. */
function shareOver(points: readonly ClusterPoint[], values: readonly number[], level = LEVEL): Estimate {
  return accuracy([{ inputs: points.map(({ item }) => item), seeds: [values] }], level);
}

/** The same of silhouettes, or of differences of two. */
function spreadOver(points: readonly ClusterPoint[], values: readonly number[], level = LEVEL): Estimate {
  const inputs = points.map(({ item }) => item);
  return meanOverInputs(values, inputs, { range: [-2, 2], level });
}

function verdictOf(lab: Lab, context: Measures, vector: Measures): Verdict {
  const { points } = lab.result(clusters({}));
  const above = ({ values }: Measure, rival?: Measure): Contrast => {
    const less = values.map((value, i) => value - (rival?.values[i] ?? 0));
    return contrast((level) => spreadOver(points, less, level));
  };
  const aboveChance = ({ values, chance }: Measure) =>
    contrast((level) => shifted(shareOver(points, values, level), -chance));
  const shown = [context, vector].map(({ state, taskSilhouette, modalitySilhouette }) => {
    const both = [taskSilhouette, modalitySilhouette].map(
      ({ name, value }) => `${name} ${showEstimate(value)}`,
    );
    return `${STATE_NAMES[state]}: ${both.join(", ")}`;
  });
  return judged(
    RULES.clustering,
    {
      context: {
        modality: above(context.modalitySilhouette),
        task: above(context.modalitySilhouette, context.taskSilhouette),
      },
      vector: {
        task: above(vector.taskSilhouette),
        modality: above(vector.taskSilhouette, vector.modalitySilhouette),
      },
      across: {
        neighbours: aboveChance(vector.acrossPurity),
        probe: aboveChance(vector.acrossProbe),
      },
      instructions: {
        nearest: vector.toInstruction ? aboveChance(vector.toInstruction) : [],
      },
      mixed: {
        modality: contrast((level) => negated(above(vector.modalitySilhouette).at(level))),
      },
    },
    shown.join("; "),
  );
}

function figureOf(lab: Lab, state: State, plane: "neighbours" | "principal"): ScatterFigure {
  const { points, instructions, layer, states } = lab.result(clusters({}));
  const all = [...points, ...instructions];
  const method = plane === "neighbours" ? "t-SNE" : "PCA";
  return {
    kind: "scatter",
    name: `${state}-${method.toLowerCase()}`,
    title: `${method}: ${STATE_NAMES[state]}`,
    caption: `${points.length} prompts of test items and ${instructions.length} instructions${state === "vector" ? `, layer ${layer}` : ""}.`,
    x: `${method} 1`,
    y: `${method} 2`,
    group: "task",
    filling: "specification",
    rows: states[state][plane].map(([x, y], i) => ({
      x,
      y,
      group: all[i]!.task,
      filling: all[i]!.modality,
    })),
  };
}

function measuresTable(measures: readonly Measures[]): Table {
  return {
    name: "separation",
    title: "How tasks and modalities are told apart",
    columns: ["of", "measure", "value", "chance"],
    rows: measures.flatMap(
      ({ state, taskSilhouette, modalitySilhouette, acrossPurity, acrossProbe, toInstruction, others }) =>
        [
          taskSilhouette,
          modalitySilhouette,
          acrossPurity,
          acrossProbe,
          ...(toInstruction ? [toInstruction] : []),
          ...others,
        ].map(({ name, value, chance }) => [STATE_NAMES[state], name, value, chance]),
    ),
  };
}

function shuffledTable(lab: Lab): Table {
  const { points, states } = lab.result(clusters({}));
  return {
    name: "shuffled",
    title: "The same with the tasks given out at random among the points",
    columns: ["of", "silhouette by task", "neighbours of the same task", "task, by a probe"],
    rows: STATES.map((state) => {
      const { silhouette, purity, probe } = states[state].shuffledTasks;
      return [
        STATE_NAMES[state],
        spreadOver(points, silhouette),
        ...[purity.values, probe].map((values) => shareOver(points, values)),
      ];
    }),
  };
}

function mostCommon(labels: readonly string[]): number {
  const counts = new Map<string, number>();
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  return Math.max(...counts.values()) / labels.length;
}

function pictured(lab: Lab) {
  return lab.tasks.filter((task) => lab.isPictured(task));
}
