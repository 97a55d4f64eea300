import type { Task } from "xpatch";
import {
  ARMS,
  type ArmName,
  checkpoints,
  otherTask,
  projections,
  trained,
  untrained,
} from "./cells/fine-tuning.ts";
import { commonLayerCells, layerSweep } from "./cells/layer-sweep.ts";
import { testPrompt } from "./cells/test-answers.ts";
import { bareVectors, tuningVectors } from "./cells/tuning-vectors.ts";
import {
  armNames,
  askedOf,
  endHits,
  FEW,
  queriesOf,
  resultOf,
  SETUP,
  sizesOf,
  stepHits,
  stepsOf,
  tunedTasks,
  tuningSeeds,
  UNTRAINED,
  untrainedHits,
} from "./findings/fine-tuning.ts";
import type { Cell } from "./framework/cell.ts";
import { constantAnswers } from "./framework/constants.ts";
import { aboveControl, difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES } from "./framework/prompts.ts";
import { constantReferences } from "./framework/references.ts";
import { type Contrasts, judged } from "./framework/rule.ts";
import { taskHits } from "./framework/scored.ts";
import { type LinesFigure, pointOf } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy, accuracyDifference, type Hits } from "./statistics/accuracy.ts";
import { mean } from "./statistics/resample.ts";

export const fineTuning: Experiment = {
  name: "fine-tuning",
  title: "Fine-tuning from the task vector",
  claim:
    "With few labelled items, training that begins from their task vector, or has it added, does the task better than training without it.",
  onlyInFull: true,
  untestable(lab) {
    if (lab.model.config.encoder || seesAhead(lab)) return "the model is no causal decoder";
    if (projections(lab).length === 0)
      return "projections of queries and values are not known by their names";
    return tunedTasks(lab).length > 0
      ? undefined
      : "no task has two train items or more, which are what is trained on";
  },
  cells: (lab) => [
    ...layerCells(lab),
    ...tunedTasks(lab).flatMap((task) => [
      ...tuningSeeds(lab).map((seed) => bareVectors({ task: task.name, seed })),
      ...labelledOf(lab, task.name).flatMap((labelled) => [tuningVectors(labelled), untrained(labelled)]),
      ...forgotten(lab, task),
    ]),
    // All arms of the same labelled items one after the other.
    ...tunedTasks(lab).flatMap(({ name }) =>
      labelledOf(lab, name).flatMap((labelled) =>
        armNames().map((arm) => trained({ ...labelled, arm, steps: stepsOf(lab) })),
      ),
    ),
  ],
  report(lab): Findings {
    const images = queriesOf(lab).length > 1;
    return {
      verdict: verdictOf(lab),
      text: [
        `Trained are items of the split train, asked as text without context, for ${stepsOf(lab)} steps, on the tokens of their answers. The task vector is of the same labelled items, as text examples, so that no training knows a label that another does not; the layer is the one that validation items chose.`,
        `What is added at the query's last token is the task vector less the mean of bare queries there, so that the sum is near the task vector; a random vector has the norm of that. What is trained on text is asked about by ${images ? "text and by picture" : "text; there are no pictures"}. Forgetting is what an adapter takes from another task behind its text examples. A vector that is not added there changes nothing: it forgets nothing by construction.`,
        "Rates were not tuned: LoRA and vectors each have one, whatever they begin from.",
      ],
      figures: [examplesFigure(lab, "vector"), examplesFigure(lab, "LoRA"), stepsFigure(lab)],
      tables: [armsTable(lab), stepsTable(lab), byTaskTable(lab), answersTable(lab)],
      controls: [controlsTable(lab)],
    };
  },
};

/** Whether a token of a prompt attends to later ones, so that an answer would be seen where it is to be predicted. */
function seesAhead({ model }: Lab): boolean {
  const prompt = model.prompt("a b c");
  return model.network.stack.blocks.some(({ rule }) => rule(0, { prompt }).end > 1);
}

function labelledOf(lab: Lab, task: string) {
  return sizesOf(lab).flatMap((examples) => tuningSeeds(lab).map((seed) => ({ task, examples, seed })));
}

/** What the layer is chosen by. */
function layerCells(lab: Lab): Cell<unknown>[] {
  return lab.options.layerBy === "task"
    ? tunedTasks(lab).map(({ name: task }) => layerSweep({ ...SETUP, task }))
    : commonLayerCells(lab, SETUP);
}

function forgotten(lab: Lab, task: Task): Cell<unknown>[] {
  const other = otherTask(lab, task);
  return other ? [testPrompt({ ...SETUP, task: other.name, seed: 0 })] : [];
}

/** What the rule compares, of hits by arm. */
export function tuningContrasts(
  by: Readonly<
    Record<"vector-task" | "vector-zero" | "vector-random" | "lora" | "lora-added" | "lora-random", Hits>
  >,
  { frequent, constant }: { readonly frequent: Hits; readonly constant: Hits },
): Contrasts<(typeof RULES)["fine-tuning"]> {
  return {
    start: {
      zero: difference(by["vector-task"], by["vector-zero"]),
      random: aboveControl(by["vector-task"], by["vector-random"]),
      frequent: aboveControl(by["vector-task"], frequent),
      constant: aboveControl(by["vector-task"], constant),
    },
    lora: {
      without: difference(by["lora-added"], by.lora),
      random: aboveControl(by["lora-added"], by["lora-random"]),
      frequent: aboveControl(by["lora-added"], frequent),
      constant: aboveControl(by["lora-added"], constant),
    },
  };
}

function verdictOf(lab: Lab): Verdict {
  const names = armNames();
  const by = Object.fromEntries(names.map((arm) => [arm, endHits(lab, arm, FEW)])) as Record<ArmName, Hits>;
  const shown = [
    ...names.map((arm) => `${ARMS[arm].name} ${showEstimate(accuracy(by[arm]))}`),
    `${UNTRAINED.patch} ${showEstimate(accuracy(untrainedHits(lab, "patch", FEW)))}`,
  ];
  return judged(
    RULES["fine-tuning"],
    tuningContrasts(by, constantAnswers(askedOf(lab), lab.options)),
    `${FEW} labelled items, text queries: ${shown.join(", ")}`,
  );
}

function examplesFigure(lab: Lab, kind: "vector" | "LoRA"): LinesFigure {
  const arms = armNames().filter((arm) => ARMS[arm].name.startsWith(kind));
  return {
    kind: "lines",
    name: kind === "LoRA" ? "lora" : "vectors",
    title: `${kind === "LoRA" ? "LoRA" : "A vector"}, with the task vector and without, by labelled items`,
    caption: `Mean over ${namesOf(lab)} on test items, after ${stepsOf(lab)} steps.`,
    x: "log2 of labelled items",
    y: "accuracy",
    rows: queriesOf(lab).flatMap((query) =>
      sizesOf(lab).flatMap((examples) =>
        [
          ...arms.map((arm) => ({ series: ARMS[arm].name, hits: endHits(lab, arm, examples, query) })),
          { series: UNTRAINED.patch, hits: untrainedHits(lab, "patch", examples, query) },
        ].map(({ series, hits }) => ({
          panel: QUERY_NAMES[query],
          x: Math.log2(examples),
          series,
          ...pointOf(accuracy(hits)),
        })),
      ),
    ),
    references: queriesOf(lab).flatMap((query) =>
      constantReferences(lab.options, askedOf(lab, query), { panel: QUERY_NAMES[query] }),
    ),
  };
}

function stepsFigure(lab: Lab): LinesFigure {
  return {
    kind: "lines",
    name: "steps",
    title: `Accuracy in the course of training on ${FEW} labelled items`,
    caption: `Mean over ${namesOf(lab)} on test items, text queries.`,
    x: "step",
    y: "accuracy",
    rows: armNames().flatMap((arm) =>
      checkpoints(stepsOf(lab)).map((x, step) => ({
        panel: ARMS[arm].name.startsWith("LoRA") ? "LoRA" : "vector",
        x,
        series: ARMS[arm].name,
        ...pointOf(accuracy(stepHits(lab, arm, FEW, step))),
      })),
    ),
    references: constantReferences(lab.options, askedOf(lab)),
  };
}

function armsTable(lab: Lab): Table {
  const queries = queriesOf(lab);
  return {
    name: "arms",
    title: `Accuracy on test items after ${stepsOf(lab)} steps, mean over ${namesOf(lab)}`,
    columns: [
      "trained",
      "labelled items",
      ...queries.map((query) => QUERY_NAMES[query]),
      "text query − plain LoRA, or vector from zero",
      "another task behind its examples",
      "less without adapter",
    ],
    rows: armNames().flatMap((arm) =>
      sizesOf(lab).map((examples) => {
        const base = ARMS[arm].name.startsWith("LoRA") ? "lora" : "vector-zero";
        return [
          ARMS[arm].name,
          examples,
          ...queries.map((query) => accuracy(endHits(lab, arm, examples, query))),
          arm === base ? "–" : accuracyDifference(endHits(lab, arm, examples), endHits(lab, base, examples)),
          ...forgetting(lab, arm, examples),
        ];
      }),
    ),
  };
}

/** Accuracy of other tasks behind their examples under an adapter, and what it is above that without. */
function forgetting(lab: Lab, arm: ArmName, examples: number): Table["rows"][number] {
  const pairs = tunedTasks(lab).flatMap((task) => {
    const other = otherTask(lab, task);
    return other ? [{ task, other }] : [];
  });
  if (pairs.length === 0 || !("lora" in ARMS[arm])) return ["–", "–"];
  const after = pairs.map(({ task, other }) =>
    taskHits(
      lab.items(other, "test"),
      tuningSeeds(lab).map((seed) => resultOf(lab, arm, examples, task.name, seed).elsewhere!),
    ),
  );
  const before = pairs.map(({ other }) =>
    taskHits(lab.items(other, "test"), [lab.result(testPrompt({ ...SETUP, task: other.name, seed: 0 }))]),
  );
  return [accuracy(after), accuracyDifference(after, before)];
}

function stepsTable(lab: Lab): Table {
  const steps = checkpoints(stepsOf(lab));
  return {
    name: "steps",
    title: `Accuracy after so many steps, text queries, mean over ${namesOf(lab)}`,
    columns: [
      "trained",
      "labelled items",
      ...steps.map((step) => `${step}`),
      "loss, first step",
      "last step",
    ],
    rows: armNames().flatMap((arm) =>
      sizesOf(lab).map((examples) => {
        const losses = tunedTasks(lab).flatMap(({ name }) =>
          tuningSeeds(lab).map((seed) => resultOf(lab, arm, examples, name, seed).losses),
        );
        return [
          ARMS[arm].name,
          examples,
          ...steps.map((_, step) => accuracy(stepHits(lab, arm, examples, step))),
          mean(losses.map((one) => one[0]!)),
          mean(losses.map((one) => one.at(-1)!)),
        ];
      }),
    ),
  };
}

function byTaskTable(lab: Lab): Table {
  const sizes = sizesOf(lab);
  return {
    name: "by-task",
    title: "Accuracy on test items by task, text queries",
    columns: ["task", "layer", "trained", ...sizes.map((examples) => `${examples} labelled`)],
    rows: tunedTasks(lab).flatMap((task) => {
      const { layer } = lab.result(untrained({ task: task.name, examples: FEW, seed: 0 }));
      return armNames().map((arm) => [
        task.name,
        layer,
        ARMS[arm].name,
        ...sizes.map((examples) => accuracy(endHits(lab, arm, examples, "text", [task]))),
      ]);
    }),
  };
}

function answersTable(lab: Lab): Table {
  return {
    name: "answers",
    title: `Answers of one token to text queries (${FEW} labelled items, seed 0)`,
    columns: ["task", "item", "right", "patch", ...armNames().map((arm) => ARMS[arm].name)],
    rows: tunedTasks(lab).flatMap((task) => {
      const { patch } = lab.result(untrained({ task: task.name, examples: FEW, seed: 0 }));
      return lab
        .items(task, "test")
        .map(({ input, outputs }, i) => [
          task.name,
          input,
          outputs.join(" | "),
          JSON.stringify(patch.text.answers[i]!),
          ...armNames().map((arm) =>
            JSON.stringify(resultOf(lab, arm, FEW, task.name, 0).end.text.answers[i]!),
          ),
        ]);
    }),
  };
}

function controlsTable(lab: Lab): Table {
  const { frequent, constant } = constantAnswers(askedOf(lab), lab.options);
  return {
    name: "controls",
    title: "Without training, and without the query",
    columns: ["what", "labelled items", ...queriesOf(lab).map((query) => QUERY_NAMES[query])],
    rows: [
      ...(Object.keys(UNTRAINED) as (keyof typeof UNTRAINED)[]).flatMap((what) =>
        (what === "noContext" ? [FEW] : sizesOf(lab)).map((examples) => [
          UNTRAINED[what],
          what === "noContext" ? "–" : examples,
          ...queriesOf(lab).map((query) => accuracy(untrainedHits(lab, what, examples, query))),
        ]),
      ),
      // Items are the same for both queries, and so is a constant answer; which is best is chosen among those to text.
      ...Object.entries({
        "the task's most frequent answer": frequent,
        "the best constant answer": constant,
      }).map(([what, hits]) => [what, "–", ...queriesOf(lab).map(() => accuracy(hits))]),
    ],
  };
}

function namesOf(lab: Lab): string {
  return tunedTasks(lab)
    .map(({ name }) => name)
    .join(", ");
}
