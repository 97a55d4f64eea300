import type { Task } from "xpatch";
import {
  chosenEntityLayer,
  ENTITY_SETUP,
  type EntityTestResult,
  entitySweep,
  entityTest,
  WAYS,
  type Way,
} from "./cells/entity.ts";
import { CHOSEN_NOTE, tasksWith } from "./cells/layer-sweep.ts";
import { namingCells, namingTable, type PictureAnswers } from "./cells/naming.ts";
import { SPREAD_NOTE } from "./cells/spread.ts";
import { validationCells } from "./cells/validation.ts";
import { type AskedTask, constantAnswers } from "./framework/constants.ts";
import { aboveControl, difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { seedsOf } from "./framework/prompts.ts";
import { constantReferences } from "./framework/references.ts";
import { judged } from "./framework/rule.ts";
import { type Answered, beside, taskHits } from "./framework/scored.ts";
import { withoutPlaces } from "./framework/stacks.ts";
import { type BarsFigure, type LinesFigure, pointOf } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy, accuracyDifference, type Hits } from "./statistics/accuracy.ts";

const WAY_NAMES: Readonly<Record<Way, string>> = {
  prompt: "behind text examples",
  patch: "under the task vector",
};

/** What stands at the picture's last token, or in its place. */
const STATES = {
  picture: "the picture as it is",
  entity: "its name's residual stream",
  name: "the name in its place",
} as const;

const CONTROLS = {
  another: "another item's name's",
  meanName: "mean of the names'",
  random: "random vector of the same norm",
} as const;

type State = keyof typeof STATES | keyof typeof CONTROLS;

export const entity: Experiment = {
  name: "entity",
  title: "Which hop fails: from the picture to the entity, or from the entity to the answer",
  claim:
    "What is lost with a picture is the entity, not the task: with the residual stream of the written name at the picture's last token, the examples and the task vector do what they do with the written name.",
  untestable: (lab) =>
    inMeans(lab).length > 0 ? withoutPlaces(lab) : "the model takes no pictures, or no task has them",
  cells: (lab) => {
    const tasks = tasksWith(lab, ENTITY_SETUP).map(({ name }) => name);
    return [
      ...validationCells(lab),
      ...tasks.map((task) => entitySweep({ task, seed: 0 })),
      ...tasks.flatMap((task) =>
        WAYS.flatMap((way) => seedsFor(lab).map((seed) => entityTest({ task, way, seed }))),
      ),
      ...namingCells(lab),
    ];
  },
  report(lab): Findings {
    return {
      verdict: verdictOf(lab),
      text: [
        "The same question is asked about a picture and about its name, with the same examples before it or with the same task vector at its last token. The residual stream at the name's last token, behind one layer, is put at the picture's last token behind that layer; nothing else of the picture is changed.",
        "What this wins is lost between the picture and the entity; what then still lacks of the written name's accuracy is lost elsewhere. Where a model was trained to make pictures' residual stream that of their names, the layers of that training are where the two are alike by construction.",
        "The layer was chosen on validation items under the task vector; the test items were scored once.",
      ],
      figures: [statesFigure(lab), layersFigure(lab)],
      tables: [
        statesTable(lab, "states", "Accuracy on test items", inMeans(lab)),
        byTaskTable(lab),
        ...namingTable(
          lab,
          ["task told", "at the picture's last token"],
          WAYS.flatMap((way) =>
            (["picture", "entity"] as const).map((state) => ({
              head: [WAY_NAMES[way], STATES[state]],
              answers: answersOf(lab, way, state),
            })),
          ),
        ),
      ],
      controls: [controlsTable(lab)],
    };
  },
};

function inMeans(lab: Lab): Task[] {
  return tasksWith(lab, ENTITY_SETUP, lab.tasksInMeans);
}

/** Prompts cost most of all, with pictures and with names. */
function seedsFor(lab: Lab): number[] {
  return seedsOf(lab, "text", lab.options.promptSeeds);
}

function resultsOf(lab: Lab, way: Way, task: Task): EntityTestResult[] {
  return seedsFor(lab).map((seed) => lab.result(entityTest({ task: task.name, way, seed })));
}

function answersOf(
  lab: Lab,
  way: Way,
  state: State,
  tasks: readonly Task[] = inMeans(lab),
): PictureAnswers[] {
  return tasks.map((task) => ({
    task,
    items: lab.items(task, "test"),
    seeds: resultsOf(lab, way, task).map((result): Answered => result[state]),
  }));
}

function hitsOf(...given: Parameters<typeof answersOf>): Hits {
  return answersOf(...given).map(({ items, seeds }) => taskHits(items, seeds));
}

/** Answers that are right for the item whose name's residual stream was put there. */
function anotherAskedHits(lab: Lab, way: Way): Hits {
  return inMeans(lab).map((task) =>
    taskHits(
      lab.items(task, "test"),
      resultsOf(lab, way, task).map(({ anotherAsked }) => anotherAsked),
    ),
  );
}

/** What was asked about, and answered with the name's residual stream. */
function askedOf(lab: Lab, way: Way): AskedTask[] {
  return answersOf(lab, way, "entity").map(({ task, items }) => ({
    task,
    items,
    answers: resultsOf(lab, way, task).flatMap(({ entity: { answers } }) => answers),
  }));
}

function verdictOf(lab: Lab): Verdict {
  const helps = (way: Way) => {
    const hits = hitsOf(lab, way, "entity");
    const { frequent, constant } = constantAnswers(askedOf(lab, way), lab.options);
    return {
      picture: difference(hits, hitsOf(lab, way, "picture")),
      another: aboveControl(hits, hitsOf(lab, way, "another")),
      meanName: aboveControl(hits, hitsOf(lab, way, "meanName")),
      random: aboveControl(hits, hitsOf(lab, way, "random")),
      frequent: aboveControl(hits, frequent),
      constant: aboveControl(hits, constant),
    };
  };
  const shown = WAYS.map((way) => {
    const parts = (["picture", "entity", "name"] as const).map(
      (state) => `${STATES[state]} ${showEstimate(accuracy(hitsOf(lab, way, state)))}`,
    );
    return `${WAY_NAMES[way]}: ${parts.join(", ")}`;
  });
  return judged(
    RULES.entity,
    {
      prompt: helps("prompt"),
      patch: helps("patch"),
      whole: {
        name: WAYS.map((way) =>
          difference(hitsOf(lab, way, "entity"), hitsOf(lab, way, "name"), WAY_NAMES[way]),
        ),
      },
    },
    shown.join(". "),
  );
}

function statesFigure(lab: Lab): BarsFigure {
  const series = { ...STATES, ...CONTROLS };
  return {
    kind: "bars",
    name: "states",
    title: "Accuracy by what stands at the picture's last token",
    caption: `Mean over ${taskNames(lab)} on test items.`,
    x: "task told",
    y: "accuracy",
    rows: WAYS.flatMap((way) =>
      Object.entries(series).map(([state, name]) => {
        const hits = hitsOf(lab, way, state as State);
        return { x: WAY_NAMES[way], series: name, ...pointOf(accuracy(hits)) };
      }),
    ),
    references: WAYS.flatMap((way) =>
      constantReferences(lab.options, askedOf(lab, way), { x: WAY_NAMES[way] }),
    ),
  };
}

function layersFigure(lab: Lab): LinesFigure {
  const found = inMeans(lab).map((task) => ({
    items: lab.items(task, "validation"),
    result: lab.result(entitySweep({ task: task.name, seed: 0 })),
  }));
  const chosen = lab.options.layerBy === "mean" ? chosenEntityLayer(lab, inMeans(lab)[0]!) : undefined;
  return {
    kind: "lines",
    name: "layers",
    title: "Accuracy by the layer of the name's residual stream",
    caption: `Under the task vector, mean over ${taskNames(lab)} on validation items, one seed. ${SPREAD_NOTE}`,
    chosen: CHOSEN_NOTE,
    x: "layer",
    y: "accuracy",
    rows: found[0]!.result.layers.map((layer, l) => {
      const hits = found.map(({ items, result }) => taskHits(items, [result.patched[l]!]));
      return { series: STATES.entity, x: layer, ...pointOf(accuracy(hits)), chosen: layer === chosen };
    }),
    references: constantReferences(
      lab.options,
      inMeans(lab).map((task) => ({ task, items: lab.items(task, "validation") })),
    ),
  };
}

const COLUMNS = [
  "task told",
  "layer",
  "majority",
  ...Object.values(STATES),
  "won by the name's residual stream",
  "still lacking",
  "distinct answers",
];

function statesTable(lab: Lab, name: string, title: string, tasks: readonly Task[]): Table {
  return {
    name,
    title: `${title}, mean over ${taskNames(lab)}`,
    columns: COLUMNS,
    rows: WAYS.map((way) => statesRow(lab, way, tasks)),
  };
}

function byTaskTable(lab: Lab): Table {
  return {
    name: "by-task",
    title: "The same by task",
    columns: ["task", ...COLUMNS],
    rows: tasksWith(lab, ENTITY_SETUP).flatMap((task) =>
      WAYS.map((way) => [task.name, ...statesRow(lab, way, [task])]),
    ),
  };
}

function statesRow(lab: Lab, way: Way, tasks: readonly Task[]) {
  const hits = (state: State) => hitsOf(lab, way, state, tasks);
  const { majority, distinct } = beside(tasks.map((task) => resultsOf(lab, way, task)[0]!.entity));
  const layers = tasks.flatMap((task) => resultsOf(lab, way, task).map(({ layer }) => layer));
  return [
    WAY_NAMES[way],
    [...new Set(layers)].join(", "),
    majority,
    ...(Object.keys(STATES) as (keyof typeof STATES)[]).map((state) => accuracy(hits(state))),
    accuracyDifference(hits("entity"), hits("picture")),
    accuracyDifference(hits("name"), hits("entity")),
    distinct,
  ];
}

function controlsTable(lab: Lab): Table {
  return {
    name: "controls",
    title: "Other residual streams at the picture's last token, in the same layer",
    columns: [
      "task told",
      "residual stream",
      "majority",
      "accuracy",
      "its name's less this",
      "right for the item put there",
      "distinct answers",
    ],
    rows: WAYS.flatMap((way) =>
      (Object.keys(CONTROLS) as (keyof typeof CONTROLS)[]).map((control) => {
        const hits = hitsOf(lab, way, control);
        const { majority, distinct } = beside(
          inMeans(lab).map((task) => resultsOf(lab, way, task)[0]![control]),
        );
        return [
          WAY_NAMES[way],
          CONTROLS[control],
          majority,
          accuracy(hits),
          accuracyDifference(hitsOf(lab, way, "entity"), hits),
          control === "another" ? accuracy(anotherAskedHits(lab, way)) : "–",
          distinct,
        ];
      }),
    ),
  };
}

function taskNames(lab: Lab): string {
  return inMeans(lab)
    .map(({ name }) => name)
    .join(", ");
}
