import type { Modality, Task } from "xpatch";
import { CHOSEN_NOTE, sharedLayer, tasksWith } from "./cells/layer-sweep.ts";
import {
  OVERRIDING_CONTROLS,
  type OverridingControl,
  type OverridingResult,
  overriddenItems,
  overridingSweep,
  overridingTest,
  QUESTION,
} from "./cells/overriding.ts";
import type { ScoredTwice } from "./cells/pairs.ts";
import { taskVectors } from "./cells/task-vectors.ts";
import { type AskedTask, constantAnswers } from "./framework/constants.ts";
import { aboveControl, difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES, widestQuery } from "./framework/prompts.ts";
import { constantReferences } from "./framework/references.ts";
import { judged } from "./framework/rule.ts";
import { taskHits } from "./framework/scored.ts";
import { type BarsFigure, type LinesFigure, pointOf } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy, accuracyDifference, type Hits } from "./statistics/accuracy.ts";

/** What counts as right: the answer to the question that the prompt asks, or that of the task in the instruction. */
const SIDES = { "the question": "own", "the instruction": "other" } as const;

type Side = (typeof SIDES)[keyof typeof SIDES];

const METHODS = {
  "no override": ({ none }: OverridingResult) => none,
  "system prompt": ({ system }: OverridingResult) => system,
  patch: ({ patched }: OverridingResult) => patched,
} as const;

const CONTROL_NAMES: Readonly<Record<OverridingControl, string>> = {
  anotherInstruction: "another instruction's vector",
  random: "random vector of the same norm",
};

export const overriding: Experiment = {
  name: "overriding",
  title: "An instruction patched over a question",
  claim:
    "Where the prompt asks one thing about a picture, the vector of an instruction that asks another, patched into it, makes the model do as the instruction says, better than the instruction as system prompt.",
  untestable: (lab) =>
    queriesOf(lab).length > 0 ? undefined : "no task has an instruction, whose vector could be patched in",
  cells: (lab) =>
    queriesOf(lab).flatMap((query) => {
      const tasks = tasksOf(lab, query, lab.tasks).map(({ name }) => name);
      return [
        ...tasks.map((task) => taskVectors({ source: "model", task, specification: "instruction", seed: 0 })),
        ...tasks.map((task) => overridingSweep({ specification: "instruction", query, task })),
        ...tasks.map((task) => overridingTest({ query, task })),
      ];
    }),
  report(lab): Findings {
    return {
      verdict: verdictOf(lab),
      text: [
        `The prompt is the picture (or the name) and below it a question, the item's own or "${QUESTION}", which the item's name answers. The instruction stands in front of it (system prompt), or its vector replaces the residual stream at the last token (patch). The same answers are scored by those of the question and by those of the instruction's task.`,
        "The layer is the one in which validation items, asked the same way, follow the instruction most often. Test items were asked once.",
      ],
      figures: [methodsFigure(lab), layersFigure(lab)],
      tables: [methodsTable(lab), answersTable(lab)],
      controls: [controlsTable(lab)],
    };
  },
};

interface Tested {
  readonly task: Task;
  readonly result: OverridingResult;
}

function testedOf(lab: Lab, query: Modality, tasks = tasksOf(lab, query)): Tested[] {
  return tasks.map((task) => ({ task, result: lab.result(overridingTest({ query, task: task.name })) }));
}

function hitsOf(
  lab: Lab,
  tested: readonly Tested[],
  pick: (result: OverridingResult) => ScoredTwice,
  side: Side,
): Hits {
  return tested.map(({ task, result }) =>
    taskHits(overriddenItems(lab, task, "test")[side], [pick(result)[side]]),
  );
}

/** What was asked about, as the instruction's task answers, and answered under the patch. */
function askedOf(lab: Lab, tested: readonly Tested[]): AskedTask[] {
  return tested.map(({ task, result }) => ({
    task,
    items: lab.items(task, "test"),
    answers: result.patched.other.answers,
  }));
}

function verdictOf(lab: Lab): Verdict {
  const query = queryOf(lab);
  const tested = testedOf(lab, query);
  const by = (method: keyof typeof METHODS, side: Side = "other") =>
    hitsOf(lab, tested, METHODS[method], side);
  const patch = by("patch");
  const { frequent, constant } = constantAnswers(askedOf(lab, tested), lab.options);
  const shown = Object.keys(METHODS).map((name) => {
    const method = name as keyof typeof METHODS;
    const [other, own] = [by(method), by(method, "own")].map((hits) => accuracy(hits));
    return `${name} ${showEstimate(other!)}, the question ${own!.mean.toFixed(2)}`;
  });
  return judged(
    RULES.overriding,
    {
      works: {
        none: aboveControl(patch, by("no override")),
        anotherInstruction: aboveControl(patch, controlHits(lab, tested, "anotherInstruction")),
        random: aboveControl(patch, controlHits(lab, tested, "random")),
        frequent: aboveControl(patch, frequent),
        constant: aboveControl(patch, constant),
      },
      better: { system: difference(patch, by("system prompt")) },
    },
    `${QUERY_NAMES[query]}, answered as the instruction says: ${shown.join("; ")}`,
  );
}

function methodsFigure(lab: Lab): BarsFigure {
  return {
    kind: "bars",
    name: "methods",
    title: "What is answered: the question, or the instruction",
    caption: `Mean over ${namesOf(lab)} on test items. Dashed lines are by the instruction.`,
    x: "method",
    y: "accuracy",
    rows: queriesOf(lab).flatMap((query) => {
      const tested = testedOf(lab, query);
      return Object.entries(METHODS).flatMap(([x, pick]) =>
        Object.entries(SIDES).map(([what, side]) => {
          return {
            panel: QUERY_NAMES[query],
            x,
            series: `right by ${what}`,
            ...pointOf(accuracy(hitsOf(lab, tested, pick, side))),
          };
        }),
      );
    }),
    references: queriesOf(lab).flatMap((query) =>
      constantReferences(lab.options, askedOf(lab, testedOf(lab, query)), { panel: QUERY_NAMES[query] }),
    ),
  };
}

function layersFigure(lab: Lab): LinesFigure {
  return {
    kind: "lines",
    name: "layers",
    title: "Answered as the instruction says, by patched layer",
    caption: `Mean over ${namesOf(lab)} on validation items.`,
    chosen: CHOSEN_NOTE,
    x: "layer",
    y: "accuracy",
    rows: queriesOf(lab).flatMap((query) => {
      const tasks = tasksOf(lab, query);
      const sweeps = tasks.map(({ name: task }) =>
        lab.result(overridingSweep({ specification: "instruction", query, task })),
      );
      const chosen = sharedLayer(lab, { specification: "instruction", query }, overridingSweep);
      return sweeps[0]!.layers.map((layer, l) => {
        const hits = tasks.map((task, t) =>
          taskHits(
            lab.items(task, "validation"),
            sweeps[t]!.patched.map((row) => row[l]!),
          ),
        );
        return { series: QUERY_NAMES[query], x: layer, ...pointOf(accuracy(hits)), chosen: layer === chosen };
      });
    }),
    references: constantReferences(
      lab.options,
      tasksOf(lab, queryOf(lab)).map((task) => ({ task, items: lab.items(task, "validation") })),
    ),
  };
}

function methodsTable(lab: Lab): Table {
  return {
    name: "methods",
    title: `Accuracy on test items, mean over ${namesOf(lab)}, and by task`,
    columns: [
      "query",
      "tasks",
      "layer",
      ...Object.keys(METHODS).flatMap((name) => [`${name}: instruction`, `${name}: question`]),
      "patch − system prompt",
    ],
    rows: queriesOf(lab).flatMap((query) => {
      const each = tasksOf(lab, query, lab.tasks).map(
        (task) => [task.name, testedOf(lab, query, [task])] as const,
      );
      return [["mean", testedOf(lab, query)] as const, ...each].map(([name, tested]) => [
        QUERY_NAMES[query],
        name,
        [...new Set(tested.map(({ result }) => result.layer))].join(", "),
        ...Object.values(METHODS).flatMap((pick) => [
          accuracy(hitsOf(lab, tested, pick, "other")),
          accuracy(hitsOf(lab, tested, pick, "own")),
        ]),
        accuracyDifference(
          hitsOf(lab, tested, METHODS.patch, "other"),
          hitsOf(lab, tested, METHODS["system prompt"], "other"),
        ),
      ]);
    }),
  };
}

function answersTable(lab: Lab): Table {
  const query = queryOf(lab);
  return {
    name: "answers",
    title: `Answers of one token (${QUERY_NAMES[query]})`,
    columns: [
      "task",
      "item",
      "question",
      "right by the question",
      "right by the instruction",
      ...Object.keys(METHODS),
    ],
    rows: testedOf(lab, query, tasksOf(lab, query, lab.tasks)).flatMap(({ task, result }) => {
      const { own, other } = overriddenItems(lab, task, "test");
      return other.map(({ input, outputs, question = QUESTION }, i) => [
        task.name,
        input,
        question,
        own[i]!.outputs.join(" | "),
        outputs.join(" | "),
        ...Object.values(METHODS).map((pick) => JSON.stringify(pick(result).other.answers[i]!)),
      ]);
    }),
  };
}

function controlsTable(lab: Lab): Table {
  const present = OVERRIDING_CONTROLS.filter((control) =>
    queriesOf(lab).some((query) => controlHits(lab, testedOf(lab, query), control)),
  );
  return {
    name: "controls",
    title: "Answered as the instruction says, under other vectors in the same place",
    columns: ["query", "the instruction's vector", ...present.map((control) => CONTROL_NAMES[control])],
    rows: queriesOf(lab).map((query) => {
      const tested = testedOf(lab, query);
      const others = present.map((control) => controlHits(lab, tested, control));
      return [
        QUERY_NAMES[query],
        accuracy(hitsOf(lab, tested, METHODS.patch, "other")),
        ...others.map((hits) => (hits ? accuracy(hits) : "–")),
      ];
    }),
  };
}

/** By the instruction's task; undefined where the control is not there for all. */
function controlHits(lab: Lab, tested: readonly Tested[], control: OverridingControl): Hits | undefined {
  return tested.every(({ result }) => result.controls[control] !== undefined)
    ? hitsOf(lab, tested, ({ controls }) => controls[control]!, "other")
    : undefined;
}

/** The claim's own case: pictures, where there are any. */
function queryOf(lab: Lab): Modality {
  const widest = widestQuery(lab);
  return queriesOf(lab).includes(widest) ? widest : "text";
}

function queriesOf(lab: Lab): Modality[] {
  return (["text", "image"] as const).filter((query) => tasksOf(lab, query).length > 0);
}

function tasksOf(lab: Lab, query: Modality, tasks = lab.tasksInMeans): Task[] {
  return tasksWith(lab, { specification: "instruction", query }, tasks);
}

function namesOf(lab: Lab): string {
  return lab.tasksInMeans.map(({ name }) => name).join(", ");
}
