import {
  ENSEMBLE_CONTROLS,
  type EnsembleControl,
  ensembleSweep,
  ensembleTest,
  instructedTasks,
  PAPER_PROMPTS,
} from "./cells/ensembles.ts";
import { accuracyByLayer, CHOSEN_NOTE, layerSweep, type Setup, sharedLayer } from "./cells/layer-sweep.ts";
import { namingCells, namingTable } from "./cells/naming.ts";
import { NOISE_NAMES, NOISES, noisyTest } from "./cells/noisy-instructions.ts";
import { aboveAllControls, testedTasks, testPatch } from "./cells/test-answers.ts";
import { validationCells } from "./cells/validation.ts";
import {
  answersOf,
  controlOf,
  countsOf,
  fullEnsemble,
  hitsOf,
  inMeans,
  instructed,
  METHODS,
  type Method,
  noContextOf,
  noisyHits,
  resultsOf,
  type Tested,
} from "./findings/instructions.ts";
import { constantAnswers } from "./framework/constants.ts";
import { aboveControl, difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES, widestQuery } from "./framework/prompts.ts";
import { constantReferences } from "./framework/references.ts";
import { judged, verdictText } from "./framework/rule.ts";
import { beside } from "./framework/scored.ts";
import { type LinesFigure, pointOf } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy, accuracyDifference, type Hits } from "./statistics/accuracy.ts";

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
      ...tasks.map(({ name: task }) => testPatch({ ...instructed(lab), task })),
      ...tasks.map(({ name: task }) => noisyTest({ query, task })),
      ...namingCells(lab),
    ];
  },
  report(lab): Findings {
    return {
      verdict: verdictOf(lab),
      text: [
        "An ensemble is the mean of the instruction's vector and of that of examples, itself the mean over n prompts. An instruction is a single prompt whatever n is.",
        "Each of the three is patched in the layer that validation items chose for it; the test items were scored once. The layers of examples and ensembles were chosen with all prompts.",
        verdictText("With noise in the instruction", noisyVerdict(lab)),
      ],
      figures: [samplesFigure(lab), examplesFigure(lab), layersFigure(lab)],
      tables: [samplesTable(lab), byTaskTable(lab), noiseTable(lab), ...regurgitationTable(lab)],
      controls: [controlsTable(lab)],
    };
  },
};

function verdictOf(lab: Lab): Verdict {
  const tested = resultsOf(lab, inMeans(lab));
  const counts = countsOf(tested);
  const { majority } = beside(tested.map(({ result }) => result.noContext));
  const [fewest, most] = [counts[0]!, counts.at(-1)!];
  const gain = (count: number) =>
    difference(hitsOf(tested, "ensemble", count), hitsOf(tested, "examples", count), `n = ${count}`);
  const above = (control: EnsembleControl) => aboveControl(fullEnsemble(tested), controlOf(tested, control));
  const shown = METHODS.map((method) => `${method} ${showEstimate(accuracy(hitsOf(tested, method, most)))}`);
  return judged(
    RULES.instructions,
    {
      works: aboveAllControls(lab, testedTasks(lab, inMeans(lab), instructed(lab))),
      improves: {
        fewest: gain(fewest),
        most: gain(most),
        anotherInstruction: above("anotherInstruction"),
        random: above("random"),
      },
    },
    `${shown.join(", ")}, no context ${showEstimate(accuracy(noContextOf(tested)))}, majority ${majority.toFixed(2)}`,
  );
}

function noisyVerdict(lab: Lab): Verdict {
  const tested = resultsOf(lab, inMeans(lab));
  const asWritten = hitsOf(tested, "instruction", countsOf(tested)[0]!);
  const query = widestQuery(lab);
  const { frequent, constant } = constantAnswers(
    inMeans(lab).map((task) => ({
      task,
      items: lab.items(task, "test"),
      answers: Object.values(lab.result(noisyTest({ query, task: task.name })).patched)
        .flat()
        .flatMap(({ answers }) => answers),
    })),
    lab.options,
  );
  const above = (control: Hits) =>
    NOISES.flatMap((noise) => {
      const hits = noisyHits(lab, noise);
      return hits ? aboveControl(hits, control, NOISE_NAMES[noise]) : [];
    });
  return judged(RULES["instructions, noisy"], {
    works: { noContext: above(noContextOf(tested)), frequent: above(frequent), constant: above(constant) },
    asWell: {
      asWritten: NOISES.flatMap((noise) => {
        const hits = noisyHits(lab, noise);
        return hits ? [difference(hits, asWritten, NOISE_NAMES[noise])] : [];
      }),
    },
  });
}

function noiseTable(lab: Lab): Table {
  const query = widestQuery(lab);
  const tasks = inMeans(lab);
  const tested = resultsOf(lab, tasks);
  const asWritten = hitsOf(tested, "instruction", countsOf(tested)[0]!);
  const { majority } = beside(tested.map(({ result }) => result.noContext));
  const written = [
    "as written",
    tasks[0]!.instruction!,
    accuracy(asWritten),
    "–",
    majority,
    beside(tested.map(({ result }) => result.instruction)).distinct,
  ];
  const rows = NOISES.flatMap((noise) => {
    const hits = noisyHits(lab, noise);
    if (!hits) return [];
    const results = tasks.map(({ name: task }) => lab.result(noisyTest({ query, task })));
    return [
      [
        NOISE_NAMES[noise],
        results[0]!.texts[noise][0]!,
        accuracy(hits),
        accuracyDifference(hits, asWritten),
        majority,
        beside(results.map(({ patched }) => patched[noise][0]!)).distinct,
      ],
    ];
  });
  return {
    name: "noise",
    title: "Instructions with noise, in the layer chosen for those without",
    columns: [
      "instruction",
      "for example",
      "accuracy",
      "less that as written",
      "majority",
      "distinct answers",
    ],
    rows: [written, ...rows],
  };
}

/** The paper's axis. */
function examplesFigure(lab: Lab): LinesFigure {
  const { shots } = lab.options;
  const { caption, rows, references } = samplesFigure(lab);
  return {
    kind: "lines",
    name: "examples",
    title: "Accuracy by the number of examples",
    caption: `${caption} One to ${PAPER_PROMPTS} prompts of ${shots} examples.`,
    x: "examples",
    y: "accuracy",
    rows: rows.filter(({ x }) => x <= PAPER_PROMPTS).map((row) => ({ ...row, x: row.x * shots })),
    references,
  };
}

function samplesFigure(lab: Lab): LinesFigure {
  const results = resultsOf(lab, inMeans(lab));
  return {
    kind: "lines",
    name: "samples",
    title: "Accuracy by the number of prompts averaged",
    caption: `${QUERY_NAMES[widestQuery(lab)]}, mean over ${taskNames(lab)} on test items.`,
    x: "prompts averaged",
    y: "accuracy",
    rows: METHODS.flatMap((series) =>
      countsOf(results).map((count) => ({
        series,
        x: count,
        ...pointOf(accuracy(hitsOf(results, series, count))),
      })),
    ),
    references: constantReferences(
      lab.options,
      inMeans(lab).map((task, t) => ({
        task,
        items: results[t]!.items,
        answers: METHODS.flatMap((method) =>
          answersOf(results[t]!.result, method, countsOf(results).at(-1)!).flatMap(({ answers }) => answers),
        ),
      })),
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
    caption: `${QUERY_NAMES[query]}, mean over ${taskNames(lab)} on validation items; all prompts.`,
    chosen: CHOSEN_NOTE,
    x: "layer",
    y: "accuracy",
    rows: METHODS.flatMap((series) => {
      const { specification, sweep } = sweeps[series];
      const setup: Setup = { specification, query };
      const chosen = sharedLayer(lab, setup, sweep);
      return accuracyByLayer(lab, setup, inMeans(lab), sweep).map(({ layer, accuracy: value }) => ({
        series,
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

const COLUMNS = [
  "prompts averaged",
  "examples in them",
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
    rows: countsOf(results).map((count) => row(lab, results, count)),
  };
}

function byTaskTable(lab: Lab): Table {
  return {
    name: "by-task",
    title: "The same by task",
    columns: ["task", ...COLUMNS],
    rows: instructedTasks(lab, widestQuery(lab)).flatMap((task) => {
      const results = resultsOf(lab, [task]);
      return countsOf(results).map((count) => [task.name, ...row(lab, results, count)]);
    }),
  };
}

function row({ options }: Lab, tested: readonly Tested[], count: number) {
  const hits = METHODS.map((method) => hitsOf(tested, method, count));
  const [examples, , ensemble] = hits;
  const layers = tested.map(({ result: { layers: of } }) => [of.text, of.instruction, of.ensemble].join(" "));
  return [
    count,
    count * options.shots,
    [...new Set(layers)].join(", "),
    beside(tested.map(({ result }) => result.noContext)).majority,
    accuracy(noContextOf(tested)),
    ...hits.map((one) => accuracy(one)),
    accuracyDifference(ensemble!, examples!),
    ...METHODS.map(
      (method) => beside(tested.map(({ result }) => answersOf(result, method, count)[0]!)).distinct,
    ),
  ];
}

function regurgitationTable(lab: Lab): Table[] {
  if (widestQuery(lab) !== "image") return [];
  const tested = resultsOf(lab, inMeans(lab));
  const row = (method: Method, count: number, shown: number | string = count) => ({
    head: [method, shown],
    answers: tested.map(({ task, items, result }) => ({
      task,
      items,
      seeds: answersOf(result, method, count),
    })),
  });
  const counts = countsOf(tested);
  return namingTable(
    lab,
    ["vector", "prompts averaged"],
    METHODS.flatMap((method) =>
      method === "instruction" ? [row(method, counts[0]!, "–")] : counts.map((count) => row(method, count)),
    ),
  );
}

function controlsTable(lab: Lab): Table {
  const tested = resultsOf(lab, inMeans(lab));
  const most = fullEnsemble(tested);
  return {
    name: "controls",
    title: "Ensembles with other vectors in place of the instruction's, with the most prompts that there are",
    columns: ["ensemble of", "accuracy", "the ensemble less this", "majority", "distinct answers"],
    rows: ENSEMBLE_CONTROLS.flatMap((control) => {
      const hits = controlOf(tested, control);
      if (!hits) return [];
      const { majority, distinct } = beside(tested.map(({ result }) => result.controls[control]![0]!));
      return [[CONTROL_NAMES[control], accuracy(hits), accuracyDifference(most, hits), majority, distinct]];
    }),
  };
}

function taskNames(lab: Lab): string {
  return inMeans(lab)
    .map(({ name }) => name)
    .join(", ");
}
