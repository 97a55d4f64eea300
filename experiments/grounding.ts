import { PLACES, type Place } from "./cells/alignment.ts";
import { commonLayer, commonLayerCells, type Setup } from "./cells/layer-sweep.ts";
import {
  atPlace,
  cellOf,
  chancesOf,
  FEWEST_ITEMS,
  itemCount,
  kindsOf,
  layersOf,
  type Method,
  nearestLayer,
  otherKind,
  type PlaceFindings,
  reciprocal,
  scoresOf,
} from "./findings/grounding.ts";
import { aboveShuffled, contrast, difference } from "./framework/contrasts.ts";
import type { Experiment, Findings, Verdict } from "./framework/experiment.ts";
import type { Lab } from "./framework/lab.ts";
import { QUERY_NAMES, SPECIFICATION_NAMES, widestQuery } from "./framework/prompts.ts";
import { judged } from "./framework/rule.ts";
import { withoutPlaces } from "./framework/stacks.ts";
import { type LinesFigure, pointOf } from "./report/figure.ts";
import { showEstimate, type Table } from "./report/table.ts";
import { RULES } from "./rules.ts";
import { accuracy } from "./statistics/accuracy.ts";
import { LEVEL, shifted } from "./statistics/estimate.ts";
import { mean } from "./statistics/resample.ts";
import { trainedFor } from "./trained-for.ts";

const PLACE_NAMES: Readonly<Record<Place, string>> = {
  name: "behind the name or picture",
  cue: "answer cue",
  "other cue": "answer cue, names with another template",
};

/**
 * Whose layer is looked at, in all places: where a patch brings the task from text to pictures (to text, if no task of the
 * means has pictures). That is chosen by answers to tasks, which need not be where names and pictures are nearest to each other.
 */
function patchOf(lab: Lab): Setup {
  return { specification: "text", query: widestQuery(lab) };
}

export const grounding: Experiment = {
  name: "grounding",
  title: "Is the alignment semantic?",
  claim:
    "The picture and the name of an item have corresponding representations, item by item, and not only a common direction of their modality, task or delimiter.",
  untestable: (lab) =>
    kindsOf(lab).length === 0
      ? `it takes a model that takes pictures, and a task with ${FEWEST_ITEMS} pictured items a split or more`
      : withoutPlaces(lab),
  cells: (lab) => [
    ...commonLayerCells(lab, patchOf(lab)),
    ...kindsOf(lab).flatMap((task) =>
      (["validation", "test"] as const).map((split) => cellOf(lab, task, split)),
    ),
  ],
  report(lab): Findings {
    const layer = commonLayer(lab, patchOf(lab));
    const found = PLACES.map((place) => atPlace(lab, place, layer));
    return {
      preface: trainedFor(lab.setting.model.hash),
      verdict: verdictOf(found),
      text: [
        `Each item is asked about by its name and by its picture, without examples. Retrieval looks for an item's counterpart among all items of its kind by cosine (top-1, and the mean reciprocal rank, MRR), in both directions; kinds are ${kindsOf(
          lab,
        )
          .map(({ name }) => name)
          .join(
            ", ",
          )}, each with the items of that task, as tasks that ask about the same items do not differ here.`,
        "RSA is Spearman's correlation of the distances between items, CKA linear centred kernel alignment; their intervals are those of shuffled pairs. ",
        `The layer is ${layer} in all places, which validation items chose for patches (${SPECIFICATION_NAMES.text}, ${QUERY_NAMES[widestQuery(lab)]}). Beside it stand layer 0, where all that is known comes from the embeddings and one block, and the layer where items are found best on validation items, which at the cue may be no more than where both queries predict the name. The numbers are of test items.`,
      ],
      figures: [retrievalFigure(lab, layer), similarityFigure(lab, found)],
      tables: [retrievalTable(lab, layer), everyLayerTable(lab), similarityTable(lab, found)],
      controls: [controlTable(found), foreignTable(lab, found)].filter(({ rows }) => rows.length > 0),
    };
  },
};

function verdictOf(found: readonly PlaceFindings[]): Verdict {
  const shown = found.map(
    ({ place, layer, reciprocal: rr, chance }) =>
      `${PLACE_NAMES[place]}, layer ${layer}: MRR ${showEstimate(rr.centred)}, with the mean left in ${showEstimate(rr.raw)}, random vectors ${showEstimate(rr.random)}, chance ${chance.toFixed(2)}`,
  );
  const similar = (measure: "rsa" | "cka") =>
    found.flatMap(({ place, kinds }) =>
      kinds.map(({ task, at }) => aboveShuffled(at[measure], `${PLACE_NAMES[place]}, ${task}`)),
    );
  return judged(
    RULES.grounding,
    {
      found: {
        chance: found.map(({ place, ranks, chance }) =>
          contrast((level) => shifted(accuracy(ranks.centred, level), -chance), PLACE_NAMES[place]),
        ),
        random: found.map(({ place, ranks }) => difference(ranks.centred, ranks.random, PLACE_NAMES[place])),
      },
      arranged: { rsa: similar("rsa"), cka: similar("cka") },
    },
    shown.join(". "),
  );
}

const LAYER_NOTE = "the layer that validation items chose for patches";

function chosenAt(found: readonly PlaceFindings[], place: Place): number {
  return found.find((one) => one.place === place)!.layer;
}

function retrievalFigure(lab: Lab, layer: number): LinesFigure {
  const { chance } = chancesOf(lab);
  const series: readonly [Method, string][] = [
    ["centred", "mean removed"],
    ["raw", "as they are"],
    ["random", "random vectors"],
  ];
  return {
    kind: "lines",
    name: "retrieval",
    title: "Finding an item's counterpart in the other modality",
    caption: "Test items, mean over both directions.",
    chosen: LAYER_NOTE,
    references: [{ label: "chance", y: chance }],
    x: "layer",
    y: "mean reciprocal rank",
    rows: PLACES.flatMap((place) =>
      series.flatMap(([method, name]) =>
        layersOf(lab).map((at) => {
          const value = pointOf(reciprocal(lab, place, "test", at, method));
          return {
            panel: PLACE_NAMES[place],
            series: name,
            x: at,
            ...value,
            chosen: method === "centred" && at === layer,
          };
        }),
      ),
    ),
  };
}

function similarityFigure(lab: Lab, places: readonly PlaceFindings[]): LinesFigure {
  return {
    kind: "lines",
    name: "similarity",
    title: "Similarity of the arrangement of items",
    caption: "Test items, means over the kinds of items.",
    intervals: "the middle 95 % of shuffled pairs",
    chosen: LAYER_NOTE,
    x: "layer",
    y: "RSA or CKA",
    rows: PLACES.flatMap((place) =>
      (["rsa", "cka"] as const).flatMap((measure) =>
        layersOf(lab).flatMap((layer) => {
          const found = kindsOf(lab).map(
            (task) => lab.result(cellOf(lab, task, "test")).places[place][layer]![measure],
          );
          const [value, low, high] = (["value", "low", "high"] as const).map((part) =>
            mean(found.map((one) => one[part])),
          );
          const at = { panel: PLACE_NAMES[place], x: layer, items: itemCount(lab), seeds: 1 };
          return [
            { ...at, series: measure.toUpperCase(), y: value!, chosen: layer === chosenAt(places, place) },
            {
              ...at,
              series: `${measure.toUpperCase()}, shuffled`,
              y: (low! + high!) / 2,
              low: low!,
              high: high!,
            },
          ];
        }),
      ),
    ),
  };
}

function retrievalTable(lab: Lab, patched: number): Table {
  const chosen = { "layer of the patch": () => patched, "layer 0": () => 0, "found best": nearestLayer };
  return {
    name: "retrieval",
    title: "Retrieval across modalities, mean of each side removed",
    columns: ["place", "chosen as", "layer", "top-1", "chance", "MRR", "chance"],
    rows: PLACES.flatMap((place) =>
      Object.entries(chosen).map(([name, of]) => {
        const { layer, top1, chanceTop1, reciprocal: rr, chance } = atPlace(lab, place, of(lab, place));
        return [PLACE_NAMES[place], name, layer, top1.centred, chanceTop1, rr.centred, chance];
      }),
    ),
  };
}

/** In which layers items are found at all, where all layers and places share the 5 % (Bonferroni). */
function everyLayerTable(lab: Lab): Table {
  const { chance } = chancesOf(lab);
  const layers = layersOf(lab);
  const level = 1 - (1 - LEVEL) / (layers.length * PLACES.length);
  return {
    name: "every-layer",
    title: `Layers in which items are found more often than in random order, at ${(100 * level).toFixed(2)} % each, so that ${layers.length} layers in ${PLACES.length} places make 95 %`,
    columns: ["place", "layers", "of", "which"],
    rows: PLACES.map((place) => {
      const found = layers.filter((layer) => {
        const ranks = scoresOf(lab, place, "test", layer, "centred", (rank) => 1 / rank);
        return accuracy(ranks, level).low > chance;
      });
      return [PLACE_NAMES[place], found.length, layers.length, runsOf(found)];
    }),
  };
}

/** Whole numbers in order: `0–3, 5`. */
function runsOf(numbers: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const n of numbers) {
    const run = runs.at(-1);
    if (run && run[1] === n - 1) run[1] = n;
    else runs.push([n, n]);
  }
  return runs.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`)).join(", ") || "–";
}

function similarityTable(lab: Lab, found: readonly PlaceFindings[]): Table {
  return {
    name: "similarity",
    title: "RSA and CKA, with the middle 95 % of shuffled pairs and the share of them that reach as much (p)",
    columns: ["place", "layer", "items of", "n", "RSA", "shuffled", "p", "CKA", "shuffled", "p"],
    rows: found.flatMap(({ place, layer, kinds }) =>
      kinds.map(({ task, at: { rsa, cka } }) => [
        PLACE_NAMES[place],
        layer,
        task,
        lab.result(cellOf(lab, lab.task(task), "test")).items,
        rsa.value,
        `${rsa.low.toFixed(2)} to ${rsa.high.toFixed(2)}`,
        rsa.p.toFixed(3),
        cka.value,
        `${cka.low.toFixed(2)} to ${cka.high.toFixed(2)}`,
        cka.p.toFixed(3),
      ]),
    ),
  };
}

function controlTable(found: readonly PlaceFindings[]): Table {
  return {
    name: "controls",
    title:
      "MRR with the means left in and of random vectors; cosine of right and wrong pairs with the means left in",
    columns: [
      "place",
      "layer",
      "mean removed",
      "as they are",
      "random of the same norms",
      "right pairs",
      "wrong pairs",
    ],
    rows: found.map(({ place, layer, reciprocal: rr, kinds }) => [
      PLACE_NAMES[place],
      layer,
      rr.centred,
      rr.raw,
      rr.random,
      mean(kinds.map(({ at }) => at.rightCosine)),
      mean(kinds.map(({ at }) => at.wrongCosine)),
    ]),
  };
}

function foreignTable(lab: Lab, found: readonly PlaceFindings[]): Table {
  return {
    name: "other-items",
    title:
      "RSA and CKA of pictures with their names, beside the middle 95 % of random pairs with the names of another kind of items, and the share of these that reach as much (p)",
    columns: [
      "place",
      "layer",
      "pictures of",
      "other names of",
      "n",
      "RSA",
      "with other names",
      "p",
      "CKA",
      "with other names",
      "p",
    ],
    rows: found.flatMap(({ place, layer, kinds }) =>
      kinds.flatMap(({ task, at: { foreign } }) =>
        foreign
          ? [
              [
                PLACE_NAMES[place],
                layer,
                task,
                otherKind(lab, lab.task(task)),
                foreign.rsa.items,
                ...[foreign.rsa, foreign.cka].flatMap(({ value, low, high, p }) => [
                  value,
                  `${low.toFixed(2)} to ${high.toFixed(2)}`,
                  p.toFixed(3),
                ]),
              ],
            ]
          : [],
      ),
    ),
  };
}
