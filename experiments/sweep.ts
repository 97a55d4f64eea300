import type { Task } from "xpatch";
import { accuracyByLayer, layerSweep, type Setup, setupsOf, tasksWith } from "./cells/layer-sweep.ts";
import { positionSweep } from "./cells/position-sweep.ts";
import { SPREAD_NOTE } from "./cells/spread.ts";
import { validationCells } from "./cells/validation.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES, SPECIFICATION_NAMES, widestQuery } from "./framework/prompts.ts";
import type { HeatFigure, LinesFigure } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { accuracy, accuracyDifference, type Estimate, type Hits } from "./statistics/bootstrap.ts";

export const sweep: Experiment = {
  name: "sweep",
  title: "Where task vectors are: layer and token",
  claim:
    "Whatever the modality, the task vector works in a band of layers in the middle of the model, and the delimiter before the answer carries it.",
  cells: (lab) => [
    ...validationCells(lab),
    ...tasksWith(lab, positionSetup(lab)).map(({ name }) =>
      positionSweep({ task: name, query: widestQuery(lab) }),
    ),
  ],
  report(lab): Findings {
    const setups = setupsOf(lab);
    const best = setups.map((setup) => bestLayer(lab, setup));
    const positions = positionAccuracies(lab);
    return {
      verdict: verdictOf(lab, best, positions),
      text: [
        "Accuracies here are on validation items, from which layers are chosen; that of a best layer is therefore flattered by the choice.",
      ],
      figures: [layersFigure(lab, setups), byTaskFigure(lab, setups), positionFigure(lab, positions)],
      tables: [bestTable(best), positionTable(lab, positions)],
      controls: [],
    };
  },
};

interface Best extends Setup {
  readonly layer: number;
  readonly layers: number;
  readonly accuracy: Estimate;
  readonly noContext: Estimate;
  readonly gain: Estimate;
}

function bestLayer(lab: Lab, setup: Setup): Best {
  const tasks = inMeans(lab, setup);
  const byLayer = accuracyByLayer(lab, setup, tasks);
  const best = byLayer.reduce((a, b) => (b.accuracy.mean > a.accuracy.mean ? b : a));
  const bare: Hits = tasks.map(({ name }) => [
    lab.result(layerSweep({ ...setup, task: name })).noContext.hits,
  ]);
  return {
    ...setup,
    layer: best.layer,
    layers: byLayer.length,
    accuracy: best.accuracy,
    noContext: accuracy(bare),
    gain: accuracyDifference(best.hits, bare),
  };
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

function positionAccuracies(lab: Lab): PositionAccuracy[] {
  const query = widestQuery(lab);
  const results = inMeans(lab, positionSetup(lab)).map(({ name }) =>
    lab.result(positionSweep({ task: name, query })),
  );
  const [first] = results;
  const { layers } = first!;
  return first!.positions.map((token, p) => {
    const hits = layers.map((_, l): Hits => results.map(({ patched }) => [patched[p]![l]!.hits]));
    const byLayer = hits.map(accuracy);
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
  const inside = best.filter(({ layer, layers, gain }) => layer > 0 && layer < layers - 1 && gain.low > 0);
  const delimiter = positions[DELIMITER]!;
  const others = positions.slice(0, DELIMITER);
  const carries = others.every((other) => {
    const own = delimiter.hits[delimiter.byLayer.indexOf(delimiter.best)]!;
    return accuracyDifference(own, other.hits[other.byLayer.indexOf(other.best)]!).low > 0;
  });
  const because = `best layers of ${lab.setting.model.layers}: ${peaks.join("; ")}. Delimiter ${showEstimate(delimiter.best)}, best other token of the example before it ${Math.max(...others.map((o) => o.best.mean)).toFixed(2)}`;
  if (inside.length === best.length && carries) return { outcome: "replicates", because };
  return { outcome: inside.length > 0 || carries ? "replicates in part" : "does not replicate", because };
}

function layersFigure(lab: Lab, setups: readonly Setup[]): LinesFigure {
  return {
    kind: "lines",
    name: "layers",
    title: "Accuracy by patched layer",
    caption: `Mean over ${lab.tasksInMeans.map(({ name }) => name).join(", ")} on validation items, with 95 % intervals.`,
    x: "layer",
    y: "accuracy",
    rows: setups.flatMap((setup) =>
      accuracyByLayer(lab, setup, inMeans(lab, setup)).map(({ layer, accuracy: { mean, low, high } }) => ({
        panel: QUERY_NAMES[setup.query],
        series: SPECIFICATION_NAMES[setup.specification],
        x: layer,
        y: mean,
        low,
        high,
      })),
    ),
  };
}

function byTaskFigure(lab: Lab, setups: readonly Setup[]): HeatFigure {
  return {
    kind: "heat",
    name: "layers-by-task",
    title: "Accuracy by patched layer and task",
    caption: "Validation items.",
    x: "layer",
    y: "task",
    value: "accuracy",
    rows: setups.flatMap((setup) =>
      tasksWith(lab, setup).flatMap((task) =>
        accuracyByLayer(lab, setup, [task]).map(({ layer, accuracy: { mean } }) => ({
          panel: `${SPECIFICATION_NAMES[setup.specification]} → ${QUERY_NAMES[setup.query]}`,
          x: layer,
          y: task.name,
          value: mean,
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
    x: "layer",
    y: "token",
    value: "accuracy",
    rows: positions.flatMap(({ position, layers, byLayer }) =>
      byLayer.map(({ mean }, l) => ({ x: layers[l]!, y: position, value: mean })),
    ),
  };
}

function bestTable(best: readonly Best[]): Table {
  return {
    name: "best-layers",
    title: "The best layer of each specification and query",
    columns: ["query", "specification", "layer", "accuracy", "no context", "gain"],
    rows: best.map(({ query, specification, layer, accuracy: value, noContext, gain }) => [
      QUERY_NAMES[query],
      SPECIFICATION_NAMES[specification],
      layer,
      value,
      noContext,
      gain,
    ]),
  };
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
