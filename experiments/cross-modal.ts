import type { Task } from "xpatch";
import { type Setup, setupsOf, tasksWith } from "./cells/layer-sweep.ts";
import { namingCells, namingTable } from "./cells/naming.ts";
import {
  aboveAllControls,
  askedUnderPatch,
  bareHits,
  CONTROL_NAMES,
  CONTROLS,
  controlCells,
  controlHits,
  patchedHits,
  testedTasks,
  testPatch,
  testPrompt,
} from "./cells/test-answers.ts";
import { validationCells } from "./cells/validation.ts";
import { constantAnswers } from "./framework/constants.ts";
import { difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES, SPECIFICATION_NAMES, seedsOf } from "./framework/prompts.ts";
import { constantReferences } from "./framework/references.ts";
import { judged } from "./framework/rule.ts";
import { taskHits } from "./framework/scored.ts";
import { stackNote } from "./framework/stacks.ts";
import { type PaperSetup, paperRows, paperTable } from "./paper.ts";
import { type BarsFigure, pointOf } from "./report/figure.ts";
import { showEstimate, type Table, type TableCell } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy, accuracyDifference, type Hits } from "./statistics/accuracy.ts";
import { mean } from "./statistics/resample.ts";

/** The claim's own case. */
export const CROSS_MODAL: Setup = { specification: "text", query: "image" };

export const crossModal: Experiment = {
  name: "cross-modal",
  title: "Task vectors cross modalities",
  claim:
    "The task vector of text examples, patched into a query about a picture, makes the model do the task, better than the same examples in the prompt.",
  cells: (lab) => [
    ...validationCells(lab),
    ...lab.tasks.flatMap((task) => {
      const setups = setupsOf(lab, [task]);
      const tested = setups.flatMap((setup) => [
        testPatch({ ...setup, task: task.name }),
        ...promptSeeds(lab, setup).map((seed) => testPrompt({ ...setup, task: task.name, seed })),
      ]);
      return [...controlCells(lab, task.name), ...tested];
    }),
    ...namingCells(lab),
  ],
  report(lab): Findings {
    const setups = setupsOf(lab, lab.tasksInMeans);
    return {
      verdict: crossModalVerdict(lab, CROSS_MODAL),
      text: [
        "Each query is asked three ways: by itself (no context), behind the specification (prompt), and by itself with the task vector of the specification in place of the residual stream at its last token (patch).",
        "Vectors and layers come from validation items; the test items were scored once.",
        ...[stackNote(lab)].flatMap((note) => note ?? []),
      ],
      figures: [methodsFigure(lab, setups)],
      tables: [
        methodsTable(lab, setups),
        byTaskTable(lab),
        ...regurgitationTable(lab, setups),
        ...paperTables(lab, setups),
      ],
      controls: [controlsTable(lab, setups)],
    };
  },
};

/** Right and wrong answers to the test items, by method. */
export function hitsOf(lab: Lab, setup: Setup, tasks: readonly Task[]) {
  const tested = testedTasks(lab, tasks, setup);
  const prompt: Hits = tested.map(({ task: { name }, items }) =>
    taskHits(
      items,
      promptSeeds(lab, setup).map((seed) => lab.result(testPrompt({ ...setup, task: name, seed }))),
    ),
  );
  return { tested, noContext: bareHits(tested), prompt, patch: patchedHits(tested) };
}

/** By the claim's rule, of a setup that may stand for the claim's own. */
export function crossModalVerdict(lab: Lab, setup: Setup): Verdict {
  const tasks = tasksWith(lab, setup, lab.tasksInMeans);
  if (tasks.length === 0) {
    const because = "the model takes no pictures, or no task has them";
    return { outcome: "not testable here", because, checks: [] };
  }
  const { tested, noContext, prompt, patch } = hitsOf(lab, setup, tasks);
  const { majority } = meansOf(lab, setup, tasks);
  const works = aboveAllControls(lab, tested);
  const shown = Object.entries({ patch, prompt, "no context": noContext }).map(
    ([name, hits]) => `${name} ${showEstimate(accuracy(hits))}`,
  );
  return judged(
    RULES["cross-modal"],
    { works, better: { prompt: difference(patch, prompt) }, mapping: works },
    `${shown.join(", ")}, majority ${majority.toFixed(2)}`,
  );
}

function methodsFigure(lab: Lab, setups: readonly Setup[]): BarsFigure {
  const rows = setups.flatMap((setup) => {
    const { noContext, prompt, patch } = hitsOf(lab, setup, inMeans(lab, setup));
    const methods = { "no context": noContext, prompt, patch };
    return Object.entries(methods).map(([series, hits]) => ({
      panel: QUERY_NAMES[setup.query],
      x: SPECIFICATION_NAMES[setup.specification],
      series,
      ...pointOf(accuracy(hits)),
    }));
  });
  return {
    kind: "bars",
    name: "methods",
    title: "Accuracy by specification, query and method",
    caption: `Mean over ${taskNames(lab)} on test items.`,
    x: "specification",
    y: "accuracy",
    rows,
    references: setups.flatMap((setup) =>
      constantReferences(lab.options, askedUnderPatch(testedTasks(lab, inMeans(lab, setup), setup)), {
        panel: QUERY_NAMES[setup.query],
        x: SPECIFICATION_NAMES[setup.specification],
      }),
    ),
  };
}

function methodsTable(lab: Lab, setups: readonly Setup[]): Table {
  return {
    name: "methods",
    title: `Accuracy on test items, mean over ${taskNames(lab)}`,
    columns: METHOD_COLUMNS,
    rows: setups.map((setup) => methodsRow(lab, setup, inMeans(lab, setup))),
  };
}

function byTaskTable(lab: Lab): Table {
  const rows = lab.tasks.flatMap((task) => {
    const asked = setupsOf(lab, [task]);
    return asked.map((setup) => [task.name, ...methodsRow(lab, setup, [task])]);
  });
  return { name: "by-task", title: "The same by task", columns: ["task", ...METHOD_COLUMNS], rows };
}

const METHOD_COLUMNS = [
  "query",
  "specification",
  "layer",
  "majority",
  "no context",
  "prompt",
  "patch",
  "patch − prompt",
  "best constant answer",
  "distinct answers",
];

/** The means over `tasks`; the last two are with the answers to the patch, the very last one a number a task. */
function methodsRow(lab: Lab, setup: Setup, tasks: readonly Task[]): TableCell[] {
  const { noContext, prompt, patch } = hitsOf(lab, setup, tasks);
  const { majority, constant, distinct, layers } = meansOf(lab, setup, tasks);
  return [
    QUERY_NAMES[setup.query],
    SPECIFICATION_NAMES[setup.specification],
    layers,
    majority,
    accuracy(noContext),
    accuracy(prompt),
    accuracy(patch),
    accuracyDifference(patch, prompt),
    constant,
    distinct,
  ];
}

/** Over the tasks by picture, and by task for the claim's own case. */
function regurgitationTable(lab: Lab, setups: readonly Setup[]): Table[] {
  const rows = (setup: Setup, tasks: readonly Task[], called: string) => {
    const tested = testedTasks(lab, tasks, setup);
    const scores = {
      "no context": tested.map(({ result }) => [result.noContext]),
      prompt: tasks.map(({ name: task }) =>
        promptSeeds(lab, setup).map((seed) => lab.result(testPrompt({ ...setup, task, seed }))),
      ),
      patch: tested.map(({ result }) => result.patched),
    };
    return Object.entries(scores).map(([method, byTask]) => ({
      head: [called, SPECIFICATION_NAMES[setup.specification], method],
      answers: tested.map(({ task, items }, t) => ({ task, items, seeds: byTask[t]! })),
    }));
  };
  const pictured = setups.filter(({ query }) => query === "image");
  return namingTable(
    lab,
    ["tasks", "specification", "method"],
    [
      ...pictured.flatMap((setup) => rows(setup, inMeans(lab, setup), "mean")),
      ...tasksWith(lab, CROSS_MODAL).flatMap((task) => rows(CROSS_MODAL, [task], task.name)),
    ],
  );
}

function controlsTable(lab: Lab, setups: readonly Setup[]): Table {
  const present = CONTROLS.filter((control) =>
    setups.some((setup) => controlHits(testedTasks(lab, inMeans(lab, setup), setup), control)),
  );
  return {
    name: "controls",
    title: "Other vectors in the same place, mean over the same tasks",
    columns: [
      "query",
      "specification",
      "the task's own vector",
      ...present.map((control) => CONTROL_NAMES[control]),
    ],
    rows: setups.map((setup) => {
      const tasks = inMeans(lab, setup);
      const tested = testedTasks(lab, tasks, setup);
      const others = present.map((control) => controlHits(tested, control));
      return [
        QUERY_NAMES[setup.query],
        SPECIFICATION_NAMES[setup.specification],
        accuracy(patchedHits(tested)),
        ...others.map((hits) => (hits ? accuracy(hits) : "–")),
      ];
    }),
  };
}

/** The paper's numbers: of all its models beside this run's, under its protocol; else those of this model, if it is one. */
function paperTables(lab: Lab, setups: readonly Setup[]): Table[] {
  if (lab.options.protocol === "paper") return [protocolTable(lab, setups)];
  const rows = paperRows(lab.setting.model.name);
  if (!rows) return [];
  return [
    {
      name: "paper",
      title: "What the paper reports of this model, on its own data (six tasks, 4-bit NF4 weights)",
      columns: ["setup", "accuracy"],
      rows: rows.map(({ setup, accuracy: value }) => [setup, value]),
    },
  ];
}

function protocolTable(lab: Lab, setups: readonly Setup[]): Table {
  const of = (specification: Setup["specification"], query: Setup["query"], way: keyof MethodHits) => {
    const setup = setups.find((one) => one.specification === specification && one.query === query);
    return setup ? accuracy(hitsOf(lab, setup, inMeans(lab, setup))[way]) : "–";
  };
  const ours: Record<Exclude<PaperSetup, "llmPatch">, TableCell> = {
    random: "–",
    noContext: of("text", "image", "noContext"),
    textPrompt: of("text", "image", "prompt"),
    textPatch: of("text", "image", "patch"),
    imagePrompt: of("image", "image", "prompt"),
    imagePatch: of("image", "image", "patch"),
    textToText: of("text", "text", "patch"),
    imageToText: of("image", "text", "patch"),
  };
  const tasks = inMeans(lab, CROSS_MODAL);
  return paperTable(lab, ours, tasks.length > 0 ? meansOf(lab, CROSS_MODAL, tasks).layers : "–");
}

type MethodHits = Pick<ReturnType<typeof hitsOf>, "noContext" | "prompt" | "patch">;

function meansOf(lab: Lab, setup: Setup, tasks: readonly Task[]) {
  const tested = testedTasks(lab, tasks, setup);
  const results = tested.map(({ result }) => result);
  const { constant } = constantAnswers(askedUnderPatch(tested), lab.options);
  return {
    majority: mean(results.map(({ noContext }) => noContext.majority)),
    constant: accuracy(constant).mean,
    distinct: results.map(({ patched }) => patched[0]!.distinct).join(", "),
    layers: [...new Set(results.map(({ layer }) => layer))].join(", "),
  };
}

function inMeans(lab: Lab, setup: Setup): Task[] {
  return tasksWith(lab, setup, lab.tasksInMeans);
}

function taskNames(lab: Lab): string {
  return lab.tasksInMeans.map(({ name }) => name).join(", ");
}

/** The prompts that the claim's own difference is made with vary as its vectors do: as many seeds. */
export function promptSeeds(lab: Lab, setup: Setup): number[] {
  const { specification, query } = setup;
  const claimed = specification === CROSS_MODAL.specification && query === CROSS_MODAL.query;
  return seedsOf(lab, specification, claimed ? lab.options.seeds : lab.options.promptSeeds);
}
