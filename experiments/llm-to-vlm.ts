import type { Task } from "xpatch";
import { layerPairs } from "./cells/layer-pairs.ts";
import {
  accuracyByLayer,
  CHOSEN_NOTE,
  llmLayerSweep,
  type Setup,
  sharedLayer,
  tasksWith,
} from "./cells/layer-sweep.ts";
import { llmSimilarity } from "./cells/llm-similarity.ts";
import { namingCells, namingTable } from "./cells/naming.ts";
import { SPREAD_NOTE } from "./cells/spread.ts";
import { taskVectors } from "./cells/task-vectors.ts";
import {
  aboveAllControls,
  bareHits,
  CONTROL_NAMES,
  CONTROLS,
  controlCells,
  controlHits,
  llmTestPatch,
  patchedHits,
  testedTasks,
  testPatch,
} from "./cells/test-answers.ts";
import { validationCells } from "./cells/validation.ts";
import { difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES, seedsOf, widestQuery } from "./framework/prompts.ts";
import { constantReferences } from "./framework/references.ts";
import { judged } from "./framework/rule.ts";
import { beside, taskHits } from "./framework/scored.ts";
import { paperTable } from "./paper.ts";
import { type HeatFigure, type LinesFigure, pointOf } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy, accuracyDifference } from "./statistics/accuracy.ts";

export const llmToVlm: Experiment = {
  name: "llm-to-vlm",
  title: "From the language model to the model fine-tuned from it",
  claim:
    "Task vectors of text examples in the base language model work in the model that was fine-tuned from it, as well as that model's own.",
  untestable(lab) {
    if (!lab.llm) return "it takes the language model that the model was fine-tuned from (--llm)";
    const stack = lab.stackOf(lab.llm);
    if (!stack) return "the language model has no encoder, whose layers task vectors could be of";
    const [own, other] = [lab.width, stack.width];
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
        ...controlCells(lab, task),
        ...controlCells(lab, task, "llm"),
        testPatch({ ...setup, task }),
        llmTestPatch({ ...setup, task }),
        llmSimilarity({ task }),
      ]),
      ...namingCells(lab),
    ];
  },
  report(lab): Findings {
    return {
      verdict: verdictOf(lab),
      text: [
        "The vectors of each model are patched in the layer that validation items chose for them; the test items were scored once.",
        "A residual stream has a large part that is common to all tasks, so beside the cosine of a task's two vectors stands that with other tasks', and the cosine is given a second time without the mean over the tasks.",
      ],
      figures: [layersFigure(lab), pairsFigure(lab), similarityFigure(lab)],
      tables: [methodsTable(lab), byTaskTable(lab), ...regurgitationTable(lab), ...paperTables(lab)],
      controls: [controlsTable(lab)],
    };
  },
};

function setupOf(lab: Lab): Setup {
  return { specification: "text", query: widestQuery(lab) };
}

function hitsOf(lab: Lab, tasks: readonly Task[]) {
  const own = testedTasks(lab, tasks, setupOf(lab));
  const llm = testedTasks(lab, tasks, setupOf(lab), llmTestPatch);
  return {
    tested: { own, llm },
    noContext: bareHits(llm),
    own: patchedHits(own),
    llm: patchedHits(llm),
  };
}

function verdictOf(lab: Lab): Verdict {
  const { tested, noContext, own, llm } = hitsOf(lab, inMeans(lab));
  const { majority } = beside(tested.llm.map(({ result }) => result.noContext));
  const works = aboveAllControls(lab, tested.llm);
  const shown = Object.entries({
    "the language model's vectors": llm,
    "own vectors": own,
    "no context": noContext,
  }).map(([name, hits]) => `${name} ${showEstimate(accuracy(hits))}`);
  return judged(
    RULES["llm-to-vlm"],
    { works, asWell: { own: difference(llm, own) }, mapping: works },
    `${shown.join(", ")}, majority ${majority.toFixed(2)}`,
  );
}

function layersFigure(lab: Lab): LinesFigure {
  const setup = setupOf(lab);
  const series = { "the language model's": llmLayerSweep, "the model's own": undefined };
  return {
    kind: "lines",
    name: "layers",
    title: "Accuracy by layer, the same in both models",
    caption: `${QUERY_NAMES[setup.query]}, mean over ${taskNames(lab)} on validation items.`,
    chosen: CHOSEN_NOTE,
    x: "layer",
    y: "accuracy",
    rows: Object.entries(series).flatMap(([name, sweep]) => {
      const chosen = sharedLayer(lab, setup, sweep);
      return accuracyByLayer(lab, setup, inMeans(lab), sweep).map(({ layer, accuracy: value }) => ({
        series: name,
        x: layer,
        ...pointOf(value),
        chosen: layer === chosen,
      }));
    }),
    references: constantReferences(
      lab.options,
      inMeans(lab).map((task) => ({ task, items: lab.items(task, "validation") })),
    ),
  };
}

function pairsFigure(lab: Lab): HeatFigure {
  const { query } = setupOf(lab);
  const found = inMeans(lab).map((task) => ({
    items: lab.items(task, "validation"),
    result: lab.result(layerPairs({ task: task.name, query })),
  }));
  const { sources, targets } = found[0]!.result;
  return {
    kind: "heat",
    name: "layer-pairs",
    title: "Accuracy by the language model's layer and the layer patched",
    caption: `${QUERY_NAMES[query]}, mean over ${taskNames(lab)} on validation items, one seed. ${SPREAD_NOTE}`,
    x: "layer patched",
    y: "language model's layer",
    value: "accuracy",
    rows: sources.flatMap((source, s) =>
      targets.map((target, t) => {
        const hits = found.map(({ items: asked, result }) => taskHits(asked, [result.patched[s]![t]!]));
        const { mean, items, seeds } = accuracy(hits);
        return { x: target, y: source, value: mean, items, seeds };
      }),
    ),
  };
}

function similarityFigure(lab: Lab): LinesFigure {
  const results = inMeans(lab).map(({ name }) => lab.result(llmSimilarity({ task: name })));
  const [raw, less] = ["as they are", "without the mean over tasks"];
  const lines = [
    { panel: raw, series: "the same task", which: "own" },
    { panel: raw, series: "other tasks (control)", which: "others" },
    { panel: less, series: "the same task", which: "centred" },
  ] as const;
  return {
    kind: "lines",
    name: "similarity",
    title: "Cosine similarity of the two models' task vectors",
    caption: `Text examples, mean over ${taskNames(lab)} and seeds.`,
    x: "layer",
    y: "cosine similarity",
    rows: lines.flatMap(({ panel, series, which }) =>
      results[0]![which].map((_, layer) => ({
        panel,
        series,
        x: layer,
        y: results.reduce((sum, result) => sum + result[which][layer]! / results.length, 0),
      })),
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
  const { tested, own, llm } = hitsOf(lab, inMeans(lab));
  const layers = [...new Set(tested.own.map(({ result }) => result.layer))].join(", ");
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
  const { tested, noContext, own, llm } = hitsOf(lab, tasks);
  const layers = (which: "own" | "llm") =>
    [...new Set(tested[which].map(({ result }) => result.layer))].join(", ");
  const besideOf = (which: "own" | "llm") => beside(tested[which].map(({ result }) => result.patched[0]!));
  return [
    layers("llm"),
    layers("own"),
    besideOf("llm").majority,
    accuracy(noContext),
    accuracy(llm),
    accuracy(own),
    accuracyDifference(llm, own),
    besideOf("llm").distinct,
    besideOf("own").distinct,
  ];
}

function regurgitationTable(lab: Lab): Table[] {
  if (setupOf(lab).query !== "image") return [];
  const { tested } = hitsOf(lab, inMeans(lab));
  const vectors = { "the language model's": tested.llm, "its own": tested.own };
  return namingTable(
    lab,
    ["vectors"],
    Object.entries(vectors).map(([name, list]) => ({
      head: [name],
      answers: list.map(({ task, items, result }) => ({ task, items, seeds: result.patched })),
    })),
  );
}

function controlsTable(lab: Lab): Table {
  const { tested, llm } = hitsOf(lab, inMeans(lab));
  const rows = CONTROLS.flatMap((control) => {
    const hits = controlHits(tested.llm, control);
    if (!hits) return [];
    const { majority, distinct } = beside(tested.llm.map(({ result }) => result.controls[control]![0]!));
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
