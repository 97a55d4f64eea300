import type { SpecificationKind, Task } from "xpatch";
import { type Asked, densePatch, densePrompt, describedItems, givenAway } from "./cells/dense-text.ts";
import { setupsOf, tasksWith } from "./cells/layer-sweep.ts";
import {
  aboveAllControls,
  bareHits,
  CONTROL_NAMES,
  CONTROLS,
  controlCells,
  controlHits,
  patchedHits,
  type TestedTask,
} from "./cells/test-answers.ts";
import { validationCells } from "./cells/validation.ts";
import { difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { SPECIFICATION_NAMES, seedsOf } from "./framework/prompts.ts";
import { constantReferences } from "./framework/references.ts";
import { judged } from "./framework/rule.ts";
import { taskHits } from "./framework/scored.ts";
import { type BarsFigure, pointOf } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy, accuracyDifference, type Hits } from "./statistics/accuracy.ts";
import { mean } from "./statistics/resample.ts";

const ASKED = ["description", "name"] as const satisfies readonly Asked[];

/** The specification of the claim, and the only one whose prompts are made for names as well. */
const CLAIMED = "text";

export const denseText: Experiment = {
  name: "dense-text",
  title: "Queries that describe",
  claim:
    "The task vector of text examples, which name things, patched into a query that describes one in some sentences, makes the model do the task, better than the same examples in the prompt.",
  onlyInFull: true,
  untestable: (lab) =>
    describedTasks(lab, CLAIMED).length > 0
      ? undefined
      : "no task has test items with a text whose answer is not in it (docs/tasks.md)",
  cells: (lab) => [
    ...validationCells(lab),
    ...describedTasks(lab, CLAIMED).flatMap(({ name }) => controlCells(lab, name)),
    ...specificationsOf(lab).flatMap((specification) =>
      describedTasks(lab, specification).flatMap(({ name: task }) =>
        ASKED.flatMap((asked) => [
          densePatch({ task, specification, asked }),
          ...promptSeeds(lab, specification, asked).map((seed) =>
            densePrompt({ task, specification, asked, seed }),
          ),
        ]),
      ),
    ),
  ],
  report(lab): Findings {
    return {
      verdict: verdictOf(lab),
      text: [
        "Test items that have a text are asked about by it in place of their name; examples name theirs as ever, or show or instruct. The same items asked about by name say what describing costs.",
        "Vectors are those of the other experiments, and so are the layers, which validation items chose for queries by name: nothing was chosen for descriptions.",
      ],
      figures: [methodsFigure(lab)],
      tables: [methodsTable(lab), answersTable(lab)],
      controls: [controlsTable(lab)],
    };
  },
};

function verdictOf(lab: Lab): Verdict {
  const { tested, noContext, prompt, patch } = hitsOf(lab, CLAIMED, "description");
  const named = hitsOf(lab, CLAIMED, "name");
  const shown = Object.entries({
    patch,
    prompt: prompt!,
    "no context": noContext,
    "the same asked about by name: patch": named.patch,
    "prompt by name": named.prompt!,
  }).map(([name, hits]) => `${name} ${showEstimate(accuracy(hits))}`);
  return judged(
    RULES["dense-text"],
    { works: aboveAllControls(lab, tested), better: { prompt: difference(patch, prompt!) } },
    shown.join(", "),
  );
}

function hitsOf(lab: Lab, specification: SpecificationKind, asked: Asked) {
  const tested = describedTasks(lab, specification).map(
    (task): TestedTask => ({
      task,
      items: describedItems(lab, task),
      result: lab.result(densePatch({ task: task.name, specification, asked })),
    }),
  );
  const seeds = promptSeeds(lab, specification, asked);
  const prompt: Hits | undefined =
    seeds.length === 0
      ? undefined
      : tested.map(({ task: { name: task }, items }) =>
          taskHits(
            items,
            seeds.map((seed) => lab.result(densePrompt({ task, specification, asked, seed }))),
          ),
        );
  return { tested, noContext: bareHits(tested), prompt, patch: patchedHits(tested) };
}

function methodsFigure(lab: Lab): BarsFigure {
  const rows = specificationsOf(lab).flatMap((specification) =>
    ASKED.flatMap((asked) => {
      const { noContext, prompt, patch } = hitsOf(lab, specification, asked);
      const methods = { "no context": noContext, ...(prompt && { prompt }), patch };
      return Object.entries(methods).map(([series, hits]) => {
        return {
          panel: `asked by ${asked}`,
          x: SPECIFICATION_NAMES[specification],
          series,
          ...pointOf(accuracy(hits)),
        };
      });
    }),
  );
  return {
    kind: "bars",
    name: "methods",
    title: "Accuracy where items are described, and where they are named",
    caption: `Mean over ${namesOf(lab)} on the test items that are described. By name only text examples were put in prompts.`,
    x: "specification",
    y: "accuracy",
    rows,
    references: specificationsOf(lab).flatMap((specification) =>
      ASKED.flatMap((asked) => {
        const tested = hitsOf(lab, specification, asked).tested.map(({ result, ...one }) => ({
          ...one,
          answers: result.patched.flatMap(({ answers }) => answers),
        }));
        return constantReferences(lab.options, tested, {
          panel: `asked by ${asked}`,
          x: SPECIFICATION_NAMES[specification],
        });
      }),
    ),
  };
}

function methodsTable(lab: Lab): Table {
  return {
    name: "methods",
    title: `Accuracy on described test items, mean over ${namesOf(lab)}`,
    columns: [
      "asked by",
      "specification",
      "layer",
      "majority",
      "no context",
      "prompt",
      "patch",
      "patch − prompt",
      "left out, text has the answer",
    ],
    rows: specificationsOf(lab).flatMap((specification) =>
      ASKED.map((asked) => {
        const { tested, noContext, prompt, patch } = hitsOf(lab, specification, asked);
        const layers = [...new Set(tested.map(({ result }) => result.layer))];
        return [
          asked,
          SPECIFICATION_NAMES[specification],
          layers.join(", "),
          mean(tested.map(({ result }) => result.noContext.majority)),
          accuracy(noContext),
          prompt ? accuracy(prompt) : "–",
          accuracy(patch),
          prompt ? accuracyDifference(patch, prompt) : "–",
          tested.reduce((sum, { task }) => sum + givenAway(lab, task), 0),
        ];
      }),
    ),
  };
}

/** Every answer to the claim's own case, seed 0. */
function answersTable(lab: Lab): Table {
  const asked = { specification: CLAIMED, asked: "description" } as const;
  return {
    name: "answers",
    title: "Answers to descriptions (one token; text examples, seed 0)",
    columns: ["task", "item", "right", "no context", "prompt", "patch"],
    rows: hitsOf(lab, CLAIMED, "description").tested.flatMap(({ task: { name: task }, items, result }) => {
      const prompt = lab.result(densePrompt({ ...asked, task, seed: 0 }));
      return items.map(({ input, outputs }, i) => [
        task,
        input,
        outputs.join(" | "),
        JSON.stringify(result.noContext.answers[i]!),
        JSON.stringify(prompt.answers[i]!),
        JSON.stringify(result.patched[0]!.answers[i]!),
      ]);
    }),
  };
}

function controlsTable(lab: Lab): Table {
  const specifications = specificationsOf(lab);
  const testedOf = (specification: SpecificationKind) => hitsOf(lab, specification, "description").tested;
  const present = CONTROLS.filter((control) => controlHits(testedOf(CLAIMED), control));
  return {
    name: "controls",
    title: "Other vectors in the same place, queries by description",
    columns: ["specification", "the task's own vector", ...present.map((control) => CONTROL_NAMES[control])],
    rows: specifications.map((specification) => {
      const tested = testedOf(specification);
      const others = present.map((control) => controlHits(tested, control));
      return [
        SPECIFICATION_NAMES[specification],
        accuracy(patchedHits(tested)),
        ...others.map((hits) => (hits ? accuracy(hits) : "–")),
      ];
    }),
  };
}

/** Tasks that are told so and have items described; those of the means, or all if none of them has. */
function describedTasks(lab: Lab, specification: SpecificationKind): Task[] {
  const described = (tasks: readonly Task[]) =>
    tasksWith(lab, { specification, query: "text" }, tasks).filter(
      (task) => describedItems(lab, task).length > 0,
    );
  const inside = described(lab.tasksInMeans);
  return inside.length > 0 ? inside : described(lab.tasks);
}

function specificationsOf(lab: Lab): SpecificationKind[] {
  const all = setupsOf(lab).filter(({ query }) => query === "text");
  return all
    .map(({ specification }) => specification)
    .filter((specification) => describedTasks(lab, specification).length > 0);
}

/** Prompts of the claim's own difference vary as its vectors do. */
function promptSeeds(lab: Lab, specification: SpecificationKind, asked: Asked): number[] {
  if (specification !== CLAIMED && asked === "name") return [];
  const { seeds, promptSeeds: few } = lab.options;
  return seedsOf(lab, specification, specification === CLAIMED && asked === "description" ? seeds : few);
}

function namesOf(lab: Lab): string {
  return describedTasks(lab, CLAIMED)
    .map(({ name }) => name)
    .join(", ");
}
