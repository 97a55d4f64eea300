import { PAPER_TEMPLATE, SPACED_TEMPLATE } from "xpatch";
import {
  accuracyByLayer,
  CHOSEN_NOTE,
  layerSweep,
  type Setup,
  sharedLayer,
  tasksWith,
} from "./cells/layer-sweep.ts";
import { OTHER_TEMPLATE } from "./cells/task-vectors.ts";
import {
  aboveAllControls,
  CONTROL_NAMES,
  CONTROLS,
  controlHits,
  patchedHits,
  testedTasks,
  testPatch,
  testPrompt,
} from "./cells/test-answers.ts";
import { CROSS_MODAL, crossModalVerdict, hitsOf, promptSeeds } from "./cross-modal.ts";
import { difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES, widestQuery } from "./framework/prompts.ts";
import { constantReferences } from "./framework/references.ts";
import { type Contrast, judged } from "./framework/rule.ts";
import { beside } from "./framework/scored.ts";
import { type LinesFigure, pointOf } from "./report/figure.ts";
import type { Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy, accuracyDifference } from "./statistics/accuracy.ts";

/** The project's, the paper's, and one that shares no word with them. */
const TEMPLATES = [SPACED_TEMPLATE, PAPER_TEMPLATE, OTHER_TEMPLATE];

export const templates: Experiment = {
  name: "templates",
  title: "The same under other templates",
  claim: "That the task vector of text examples works does not hang on how examples and queries are written.",
  cells: (lab) =>
    templatesOf(lab).flatMap((template) => {
      const setup = setupOf(lab, template);
      // Tasks outside of the means decide nothing.
      const tasks = inMeans(lab).map(({ name }) => name);
      return [
        ...tasks.map((task) => layerSweep({ ...setup, task })),
        ...tasks.flatMap((task) => [
          testPatch({ ...setup, task }),
          ...promptSeeds(lab, setup).map((seed) => testPrompt({ ...setup, task, seed })),
        ]),
      ];
    }),
  report(lab): Findings {
    const outcomes = templatesOf(lab).map((template) => crossModalVerdict(lab, setupOf(lab, template)));
    const same = new Set(outcomes.map(({ outcome }) => outcome)).size === 1;
    return {
      verdict: verdictOf(lab),
      text: [
        "Vectors, queries and prompts are made anew under each template, and each has the layer that validation items choose for it.",
        `By the rule of cross-modal (${QUERY_NAMES[widestQuery(lab)]}) the outcome is ${same ? "the same" : "not the same"} under all templates: ${templatesOf(
          lab,
        )
          .map((template, i) => `${shown(template)} ${outcomes[i]!.outcome}`)
          .join("; ")}.`,
      ],
      figures: [layersFigure(lab)],
      tables: [methodsTable(lab, outcomes)],
      controls: [controlsTable(lab)],
    };
  },
};

/** The run's own first. */
function templatesOf(lab: Lab): string[] {
  return [...new Set([lab.options.template, ...TEMPLATES])];
}

/** Text examples and the widest query. What the run's own template gives is not computed again. */
function setupOf(lab: Lab, template: string): Setup {
  const setup = { ...CROSS_MODAL, query: widestQuery(lab) };
  return template === lab.options.template ? setup : { ...setup, template };
}

function inMeans(lab: Lab) {
  return tasksWith(lab, setupOf(lab, lab.options.template), lab.tasksInMeans);
}

/** Each template's name, and what was found under it. */
function testedUnder(lab: Lab) {
  return templatesOf(lab).map((template) => {
    const setup = setupOf(lab, template);
    return { name: shown(template), setup, tested: testedTasks(lab, inMeans(lab), setup) };
  });
}

function verdictOf(lab: Lab): Verdict {
  const [own, ...others] = testedUnder(lab);
  type Contrasts = ReturnType<typeof aboveAllControls>;
  const joined: Record<string, Contrast[]> = {};
  for (const { name, tested } of [own!, ...others]) {
    for (const [key, list] of Object.entries(aboveAllControls(lab, tested))) {
      joined[key] = [...(joined[key] ?? []), ...list.map(({ at }) => ({ at, of: name }))];
    }
  }
  return judged(RULES.templates, {
    works: joined as Contrasts,
    asWell: {
      own: others.map(({ name, tested }) => difference(patchedHits(tested), patchedHits(own!.tested), name)),
    },
  });
}

function layersFigure(lab: Lab): LinesFigure {
  return {
    kind: "lines",
    name: "layers",
    title: "Accuracy by patched layer",
    caption: `${QUERY_NAMES[widestQuery(lab)]}, vectors of text examples, mean over ${taskNames(lab)} on validation items.`,
    chosen: CHOSEN_NOTE,
    x: "layer",
    y: "accuracy",
    rows: testedUnder(lab).flatMap(({ name, setup }) => {
      const chosen = sharedLayer(lab, setup);
      return accuracyByLayer(lab, setup, inMeans(lab)).map(({ layer, accuracy: value }) => ({
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

function methodsTable(lab: Lab, outcomes: readonly Verdict[]): Table {
  return {
    name: "methods",
    title: `Accuracy on test items, ${QUERY_NAMES[widestQuery(lab)]}, mean over ${taskNames(lab)}`,
    columns: [
      "template",
      "layer",
      "majority",
      "no context",
      "prompt",
      "patch",
      "patch − prompt",
      "by the rule of cross-modal",
      "distinct answers",
    ],
    rows: testedUnder(lab).map(({ name, setup, tested }, i) => {
      const { noContext, prompt, patch } = hitsOf(lab, setup, inMeans(lab));
      return [
        name,
        [...new Set(tested.map(({ result }) => result.layer))].join(", "),
        beside(tested.map(({ result }) => result.noContext)).majority,
        accuracy(noContext),
        accuracy(prompt),
        accuracy(patch),
        accuracyDifference(patch, prompt),
        outcomes[i]!.outcome,
        beside(tested.map(({ result }) => result.patched[0]!)).distinct,
      ];
    }),
  };
}

function controlsTable(lab: Lab): Table {
  const all = testedUnder(lab);
  const present = CONTROLS.filter((control) => all.every(({ tested }) => controlHits(tested, control)));
  return {
    name: "controls",
    title: "Other vectors in the same place",
    columns: [
      "template",
      "the task's own vector",
      ...present.map((control) => CONTROL_NAMES[control]),
      "majority",
      "distinct answers (own)",
    ],
    rows: all.map(({ name, tested }) => [
      name,
      accuracy(patchedHits(tested)),
      ...present.map((control) => accuracy(controlHits(tested, control)!)),
      beside(tested.map(({ result }) => result.noContext)).majority,
      beside(tested.map(({ result }) => result.patched[0]!)).distinct,
    ]),
  };
}

function shown(template: string): string {
  return JSON.stringify(template.trimEnd());
}

function taskNames(lab: Lab): string {
  return inMeans(lab)
    .map(({ name }) => name)
    .join(", ");
}
