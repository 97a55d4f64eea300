import type { Task } from "xpatch";
import { isCorrect, isWholeAnswer } from "xpatch";
import { type Setup, setupsOf, tasksWith } from "./cells/layer-sweep.ts";
import {
  LONG_CONTROLS,
  type LongAnswers,
  type LongControl,
  type LongPatchResult,
  longPatch,
  longPrompt,
  MEASURES,
  type Measure,
  tokensOf,
} from "./cells/long-answers.ts";
import { validationCells } from "./cells/validation.ts";
import { type AskedTask, constantAnswers } from "./framework/constants.ts";
import { aboveControl, difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES, seedsOf, widestQuery } from "./framework/prompts.ts";
import { constantReferences } from "./framework/references.ts";
import { judged } from "./framework/rule.ts";
import { taskHits } from "./framework/scored.ts";
import { type BarsFigure, pointOf } from "./report/figure.ts";
import { showEstimate, type Table, type TableCell } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy, accuracyDifference, type Hits } from "./statistics/accuracy.ts";

const MEASURE_NAMES: Readonly<Record<Measure, string>> = {
  whole: "the whole answer",
  prefix: "the answer, prefix rule",
  firstToken: "its first token, prefix rule",
};

const CONTROL_NAMES: Readonly<Record<LongControl, string>> = {
  nearestTask: "vector of the nearest task",
  anotherTask: "another task's vector",
  random: "random vector of the same norm",
};

export const longAnswers: Experiment = {
  name: "long-answers",
  title: "Answers of several tokens",
  claim:
    "A task vector of text examples, patched into the query's last token alone, brings the whole answer, and not only the token that it begins with.",
  onlyInFull: true,
  cells: (lab) => [
    ...validationCells(lab),
    ...setups(lab).flatMap((setup) =>
      tasksWith(lab, setup).flatMap(({ name: task }) => [
        longPatch({ ...setup, task }),
        ...promptSeeds(lab).map((seed) => longPrompt({ ...setup, task, seed })),
      ]),
    ),
  ],
  report(lab): Findings {
    return {
      verdict: verdictOf(lab),
      text: [
        "Answers are greedy, up to a line break or to one token more than the task's longest right answer takes. They are scored three ways: the whole answer is a right one (but for case, quotation marks and punctuation at the end); the paper's rule for the whole answer; and the paper's rule for the first token, as in the other experiments.",
        "Layers are those that validation items chose by one token. Only the query's last token is patched: later tokens see the patch through its keys and values alone.",
      ],
      figures: [measuresFigure(lab)],
      tables: [methodsTable(lab), lengthsTable(lab), answersTable(lab)],
      controls: [controlsTable(lab)],
    };
  },
};

interface Tested {
  readonly task: Task;
  readonly patch: LongPatchResult;
  readonly prompts: readonly LongAnswers[];
}

function testedOf(lab: Lab, setup: Setup, tasks = tasksWith(lab, setup, lab.tasksInMeans)): Tested[] {
  return tasks.map((task) => ({
    task,
    patch: lab.result(longPatch({ ...setup, task: task.name })),
    prompts: promptSeeds(lab).map((seed) => lab.result(longPrompt({ ...setup, task: task.name, seed }))),
  }));
}

function hitsOf(
  lab: Lab,
  tested: readonly Tested[],
  pick: (one: Tested) => readonly LongAnswers[],
  measure: Measure,
): Hits {
  return tested.map((one) =>
    taskHits(
      lab.items(one.task, "test"),
      pick(one).map((answers) => ({ hits: answers[measure] })),
    ),
  );
}

/** What was asked about, and answered under the patch. */
function askedOf(lab: Lab, tested: readonly Tested[]): AskedTask[] {
  return tested.map(({ task, patch: { patched } }) => ({
    task,
    items: lab.items(task, "test"),
    answers: patched.flatMap(({ answers }) => answers),
  }));
}

const METHODS = {
  "no context": ({ patch }: Tested) => [patch.noContext],
  prompt: ({ prompts }: Tested) => prompts,
  patch: ({ patch }: Tested) => patch.patched,
} as const;

function verdictOf(lab: Lab): Verdict {
  const tested = testedOf(lab, widest(lab));
  const by = (method: keyof typeof METHODS, measure: Measure) =>
    hitsOf(lab, tested, METHODS[method], measure);
  const patch = by("patch", "whole");
  const control = (name: LongControl) => controlHits(lab, tested, name);
  const { frequent, constant } = constantAnswers(askedOf(lab, tested), lab.options, isWholeAnswer);
  const first = by("patch", "firstToken");
  const shown = Object.entries({
    "patch, whole answers": patch,
    "first tokens": first,
    "prompt, whole answers": by("prompt", "whole"),
    "first tokens of the prompt": by("prompt", "firstToken"),
  }).map(([name, hits]) => `${name} ${showEstimate(accuracy(hits))}`);
  return judged(
    RULES["long-answers"],
    {
      works: {
        noContext: aboveControl(patch, by("no context", "whole")),
        nearestTask: aboveControl(patch, control("nearestTask")),
        anotherTask: aboveControl(patch, control("anotherTask")),
        random: aboveControl(patch, control("random")),
        frequent: aboveControl(patch, frequent),
        constant: aboveControl(patch, constant),
      },
      lasts: { first: difference(patch, first) },
    },
    `${QUERY_NAMES[widestQuery(lab)]}: ${shown.join(", ")}`,
  );
}

function measuresFigure(lab: Lab): BarsFigure {
  return {
    kind: "bars",
    name: "measures",
    title: "Whole answers and first tokens",
    caption: `Text examples, mean over ${namesOf(lab)} on test items.`,
    x: "what has to be right",
    y: "accuracy",
    rows: setups(lab, lab.tasksInMeans).flatMap((setup) => {
      const tested = testedOf(lab, setup);
      return MEASURES.flatMap((measure) =>
        Object.entries(METHODS).map(([series, pick]) => {
          return {
            panel: QUERY_NAMES[setup.query],
            x: MEASURE_NAMES[measure],
            series,
            ...pointOf(accuracy(hitsOf(lab, tested, pick, measure))),
          };
        }),
      );
    }),
    references: setups(lab, lab.tasksInMeans).flatMap((setup) => {
      const asked = askedOf(lab, testedOf(lab, setup));
      return MEASURES.flatMap((measure) =>
        constantReferences(
          lab.options,
          asked,
          { panel: QUERY_NAMES[setup.query], x: MEASURE_NAMES[measure] },
          measure === "whole" ? isWholeAnswer : isCorrect,
        ),
      );
    }),
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
      "what has to be right",
      ...Object.keys(METHODS),
      "patch − prompt",
      "most tokens",
    ],
    rows: setups(lab).flatMap((setup) => {
      const each = tasksWith(lab, setup).map((task) => [task.name, testedOf(lab, setup, [task])] as const);
      const inMeans = testedOf(lab, setup);
      const all = inMeans.length > 0 ? [["mean", inMeans] as const, ...each] : each;
      return all.flatMap(([name, tested]) =>
        MEASURES.map((measure) => {
          const hits = Object.values(METHODS).map((pick) => hitsOf(lab, tested, pick, measure));
          return [
            QUERY_NAMES[setup.query],
            name,
            [...new Set(tested.map(({ patch }) => patch.layer))].join(", "),
            MEASURE_NAMES[measure],
            ...hits.map((one) => accuracy(one)),
            accuracyDifference(hits[2]!, hits[1]!),
            [...new Set(tested.map(({ patch }) => patch.limit))].join(", "),
          ];
        }),
      );
    }),
  };
}

/** By how many tokens the first right answer takes. */
function lengthsTable(lab: Lab): Table {
  const groups = [
    ["1", (n: number) => n <= 1],
    ["2", (n: number) => n === 2],
    ["3 and more", (n: number) => n > 2],
  ] as const;
  return {
    name: "lengths",
    title: "Patched answers by the number of tokens of the right one, items of all tasks of the means",
    columns: ["query", "tokens", "the whole answer", "its first token", "prompt, the whole answer"],
    rows: setups(lab, lab.tasksInMeans).flatMap((setup) => {
      const tested = testedOf(lab, setup);
      return groups.flatMap(([name, belongs]): TableCell[][] => {
        const pooled = (pick: (one: Tested) => readonly LongAnswers[], measure: Measure): Hits => {
          const parts = tested.map((one) => {
            const items = lab.items(one.task, "test");
            const kept = [...items.keys()].filter((i) =>
              belongs(tokensOf(lab.model.tokenizer, items[i]!.outputs[0]!)),
            );
            return {
              inputs: kept.map((i) => items[i]!.input),
              seeds: pick(one).map((answers) => kept.map((i) => answers[measure][i]!).join("")),
            };
          });
          const seeds = parts[0]!.seeds.map((_, s) => parts.map((part) => part.seeds[s]!).join(""));
          return [{ inputs: parts.flatMap(({ inputs }) => inputs), seeds }];
        };
        const patch = pooled(METHODS.patch, "whole");
        if (patch[0]!.inputs.length === 0) return [];
        const others = [pooled(METHODS.patch, "firstToken"), pooled(METHODS.prompt, "whole")];
        return [[QUERY_NAMES[setup.query], name, ...[patch, ...others].map((hits) => accuracy(hits))]];
      });
    }),
  };
}

function answersTable(lab: Lab): Table {
  return {
    name: "answers",
    title: `Answers (${QUERY_NAMES[widestQuery(lab)]}, text examples, seed 0)`,
    columns: ["task", "item", "right", "no context", "prompt", "patch"],
    rows: testedOf(lab, widest(lab), tasksWith(lab, widest(lab))).flatMap(({ task, patch, prompts }) =>
      lab
        .items(task, "test")
        .map(({ input, outputs }, i) => [
          task.name,
          input,
          outputs.join(" | "),
          patch.noContext.answers[i]!,
          prompts[0]!.answers[i]!,
          patch.patched[0]!.answers[i]!,
        ]),
    ),
  };
}

function controlsTable(lab: Lab): Table {
  const present = LONG_CONTROLS.filter((control) =>
    setups(lab, lab.tasksInMeans).some((setup) => controlHits(lab, testedOf(lab, setup), control)),
  );
  return {
    name: "controls",
    title: "Whole answers under other vectors in the same place",
    columns: ["query", "the task's own vector", ...present.map((control) => CONTROL_NAMES[control])],
    rows: setups(lab, lab.tasksInMeans).map((setup) => {
      const tested = testedOf(lab, setup);
      const others = present.map((control) => controlHits(lab, tested, control));
      return [
        QUERY_NAMES[setup.query],
        accuracy(hitsOf(lab, tested, METHODS.patch, "whole")),
        ...others.map((hits) => (hits ? accuracy(hits) : "–")),
      ];
    }),
  };
}

/** Whole answers under a control; undefined where it is not there for all. */
function controlHits(lab: Lab, tested: readonly Tested[], control: LongControl): Hits | undefined {
  return tested.every(({ patch }) => patch.controls[control] !== undefined)
    ? hitsOf(lab, tested, ({ patch }) => [patch.controls[control]!], "whole")
    : undefined;
}

/** Vectors and prompts of text examples, into all queries. */
function setups(lab: Lab, tasks?: readonly Task[]): Setup[] {
  return setupsOf(lab, tasks).filter(({ specification }) => specification === "text");
}

function widest(lab: Lab): Setup {
  return { specification: "text", query: widestQuery(lab) };
}

function promptSeeds(lab: Lab): number[] {
  return seedsOf(lab, "text", lab.options.promptSeeds);
}

function namesOf(lab: Lab): string {
  return lab.tasksInMeans.map(({ name }) => name).join(", ");
}
