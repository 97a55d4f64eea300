import type { Task } from "xpatch";
import { layerPairs } from "./cells/layer-pairs.ts";
import { accuracyByLayer, llmLayerSweep, type Setup, tasksWith } from "./cells/layer-sweep.ts";
import { llmSimilarity } from "./cells/llm-similarity.ts";
import { SPREAD_NOTE } from "./cells/spread.ts";
import { taskVectors } from "./cells/task-vectors.ts";
import { CONTROL_NAMES, CONTROLS, controlHits, llmTestPatch, testPatch } from "./cells/test-answers.ts";
import { validationCells } from "./cells/validation.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES, seedsOf, widestQuery } from "./framework/prompts.ts";
import { beside } from "./framework/scored.ts";
import { paperTable } from "./paper.ts";
import type { HeatFigure, LinesFigure } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { accuracy, accuracyDifference, type Hits } from "./statistics/bootstrap.ts";

export const llmToVlm: Experiment = {
  name: "llm-to-vlm",
  title: "From the language model to the model fine-tuned from it",
  claim:
    "Task vectors of text examples in the base language model work in the model that was fine-tuned from it, as well as that model's own.",
  untestable({ model, llm }) {
    if (!llm) return "it takes the language model that the model was fine-tuned from (--llm)";
    const [own, other] = [model.config.width, llm.config.width];
    if (own === other) return undefined;
    return `the language model's residual stream has width ${other}, the model's ${own}: a vector of one does not fit into the other`;
  },
  cells(lab) {
    const setup = setupOf(lab);
    const tasks = tasksWith(lab, setup);
    return [
      ...validationCells(lab),
      ...tasks.flatMap(({ name: task }) =>
        seedsOf(lab, "text").map((seed) => taskVectors({ source: "llm", task, specification: "text", seed })),
      ),
      ...tasks.map(({ name: task }) => llmLayerSweep({ ...setup, task })),
      ...tasks.map(({ name: task }) => layerPairs({ task, query: setup.query })),
      ...tasks.flatMap(({ name: task }) => [
        testPatch({ ...setup, task }),
        llmTestPatch({ ...setup, task }),
        llmSimilarity({ task }),
      ]),
    ];
  },
  report(lab): Findings {
    return {
      verdict: verdictOf(lab),
      text: [
        "The vectors of each model are patched in the layer that validation items chose for them; the test items were scored once.",
        "A residual stream has a large part that is common to all tasks, so cosines are given a second time without the mean over the tasks, and beside them those with other tasks' vectors.",
      ],
      figures: [layersFigure(lab), pairsFigure(lab), similarityFigure(lab)],
      tables: [methodsTable(lab), byTaskTable(lab), ...paperTables(lab)],
      controls: [controlsTable(lab)],
    };
  },
};

function setupOf(lab: Lab): Setup {
  return { specification: "text", query: widestQuery(lab) };
}

function hitsOf(lab: Lab, tasks: readonly Task[]) {
  const results = tasks.map(({ name }) => ({
    own: lab.result(testPatch({ ...setupOf(lab), task: name })),
    llm: lab.result(llmTestPatch({ ...setupOf(lab), task: name })),
  }));
  const noContext: Hits = results.map(({ llm }) => [llm.noContext.hits]);
  const own: Hits = results.map((result) => result.own.patched.map(({ hits }) => hits));
  const llm: Hits = results.map((result) => result.llm.patched.map(({ hits }) => hits));
  return { results, noContext, own, llm };
}

function verdictOf(lab: Lab): Verdict {
  const tasks = inMeans(lab);
  const { results, noContext, own, llm } = hitsOf(lab, tasks);
  const { majority } = beside(results.map((result) => result.llm.noContext));
  const another = controlHits(
    results.map((result) => result.llm),
    "anotherTask",
  );
  const rivals = [noContext, ...(another ? [another] : [])];
  const patched = accuracy(llm);
  const difference = accuracyDifference(llm, own);
  const numbers = `the language model's vectors ${showEstimate(patched)}, own vectors ${showEstimate(accuracy(own))}, difference ${showEstimate(difference)}, no context ${showEstimate(accuracy(noContext))}, majority ${majority.toFixed(2)}`;
  const works = patched.low > majority && rivals.every((rival) => accuracyDifference(llm, rival).low > 0);
  if (!works)
    return {
      outcome: "does not replicate",
      because: `the patch is not clearly above its controls: ${numbers}`,
    };
  if (difference.high < 0)
    return { outcome: "replicates in part", because: `they work, but worse than its own: ${numbers}` };
  return { outcome: "replicates", because: `they work, and not clearly worse than its own: ${numbers}` };
}

function layersFigure(lab: Lab): LinesFigure {
  const setup = setupOf(lab);
  const series = { "the language model's": llmLayerSweep, "the model's own": undefined };
  return {
    kind: "lines",
    name: "layers",
    title: "Accuracy by layer, the same in both models",
    caption: `${QUERY_NAMES[setup.query]}, mean over ${taskNames(lab)} on validation items, with 95 % intervals.`,
    x: "layer",
    y: "accuracy",
    rows: Object.entries(series).flatMap(([name, sweep]) =>
      accuracyByLayer(lab, setup, inMeans(lab), sweep).map(({ layer, accuracy: { mean, low, high } }) => ({
        series: name,
        x: layer,
        y: mean,
        low,
        high,
      })),
    ),
  };
}

function pairsFigure(lab: Lab): HeatFigure {
  const { query } = setupOf(lab);
  const results = inMeans(lab).map(({ name }) => lab.result(layerPairs({ task: name, query })));
  const { sources, targets } = results[0]!;
  return {
    kind: "heat",
    name: "layer-pairs",
    title: "Accuracy by the language model's layer and the layer patched",
    caption: `${QUERY_NAMES[query]}, mean over ${taskNames(lab)} on validation items, one seed. ${SPREAD_NOTE}`,
    x: "layer patched",
    y: "language model's layer",
    value: "accuracy",
    rows: sources.flatMap((source, s) =>
      targets.map((target, t) => ({
        x: target,
        y: source,
        value: accuracy(results.map(({ patched }) => [patched[s]![t]!.hits])).mean,
      })),
    ),
  };
}

function similarityFigure(lab: Lab): LinesFigure {
  const results = inMeans(lab).map(({ name }) => lab.result(llmSimilarity({ task: name })));
  const panels = { "as they are": "raw", "without the mean over tasks": "centred" } as const;
  const series = { "the same task": "own", "other tasks (control)": "others" } as const;
  return {
    kind: "lines",
    name: "similarity",
    title: "Cosine similarity of the two models' task vectors",
    caption: `Text examples, mean over ${taskNames(lab)} and seeds.`,
    x: "layer",
    y: "cosine similarity",
    rows: Object.entries(panels).flatMap(([panel, form]) =>
      Object.entries(series).flatMap(([name, which]) =>
        results[0]![form][which].map((_, layer) => ({
          panel,
          series: name,
          x: layer,
          y: results.reduce((sum, result) => sum + result[form][which][layer]! / results.length, 0),
        })),
      ),
    ),
  };
}

const COLUMNS = [
  "layer of the language model's",
  "layer of its own",
  "majority",
  "no context",
  "the language model's vectors",
  "own vectors",
  "difference",
  "distinct answers (language model's)",
  "distinct answers (own)",
];

/** The paper's numbers beside this run's, under its protocol. */
function paperTables(lab: Lab): Table[] {
  if (lab.options.protocol !== "paper" || widestQuery(lab) !== "image") return [];
  const { results, own, llm } = hitsOf(lab, inMeans(lab));
  const layers = [...new Set(results.map((result) => result.own.layer))].join(", ");
  return [paperTable(lab, { textPatch: accuracy(own), llmPatch: accuracy(llm) }, layers)];
}

function methodsTable(lab: Lab): Table {
  return {
    name: "methods",
    title: `Accuracy on test items, ${QUERY_NAMES[setupOf(lab).query]}, mean over ${taskNames(lab)}`,
    columns: COLUMNS,
    rows: [methodsRow(lab, inMeans(lab))],
  };
}

function byTaskTable(lab: Lab): Table {
  return {
    name: "by-task",
    title: "The same by task",
    columns: ["task", ...COLUMNS],
    rows: tasksWith(lab, setupOf(lab)).map((task) => [task.name, ...methodsRow(lab, [task])]),
  };
}

function methodsRow(lab: Lab, tasks: readonly Task[]) {
  const { results, noContext, own, llm } = hitsOf(lab, tasks);
  const layers = (which: "own" | "llm") =>
    [...new Set(results.map((result) => result[which].layer))].join(", ");
  const besideLlm = beside(results.map((result) => result.llm.patched[0]!));
  return [
    layers("llm"),
    layers("own"),
    besideLlm.majority,
    accuracy(noContext),
    accuracy(llm),
    accuracy(own),
    accuracyDifference(llm, own),
    besideLlm.distinct,
    beside(results.map((result) => result.own.patched[0]!)).distinct,
  ];
}

function controlsTable(lab: Lab): Table {
  const { results, llm } = hitsOf(lab, inMeans(lab));
  const rows = CONTROLS.flatMap((control) => {
    const ofControl = results.map((result) => result.llm);
    const hits = controlHits(ofControl, control);
    if (!hits) return [];
    const { majority, distinct } = beside(ofControl.map(({ controls }) => controls[control]!));
    return [[CONTROL_NAMES[control], accuracy(hits), accuracyDifference(llm, hits), majority, distinct]];
  });
  return {
    name: "controls",
    title: "Other vectors of the language model in the same place",
    columns: ["vector", "accuracy", "the task's own vector less this", "majority", "distinct answers"],
    rows,
  };
}

function inMeans(lab: Lab): Task[] {
  return tasksWith(lab, setupOf(lab), lab.tasksInMeans);
}

function taskNames(lab: Lab): string {
  return inMeans(lab)
    .map(({ name }) => name)
    .join(", ");
}
