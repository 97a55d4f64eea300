import type { Task } from "xpatch";
import {
  accuracyByLayer,
  CHOSEN_NOTE,
  chosenLayer,
  layerSweep,
  type Setup,
  setupsOf,
  sharedLayer,
  tasksWith,
} from "./cells/layer-sweep.ts";
import { namingCells, namingTable } from "./cells/naming.ts";
import { positionSweep } from "./cells/position-sweep.ts";
import { SPREAD_NOTE } from "./cells/spread.ts";
import { validationCells } from "./cells/validation.ts";
import { type ConstantAnswers, constantAnswers } from "./framework/constants.ts";
import { aboveControl, difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES, SPECIFICATION_NAMES, widestQuery } from "./framework/prompts.ts";
import { constantReferences } from "./framework/references.ts";
import { type Contrast, judged } from "./framework/rule.ts";
import { type Scored, taskHits } from "./framework/scored.ts";
import { withoutPlaces } from "./framework/stacks.ts";
import { type HeatFigure, type LinesFigure, pointOf } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy, accuracyDifference, type Hits } from "./statistics/accuracy.ts";
import { crossFitted } from "./statistics/cross-fitting.ts";
import type { Estimate } from "./statistics/estimate.ts";

export const sweep: Experiment = {
  name: "sweep",
  title: "Where task vectors are: layer and token",
  claim:
    "Whatever the modality, the task vector works in a band of layers in the middle of the model, and the delimiter before the answer carries it.",
  cells: (lab) => [
    ...validationCells(lab),
    ...(lab.readsPrompts ? tasksWith(lab, positionSetup(lab)) : []).map(({ name }) =>
      positionSweep({ task: name, query: widestQuery(lab) }),
    ),
    ...namingCells(lab, "validation"),
  ],
  report(lab): Findings {
    const setups = setupsOf(lab, lab.tasksInMeans);
    const best = setups.map((setup) => bestLayer(lab, setup));
    const positions = positionAccuracies(lab);
    const byToken = positions.length > 0;
    return {
      verdict: verdictOf(lab, best, positions),
      text: [
        "Accuracies here are on validation items, from which layers are chosen; in the tables that of a best layer is therefore flattered by the choice.",
        ...(lab.options.stack === "encoder"
          ? [
              "An encoder attends both ways: what is read at a token has seen the whole prompt, the answer and the query behind it too.",
            ]
          : []),
        "Not so in the verdict: there the answers to each half of the inputs are those of the layer that is best on the other half. The layer of the middle half of the model is one for all specifications and queries, those of the first and the last quarter the best for each, and so are those of each token.",
      ],
      figures: [
        layersFigure(lab, setups),
        byTaskFigure(lab),
        ...(byToken ? [positionFigure(lab, positions)] : []),
      ],
      tables: [
        bestTable(best),
        ...(byToken ? [positionTable(lab, positions)] : []),
        ...regurgitationTable(lab, best, positions),
      ],
      controls: [],
    };
  },
};

interface Best extends Setup {
  readonly layer: number;
  /** Of each layer. */
  readonly hits: readonly Hits[];
  readonly bare: Hits;
  readonly constants: ConstantAnswers;
  readonly accuracy: Estimate;
}

function bestLayer(lab: Lab, setup: Setup): Best {
  const tasks = inMeans(lab, setup);
  const byLayer = accuracyByLayer(lab, setup, tasks);
  const best = byLayer.reduce((a, b) => (b.accuracy.mean > a.accuracy.mean ? b : a));
  return {
    ...setup,
    layer: best.layer,
    hits: byLayer.map(({ hits }) => hits),
    bare: tasks.map((task) =>
      taskHits(lab.items(task, "validation"), [
        lab.result(layerSweep({ ...setup, task: task.name })).noContext,
      ]),
    ),
    constants: constantsOf(lab, tasks),
    accuracy: best.accuracy,
  };
}

function constantsOf(lab: Lab, tasks: readonly Task[]): ConstantAnswers {
  return constantAnswers(
    tasks.map((task) => ({ task, items: lab.items(task, "validation") })),
    lab.options,
  );
}

interface PositionAccuracy {
  readonly position: string;
  readonly layers: readonly number[];
  /** By {@link layers}. */
  readonly byLayer: readonly Estimate[];
  readonly hits: readonly Hits[];
  readonly bestLayer: number;
  readonly best: Estimate;
}

/** The answer cue of the last example among the positions of {@link positionSweep}, and how to call them. */
const DELIMITER = 3;
const PLACES = [
  "end of the last example's x",
  "",
  "",
  "its delimiter",
  "start of its answer",
  "the query's delimiter",
];
const QUERY_DELIMITER = 5;

/** None where the layers have no residual stream at the tokens of prompts. */
function positionAccuracies(lab: Lab): PositionAccuracy[] {
  if (!lab.readsPrompts) return [];
  const query = widestQuery(lab);
  const found = inMeans(lab, positionSetup(lab)).map((task) => ({
    items: lab.items(task, "validation"),
    result: lab.result(positionSweep({ task: task.name, query })),
  }));
  const { layers, positions } = found[0]!.result;
  return positions.map((token, p) => {
    const hits = layers.map(
      (_, l): Hits => found.map(({ items, result }) => taskHits(items, [result.patched[p]![l]!])),
    );
    const byLayer = hits.map((one) => accuracy(one));
    const means = byLayer.map(({ mean }) => mean);
    const index = means.indexOf(Math.max(...means));
    const place = PLACES[p] ? `${PLACES[p]} ` : "";
    return {
      position: `${place}${JSON.stringify(token)}`,
      layers,
      byLayer,
      hits,
      bestLayer: layers[index]!,
      best: byLayer[index]!,
    };
  });
}

function verdictOf(lab: Lab, best: readonly Best[], positions: readonly PositionAccuracy[]): Verdict {
  const peaks = best.map(
    (b) =>
      `${SPECIFICATION_NAMES[b.specification]} → ${b.query} layer ${b.layer}, ${showEstimate(b.accuracy)}`,
  );
  const byToken = positions.map(({ position, best: { mean } }) => `${position} ${mean.toFixed(2)}`);
  const tokens = lab.readsPrompts
    ? `Tokens in their best layers: ${byToken.join(", ")}`
    : `Tokens were not compared: ${withoutPlaces(lab)}`;
  return judged(
    RULES.sweep,
    { band: bandContrasts(lab, best), delimiter: delimiterContrasts(lab, positions) },
    `Best layers of ${lab.layers}: ${peaks.join("; ")}. ${tokens}`,
  );
}

/** Of one layer for all specifications and queries, in the middle half of the model. */
function bandContrasts(lab: Lab, best: readonly Best[]) {
  const { layers } = lab;
  const quarter = Math.max(1, Math.floor(layers / 4));
  const bounds = {
    first: [0, quarter],
    middle: [quarter, layers - quarter],
    last: [layers - quarter, layers],
  };
  const part = (hits: readonly Hits[], which: keyof typeof bounds) => hits.slice(...bounds[which]);
  // A model of one or two layers has no middle.
  const testable = quarter < layers - quarter ? best : [];
  const all = testable.map(({ hits }) => part(hits, "middle"));
  const each = (of: (one: Best, layer: Hits, name: string) => Contrast | Contrast[]) =>
    testable.flatMap((one, i) =>
      of(one, crossFitted(all[i]!, all), `${SPECIFICATION_NAMES[one.specification]} → ${one.query}`),
    );
  return {
    noContext: each((one, layer, name) => aboveControl(layer, one.bare, name)),
    frequent: each((one, layer, name) => aboveControl(layer, one.constants.frequent, name)),
    constant: each((one, layer, name) => aboveControl(layer, one.constants.constant, name)),
    early: each((one, layer, name) => difference(layer, crossFitted(part(one.hits, "first")), name)),
    late: each((one, layer, name) => difference(layer, crossFitted(part(one.hits, "last")), name)),
  };
}

function delimiterContrasts(lab: Lab, positions: readonly PositionAccuracy[]) {
  if (positions.length === 0) return { frequent: [], constant: [], others: [], query: [] };
  const fitted = positions.map(({ hits }) => crossFitted(hits));
  const delimiter = fitted[DELIMITER]!;
  const { frequent, constant } = constantsOf(lab, inMeans(lab, positionSetup(lab)));
  const others = [...positions.keys()].filter((p) => p !== DELIMITER && p !== QUERY_DELIMITER);
  return {
    frequent: aboveControl(delimiter, frequent),
    constant: aboveControl(delimiter, constant),
    others: others.map((p) => difference(delimiter, fitted[p]!, positions[p]!.position)),
    query: difference(fitted[QUERY_DELIMITER]!, delimiter),
  };
}

function layersFigure(lab: Lab, setups: readonly Setup[]): LinesFigure {
  return {
    kind: "lines",
    name: "layers",
    title: "Accuracy by patched layer",
    caption: `Mean over ${lab.tasksInMeans.map(({ name }) => name).join(", ")} on validation items.`,
    x: "layer",
    y: "accuracy",
    chosen: CHOSEN_NOTE,
    rows: setups.flatMap((setup) => {
      const chosen = sharedLayer(lab, setup);
      return accuracyByLayer(lab, setup, inMeans(lab, setup)).map(({ layer, accuracy: value }) => ({
        panel: QUERY_NAMES[setup.query],
        series: SPECIFICATION_NAMES[setup.specification],
        x: layer,
        ...pointOf(value),
        chosen: layer === chosen,
      }));
    }),
    references: [...new Set(setups.map(({ query }) => query))].flatMap((query) => {
      const setup = setups.find((one) => one.query === query)!;
      const asked = inMeans(lab, setup).map((task) => ({ task, items: lab.items(task, "validation") }));
      return constantReferences(lab.options, asked, { panel: QUERY_NAMES[query] });
    }),
  };
}

function byTaskFigure(lab: Lab): HeatFigure {
  return {
    kind: "heat",
    name: "layers-by-task",
    title: "Accuracy by patched layer and task",
    caption: "Validation items.",
    chosen: CHOSEN_NOTE,
    x: "layer",
    y: "task",
    value: "accuracy",
    rows: setupsOf(lab).flatMap((setup) =>
      tasksWith(lab, setup).flatMap((task) =>
        accuracyByLayer(lab, setup, [task]).map(({ layer, accuracy: { mean, items, seeds } }) => ({
          panel: `${SPECIFICATION_NAMES[setup.specification]} → ${QUERY_NAMES[setup.query]}`,
          x: layer,
          y: task.name,
          value: mean,
          items,
          seeds,
          chosen: layer === chosenLayer(lab, setup, task),
        })),
      ),
    ),
  };
}

function positionFigure(lab: Lab, positions: readonly PositionAccuracy[]): HeatFigure {
  return {
    kind: "heat",
    name: "positions",
    title: "Which token of the text prompt carries the task",
    caption: `Accuracy of ${QUERY_NAMES[widestQuery(lab)]} validation items under the mean activation at that token, seed 0. ${SPREAD_NOTE}`,
    chosen: "the best layer of each token",
    x: "layer",
    y: "token",
    value: "accuracy",
    rows: positions.flatMap(({ position, layers, byLayer, bestLayer: best }) =>
      byLayer.map(({ mean, items, seeds }, l) => ({
        x: layers[l]!,
        y: position,
        value: mean,
        items,
        seeds,
        chosen: layers[l] === best,
      })),
    ),
  };
}

function bestTable(best: readonly Best[]): Table {
  return {
    name: "best-layers",
    title: "The best layer of each specification and query",
    columns: ["query", "specification", "layer", "majority", "accuracy", "no context", "gain"],
    rows: best.map(({ query, specification, layer, accuracy: value, hits, bare, constants }) => [
      QUERY_NAMES[query],
      SPECIFICATION_NAMES[specification],
      layer,
      accuracy(constants.constant).mean,
      value,
      accuracy(bare),
      accuracyDifference(hits[layer]!, bare),
    ]),
  };
}

/** Of each specification in its best layer, and a quarter of the model before and behind it; of each token in its best. */
function regurgitationTable(
  lab: Lab,
  best: readonly Best[],
  positions: readonly PositionAccuracy[],
): Table[] {
  if (widestQuery(lab) !== "image") return [];
  const { layers: count } = lab;
  const quarter = Math.max(1, Math.floor(count / 4));
  const pictured = best.filter(({ query }) => query === "image");
  const answers = (tasks: readonly Task[], seedsOf: (task: string) => readonly Scored[]) =>
    tasks.map((task) => ({ task, items: lab.items(task, "validation"), seeds: seedsOf(task.name) }));
  const byLayer = pictured.flatMap(({ specification, query, layer }) => {
    const near = [layer - quarter, layer, layer + quarter].filter((one) => one >= 0 && one < count);
    return near.map((one) => ({
      head: [SPECIFICATION_NAMES[specification], one],
      answers: answers(inMeans(lab, { specification, query }), (task) =>
        lab.result(layerSweep({ specification, query, task })).patched.map((layers) => layers[one]!),
      ),
    }));
  });
  const byToken = positions.map(({ position, layers, bestLayer }, p) => ({
    head: [`${SPECIFICATION_NAMES.text}, ${position}`, bestLayer],
    answers: answers(inMeans(lab, positionSetup(lab)), (task) => [
      lab.result(positionSweep({ task, query: "image" })).patched[p]![layers.indexOf(bestLayer)]!,
    ]),
  }));
  return namingTable(lab, ["vector of", "layer"], [...byLayer, ...byToken], "validation");
}

function positionTable(lab: Lab, positions: readonly PositionAccuracy[]): Table {
  return {
    name: "positions",
    title: `The best layer of each token, ${QUERY_NAMES[widestQuery(lab)]}`,
    columns: ["token", "layer", "accuracy"],
    rows: positions.map(({ position, bestLayer: layer, best }) => [position, layer, best]),
  };
}

function positionSetup(lab: Lab): Setup {
  return { specification: "text", query: widestQuery(lab) };
}

function inMeans(lab: Lab, setup: Setup): Task[] {
  return tasksWith(lab, setup, lab.tasksInMeans);
}
