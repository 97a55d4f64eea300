import { type ClusterPoint, clusters, STATES, type State } from "./cells/clusters.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import type { ScatterFigure } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import type { Estimate } from "./statistics/bootstrap.ts";
import { mean, resampled } from "./statistics/resample.ts";

const STATE_NAMES: Readonly<Record<State, string>> = {
  context: "mean embedding of the examples",
  vector: "task vector",
};

export const clustering: Experiment = {
  name: "clustering",
  title: "What prompts cluster by: modality before, task after",
  claim:
    "The embeddings of the examples cluster by modality; the task vectors made from them cluster by task, across modalities.",
  untestable: (lab) =>
    pictured(lab).length < 2
      ? "it takes two tasks with pictures, and a model that takes pictures"
      : undefined,
  cells: (lab) => [cellOf(lab)],
  report(lab): Findings {
    const { points } = lab.result(cellOf(lab));
    const measures = STATES.map((state) => measuresOf(lab, state));
    return {
      verdict: verdictOf(measures[0]!, measures[1]!),
      text: [
        `A point is a prompt of validation items: ${points.length} of them, of ${pictured(lab).length} tasks in two modalities, whose examples are drawn apart. Task vectors are read at the answer cue of the last example behind layer ${middle(lab)}, the middle of the model, not averaged. Distances are 1 − cosine.`,
        "Points share examples, so that neighbours of the same task and modality are near for that alone; what tells is the other modality: its nearest points, and a linear probe trained on it. Probes are tested on items that they were not trained on. Intervals are over items.",
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
  readonly value: Estimate;
  readonly chance: number;
}

interface Measures {
  readonly state: State;
  readonly taskSilhouette: Measure;
  readonly modalitySilhouette: Measure;
  readonly acrossPurity: Measure;
  readonly acrossProbe: Measure;
  readonly others: readonly Measure[];
}

function measuresOf(lab: Lab, state: State): Measures {
  const { points, states } = lab.result(cellOf(lab));
  const of = states[state];
  const measure = (name: string, values: readonly number[], chance: number): Measure => ({
    name,
    value: overItems(points, values),
    chance,
  });
  const tasks = mostCommon(points.map(({ task }) => task));
  return {
    state,
    taskSilhouette: measure("silhouette by task", of.byTask.silhouette, 0),
    modalitySilhouette: measure("silhouette by modality", of.byModality.silhouette, 0),
    acrossPurity: measure(
      "neighbours in the other modality of the same task",
      of.acrossPurity.values,
      of.acrossPurity.chance,
    ),
    acrossProbe: measure("task, by a probe of the other modality", of.acrossProbe, tasks),
    others: [
      measure("neighbours of the same task", of.byTask.purity.values, of.byTask.purity.chance),
      measure("neighbours of the same modality", of.byModality.purity.values, of.byModality.purity.chance),
      measure("task, by a probe", of.byTask.probe, tasks),
      measure(
        "modality, by a probe",
        of.byModality.probe,
        mostCommon(points.map(({ modality }) => modality)),
      ),
    ],
  };
}

/** The mean over points, with an interval over items: the points of an item are drawn together. */
function overItems(points: readonly ClusterPoint[], values: readonly number[]): Estimate {
  const byItem = new Map<string, number[]>();
  points.forEach(({ item }, i) => {
    byItem.set(item, [...(byItem.get(item) ?? []), values[i]!]);
  });
  const groups = [...byItem.values()];
  return resampled(groups.length, (indices) => mean(indices.flatMap((i) => groups[i]!)));
}

function verdictOf(context: Measures, vector: Measures): Verdict {
  const because = [context, vector]
    .map(({ state, taskSilhouette, modalitySilhouette, acrossPurity, acrossProbe }) => {
      const shown = [taskSilhouette, modalitySilhouette, acrossPurity, acrossProbe].map(
        ({ name, value, chance }) => `${name} ${showEstimate(value)}, chance ${chance.toFixed(2)}`,
      );
      return `${STATE_NAMES[state]}: ${shown.join("; ")}`;
    })
    .join(". ");
  const byModality = context.modalitySilhouette.value.low > Math.max(0, context.taskSilhouette.value.high);
  const byTask = vector.taskSilhouette.value.low > Math.max(0, vector.modalitySilhouette.value.high);
  const across = [vector.acrossPurity, vector.acrossProbe].every(({ value, chance }) => value.low > chance);
  if (byModality && byTask && across) return { outcome: "replicates", because };
  return { outcome: byModality || byTask || across ? "replicates in part" : "does not replicate", because };
}

function figureOf(lab: Lab, state: State, plane: "neighbours" | "principal"): ScatterFigure {
  const { points, states } = lab.result(cellOf(lab));
  const method = plane === "neighbours" ? "t-SNE" : "PCA";
  return {
    kind: "scatter",
    name: `${state}-${method.toLowerCase()}`,
    title: `${method}: ${STATE_NAMES[state]}`,
    caption: `${points.length} prompts of validation items${state === "vector" ? `, layer ${middle(lab)}` : ""}.`,
    x: `${method} 1`,
    y: `${method} 2`,
    colour: "task",
    shape: "modality",
    rows: states[state][plane].map(([x, y], i) => ({
      x,
      y,
      colour: points[i]!.task,
      shape: points[i]!.modality,
    })),
  };
}

function measuresTable(measures: readonly Measures[]): Table {
  return {
    name: "separation",
    title: "How tasks and modalities are told apart",
    columns: ["of", "measure", "value", "chance"],
    rows: measures.flatMap(
      ({ state, taskSilhouette, modalitySilhouette, acrossPurity, acrossProbe, others }) =>
        [taskSilhouette, modalitySilhouette, acrossPurity, acrossProbe, ...others].map(
          ({ name, value, chance }) => [STATE_NAMES[state], name, value, chance],
        ),
    ),
  };
}

function shuffledTable(lab: Lab): Table {
  const { points, states } = lab.result(cellOf(lab));
  return {
    name: "shuffled",
    title: "The same with the tasks given out at random among the points",
    columns: ["of", "silhouette by task", "neighbours of the same task", "task, by a probe"],
    rows: STATES.map((state) => {
      const { silhouette, purity, probe } = states[state].shuffledTasks;
      return [
        STATE_NAMES[state],
        ...[silhouette, purity.values, probe].map((values) => overItems(points, values)),
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

/** Fixed beforehand: nothing is chosen by what is shown. */
function middle(lab: Lab): number {
  return Math.floor(lab.model.config.layers / 2);
}

function cellOf(lab: Lab) {
  return clusters({ layer: middle(lab) });
}
