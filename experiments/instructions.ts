import type { Task } from "xpatch";
import {
  ENSEMBLE_CONTROLS,
  type EnsembleControl,
  type EnsembleTestResult,
  ensembleSweep,
  ensembleTest,
  instructedTasks,
} from "./cells/ensembles.ts";
import { accuracyByLayer, layerSweep } from "./cells/layer-sweep.ts";
import { validationCells } from "./cells/validation.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES, widestQuery } from "./framework/prompts.ts";
import { type Answered, beside } from "./framework/scored.ts";
import type { LinesFigure } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { accuracy, accuracyDifference, type Hits } from "./statistics/bootstrap.ts";

const METHODS = ["examples", "instruction", "ensemble"] as const;

type Method = (typeof METHODS)[number];

const CONTROL_NAMES: Readonly<Record<EnsembleControl, string>> = {
  anotherInstruction: "examples and another task's instruction",
  random: "examples and a random vector of the instruction's norm",
};

export const instructions: Experiment = {
  name: "instructions",
  title: "Instructions, and instructions with examples",
  claim:
    "The vector of an instruction makes the model do the task, and averaged with that of examples it makes it do so better than the examples do, which then take fewer prompts.",
  untestable: (lab) => (inMeans(lab).length > 0 ? undefined : "no task has an instruction"),
  cells(lab) {
    const query = widestQuery(lab);
    const tasks = instructedTasks(lab, query);
    return [
      ...validationCells(lab),
      ...tasks.map(({ name: task }) => ensembleSweep({ specification: "instruction", query, task })),
      ...tasks.map(({ name: task }) => ensembleTest({ query, task })),
    ];
  },
  report(lab): Findings {
    return {
      verdict: verdictOf(lab),
      text: [
        "An ensemble is the mean of the instruction's vector and of that of examples, itself the mean over n prompts. An instruction is a single prompt whatever n is.",
        "Each of the three is patched in the layer that validation items chose for it; the test items were scored once. The layers of examples and ensembles were chosen with all prompts.",
      ],
      figures: [samplesFigure(lab), layersFigure(lab)],
      tables: [samplesTable(lab), byTaskTable(lab)],
      controls: [controlsTable(lab)],
    };
  },
};

function resultsOf(lab: Lab, tasks: readonly Task[]): EnsembleTestResult[] {
  const query = widestQuery(lab);
  return tasks.map(({ name }) => lab.result(ensembleTest({ query, task: name })));
}

/** The numbers of prompts that all tasks have. */
function countsOf(results: readonly EnsembleTestResult[]): number[] {
  const [first, ...others] = results;
  return first!.counts.filter((count) => others.every(({ counts }) => counts.includes(count)));
}

function answersOf(result: EnsembleTestResult, method: Method, count: number): readonly Answered[] {
  return method === "instruction" ? [result.instruction] : result[method][result.counts.indexOf(count)]!;
}

function hitsOf(results: readonly EnsembleTestResult[], method: Method, count: number): Hits {
  return results.map((result) => answersOf(result, method, count).map(({ hits }) => hits));
}

function verdictOf(lab: Lab): Verdict {
  const results = resultsOf(lab, inMeans(lab));
  const counts = countsOf(results);
  const noContext: Hits = results.map((result) => [result.noContext.hits]);
  const { majority } = beside(results.map((result) => result.noContext));
  const instruction = hitsOf(results, "instruction", counts[0]!);
  const works = accuracy(instruction).low > majority && accuracyDifference(instruction, noContext).low > 0;
  const gains = [counts[0]!, counts.at(-1)!].map((count) => ({
    count,
    gain: accuracyDifference(hitsOf(results, "ensemble", count), hitsOf(results, "examples", count)),
  }));
  const better = gains.filter(({ gain }) => gain.low > 0);
  const shown = gains.map(({ count, gain }) => `with n = ${count} ${showEstimate(gain)}`).join(", ");
  const because = `instruction ${showEstimate(accuracy(instruction))}, no context ${showEstimate(accuracy(noContext))}, majority ${majority.toFixed(2)}; ensemble − examples ${shown}`;
  if (works && better.length === gains.length) return { outcome: "replicates", because };
  return { outcome: works || better.length > 0 ? "replicates in part" : "does not replicate", because };
}

function samplesFigure(lab: Lab): LinesFigure {
  const results = resultsOf(lab, inMeans(lab));
  return {
    kind: "lines",
    name: "samples",
    title: "Accuracy by the number of prompts averaged",
    caption: `${QUERY_NAMES[widestQuery(lab)]}, mean over ${taskNames(lab)} on test items, with 95 % intervals.`,
    x: "prompts averaged",
    y: "accuracy",
    rows: METHODS.flatMap((series) =>
      countsOf(results).map((count) => {
        const { mean, low, high } = accuracy(hitsOf(results, series, count));
        return { series, x: count, y: mean, low, high };
      }),
    ),
  };
}

function layersFigure(lab: Lab): LinesFigure {
  const query = widestQuery(lab);
  const sweeps = {
    examples: { specification: "text", sweep: layerSweep },
    instruction: { specification: "instruction", sweep: layerSweep },
    ensemble: { specification: "instruction", sweep: ensembleSweep },
  } as const;
  return {
    kind: "lines",
    name: "layers",
    title: "Accuracy by patched layer",
    caption: `${QUERY_NAMES[query]}, mean over ${taskNames(lab)} on validation items, with 95 % intervals; all prompts.`,
    x: "layer",
    y: "accuracy",
    rows: METHODS.flatMap((series) => {
      const { specification, sweep } = sweeps[series];
      return accuracyByLayer(lab, { specification, query }, inMeans(lab), sweep).map(
        ({ layer, accuracy: { mean, low, high } }) => ({ series, x: layer, y: mean, low, high }),
      );
    }),
  };
}

const COLUMNS = [
  "prompts averaged",
  "layers (examples, instruction, ensemble)",
  "majority",
  "no context",
  ...METHODS,
  "ensemble − examples",
  ...METHODS.map((method) => `distinct answers (${method})`),
];

function samplesTable(lab: Lab): Table {
  const results = resultsOf(lab, inMeans(lab));
  return {
    name: "samples",
    title: `Accuracy on test items, ${QUERY_NAMES[widestQuery(lab)]}, mean over ${taskNames(lab)}`,
    columns: COLUMNS,
    rows: countsOf(results).map((count) => row(results, count)),
  };
}

function byTaskTable(lab: Lab): Table {
  return {
    name: "by-task",
    title: "The same by task",
    columns: ["task", ...COLUMNS],
    rows: instructedTasks(lab, widestQuery(lab)).flatMap((task) => {
      const results = resultsOf(lab, [task]);
      return countsOf(results).map((count) => [task.name, ...row(results, count)]);
    }),
  };
}

function row(results: readonly EnsembleTestResult[], count: number) {
  const hits = METHODS.map((method) => hitsOf(results, method, count));
  const [examples, , ensemble] = hits;
  const layers = results.map(({ layers: { text, instruction, ensemble: joint } }) =>
    [text, instruction, joint].join(" "),
  );
  return [
    count,
    [...new Set(layers)].join(", "),
    beside(results.map(({ noContext }) => noContext)).majority,
    accuracy(results.map(({ noContext }) => [noContext.hits])),
    ...hits.map(accuracy),
    accuracyDifference(ensemble!, examples!),
    ...METHODS.map(
      (method) => beside(results.map((result) => answersOf(result, method, count)[0]!)).distinct,
    ),
  ];
}

function controlsTable(lab: Lab): Table {
  const results = resultsOf(lab, inMeans(lab));
  const most: Hits = results.map(({ ensemble }) => ensemble.at(-1)!.map(({ hits }) => hits));
  return {
    name: "controls",
    title: "Ensembles with other vectors in place of the instruction's, with the most prompts that there are",
    columns: ["ensemble of", "accuracy", "the ensemble less this", "majority", "distinct answers"],
    rows: ENSEMBLE_CONTROLS.flatMap((control) => {
      const answers = results.map(({ controls }) => controls[control]);
      if (!answers.every((list) => list !== undefined)) return [];
      const hits: Hits = answers.map((list) => list.map((answer) => answer.hits));
      const { majority, distinct } = beside(answers.map((list) => list[0]!));
      return [[CONTROL_NAMES[control], accuracy(hits), accuracyDifference(most, hits), majority, distinct]];
    }),
  };
}

function inMeans(lab: Lab): Task[] {
  return instructedTasks(lab, widestQuery(lab), lab.tasksInMeans);
}

function taskNames(lab: Lab): string {
  return inMeans(lab)
    .map(({ name }) => name)
    .join(", ");
}
