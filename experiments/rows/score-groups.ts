import { SCALES } from "../cells/conflict.ts";
import type { LongAnswers } from "../cells/long-answers.ts";
import type { ScoredTwice } from "../cells/pairs.ts";
import type { Params } from "../framework/cell.ts";
import type { CellRecord } from "../framework/cell-store.ts";
import type { AskedSplit } from "../framework/lab.ts";
import type { Answered, Scored } from "../framework/scored.ts";

/** Answers that were kept: of one token with or without their texts, or of a line. */
export type Scores = Scored | Answered | LongAnswers;

/** Which items answers are to, and by whose outputs they are right. */
export type Asked =
  /** Those of the split, or of it those that a pair of tasks shares or that are described. */
  | "own"
  /** The same inputs, as the pair's other task answers them. */
  | "other"
  /** The same items, as their own question is answered. */
  | "question"
  /** For each item another one, whose name's state was put in. */
  | "another";

/** Answers to a list of items that were all come by in the same way. */
export interface ScoreGroup {
  readonly scores: Scores;
  readonly split: AskedSplit;
  readonly asked: Asked;
  readonly specification?: string;
  readonly query: string;
  /** What was done: `no-context`, `prompt`, `patch`, `control`, `edit`, `training`, `state`. */
  readonly method: string;
  /** Which of several of that method, as `name` or `name=value …`. */
  readonly variant?: string;
  readonly layer?: number;
  readonly seed?: number;
}

/** What groups of a cell have in common. */
type Common = Pick<ScoreGroup, "split" | "query" | "specification"> & { readonly asked?: Asked };
type Detail = Pick<ScoreGroup, "method"> & Partial<Omit<ScoreGroup, "scores" | "split" | "method">>;

/** The groups of each kind of cell that keeps answers; a result is what the cell's file says that it is. */
const KINDS: Readonly<Record<string, (result: never, params: Params) => ScoreGroup[]>> = {
  "layer-sweep": sweepGroups,
  "llm-layer-sweep": (result: Sweep, params) => ofLlm(sweepGroups(result, params)),
  "ensemble-sweep": (result: Sweep, params) => sweepGroups(result, params, "ensemble"),
  "overriding-sweep": (result: Sweep, params) =>
    sweepGroups(result, { ...params, specification: "instruction" }),
  "position-sweep": (result: { positions: string[]; layers: number[]; patched: Scores[][] }, params) => {
    const one = groupIn(validation(params, "text"));
    return result.patched.flatMap((byLayer, p) =>
      byLayer.map((scores, l) => {
        const variant = `position=${p} token=${JSON.stringify(result.positions[p])}`;
        return one(scores, { method: "patch", variant, layer: result.layers[l], seed: 0 });
      }),
    );
  },
  "layer-pairs": (result: { sources: number[]; targets: number[]; patched: Scores[][] }, params) => {
    const one = groupIn(validation(params, "text"));
    return result.patched.flatMap((byTarget, s) =>
      byTarget.map((scores, t) => {
        const variant = `source=${result.sources[s]}`;
        return one(scores, { method: "patch", variant, layer: result.targets[t], seed: 0 });
      }),
    );
  },
  "test-patch": patchGroups,
  "llm-test-patch": (result: TestPatch, params) => ofLlm(patchGroups(result, params)),
  "dense-patch": (result: TestPatch, params) =>
    patchGroups(result, { ...params, query: "text" }, asked(params)),
  "long-patch": patchGroups,
  "test-prompt": promptGroups,
  "dense-prompt": (result: Scores, params) =>
    promptGroups(result, { ...params, query: "text" }, asked(params)),
  "long-prompt": promptGroups,
  "bare-answers": (scores: Scores, params) => [
    groupIn({ split: params["split"] as AskedSplit, query: text(params["query"]) })(scores, {
      method: "no-context",
    }),
  ],
  arithmetic: (
    result: { layer: number; unpatched: ScoredTwice; edited: Record<string, ScoredTwice[]> },
    params,
  ) => {
    const common = { ...test(params, "text"), split: params["split"] as AskedSplit };
    return [
      ...twice(common, result.unpatched, { method: "no-context" }),
      ...Object.entries(result.edited).flatMap(([variant, seeds]) =>
        seeds.flatMap((scores, seed) =>
          twice(common, scores, { method: "edit", variant, layer: result.layer, seed }),
        ),
      ),
    ];
  },
  "conflict-sweep": (result: { layers: number[]; patched: ScoredTwice[][] }, params) =>
    result.patched.flatMap((byLayer, s) =>
      byLayer.flatMap((scores, l) =>
        twice(validation(params), scores, { ...scaled(s, params), layer: result.layers[l] }),
      ),
    ),
  "conflict-test": (
    result: {
      layer: number;
      unpatched: ScoredTwice;
      patched: ScoredTwice[];
      controls: Record<string, ScoredTwice>;
    },
    params,
  ) => {
    const { layer } = result;
    const seed = params["seed"] as number;
    return [
      ...twice(test(params), result.unpatched, { method: "prompt", seed }),
      ...result.patched.flatMap((scores, s) => twice(test(params), scores, { ...scaled(s, params), layer })),
      ...Object.entries(result.controls).flatMap(([variant, scores]) =>
        twice(test(params), scores, { method: "control", variant, layer, seed }),
      ),
    ];
  },
  "entity-sweep": (result: { layers: number[]; patched: Scores[] }, params) => {
    const one = groupIn({ ...validation(params, "text"), query: "image" });
    return result.patched.map((scores, l) =>
      one(scores, {
        method: "state",
        variant: "way=patch entity",
        layer: result.layers[l],
        seed: seedOf(params),
      }),
    );
  },
  "entity-test": (result: Record<string, Scores> & { layer: never }, params) => {
    const one = groupIn({ ...test(params, "text"), query: "image" });
    const seed = seedOf(params);
    const states = ["entity", "another", "meanName", "random"];
    const as = (name: string): Detail => ({ method: "state", variant: `way=${params["way"]} ${name}`, seed });
    return [
      one(result["picture"]!, as("picture")),
      one(result["name"]!, { ...as("name"), query: "text" }),
      ...states.map((name) => one(result[name]!, { ...as(name), layer: result.layer })),
      one(result["anotherAsked"]!, { ...as("another"), layer: result.layer, asked: "another" }),
    ];
  },
  "ensemble-test": (
    result: {
      layers: Record<"text" | "instruction" | "ensemble", number>;
      counts: number[];
      noContext: Scores;
      instruction: Scores;
      examples: Scores[][];
      ensemble: Scores[][];
      controls: Record<string, Scores[]>;
    },
    params,
  ) => {
    const one = groupIn({ split: "test", query: text(params["query"]) });
    const { layers, counts } = result;
    const counted = (kind: "text" | "ensemble", bySeed: Scores[], c: number) =>
      bySeed.map((scores, seed) => {
        const variant = `prompts=${counts[c]}`;
        return one(scores, { method: "patch", specification: kind, variant, layer: layers[kind], seed });
      });
    const controls = Object.entries(result.controls).flatMap(([variant, bySeed]) =>
      bySeed.map((scores, seed) =>
        one(scores, { method: "control", specification: "ensemble", variant, layer: layers.ensemble, seed }),
      ),
    );
    return [
      one(result.noContext, { method: "no-context" }),
      one(result.instruction, {
        method: "patch",
        specification: "instruction",
        layer: layers.instruction,
        seed: 0,
      }),
      ...result.examples.flatMap((bySeed, c) => counted("text", bySeed, c)),
      ...result.ensemble.flatMap((bySeed, c) => counted("ensemble", bySeed, c)),
      ...controls,
    ];
  },
  "noisy-instructions": (result: { layer: number; patched: Record<string, Scores[]> }, params) => {
    const one = groupIn(test(params, "instruction"));
    return Object.entries(result.patched).flatMap(([noise, variants]) =>
      variants.map((scores, v) =>
        one(scores, { method: "patch", variant: `noise=${noise} text=${v}`, layer: result.layer, seed: 0 }),
      ),
    );
  },
  "overriding-test": (
    result: {
      layer: number;
      none: ScoredTwice;
      system: ScoredTwice;
      patched: ScoredTwice;
      controls: Record<string, ScoredTwice>;
    },
    params,
  ) => {
    const { layer } = result;
    const both = (scores: ScoredTwice, detail: Detail) =>
      twice(test(params, "instruction"), scores, detail, ["question", "own"]);
    return [
      ...both(result.none, { method: "no-context" }),
      ...both(result.system, { method: "prompt" }),
      ...both(result.patched, { method: "patch", layer }),
      ...Object.entries(result.controls).flatMap(([variant, scores]) =>
        both(scores, { method: "control", variant, layer }),
      ),
    ];
  },
  "fine-tuning-untrained": (result: Record<string, ByQuery> & { layer: never }, params) => {
    const at = { layer: result.layer, seed: seedOf(params) };
    const variant = `examples=${params["examples"]}`;
    const each = (name: string, detail: Detail) => byQuery(result[name]!, detail);
    return [
      ...each("noContext", { method: "no-context", variant }),
      ...each("patch", { method: "patch", variant, ...at }),
      ...each("added", { method: "edit", variant: `add ${variant}`, ...at }),
      ...each("random", { method: "control", variant: `random ${variant}`, ...at }),
    ];
  },
  "fine-tuning": (
    result: { bySteps: { steps: number; text: Scores }[]; end: ByQuery; elsewhere?: Scores },
    params,
  ) => {
    const variant = `arm=${params["arm"]} examples=${params["examples"]}`;
    const of = (steps: unknown): Detail => ({
      method: "training",
      variant: `${variant} steps=${steps}`,
      seed: seedOf(params),
    });
    return [
      ...result.bySteps.map(({ steps, text: scores }) =>
        groupIn({ split: "test", query: "text" })(scores, of(steps)),
      ),
      ...byQuery(result.end, of(params["steps"])),
    ];
  },
};

/** Scores that are kept but are no answers to the cell's own task. */
const NO_ROWS: Readonly<Record<string, (result: never) => number>> = {
  "fine-tuning": ({ elsewhere }: { elsewhere?: unknown }) => (elsewhere === undefined ? 0 : 1),
};

/**
 * The answers that a cell holds, in groups; none of a kind that holds none. Throws Error where a cell holds scores that are in
 * no group: a kind of cell that has no line here, or holds more than its line says.
 */
export function scoreGroups({ kind, params, result, key }: CellRecord): ScoreGroup[] {
  const groups = KINDS[kind]?.(result as never, params) ?? [];
  const left = NO_ROWS[kind]?.(result as never) ?? 0;
  const held = countScores(result);
  if (groups.length + left === held) return groups;
  throw new Error(`the cell "${key}" holds ${held} lists of scores, of which ${groups.length} are known`);
}

/** Whether a value is a list of scores. */
export function isScores(value: object): value is Scores {
  return "hits" in value || "firstToken" in value;
}

function countScores(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  if (isScores(value)) return 1;
  return Object.values(value).reduce((sum: number, one) => sum + countScores(one), 0);
}

interface Sweep {
  readonly layers: number[];
  readonly noContext: Scores;
  readonly patched: Scores[][];
}

function sweepGroups(
  { layers, noContext, patched }: Sweep,
  params: Params,
  specification?: string,
): ScoreGroup[] {
  const one = groupIn(validation(params, specification));
  return [
    one(noContext, { method: "no-context", variant: templateOf(params) }),
    ...patched.flatMap((byLayer, seed) =>
      byLayer.map((scores, l) =>
        one(scores, { method: "patch", variant: templateOf(params), layer: layers[l], seed }),
      ),
    ),
  ];
}

/** Of vectors from the language model that the model was fine-tuned from. */
function ofLlm(groups: readonly ScoreGroup[]): ScoreGroup[] {
  return groups.map((group) => {
    if (group.method === "no-context") return group;
    return {
      ...group,
      variant: [group.variant, "source=llm"].filter((word) => word !== undefined).join(" "),
    };
  });
}

interface TestPatch {
  readonly layer: number;
  readonly noContext: Scores;
  readonly patched: Scores[];
  /** By seed, or of one draw. */
  readonly controls: Record<string, Scores[] | Scores>;
}

function patchGroups(
  { layer, noContext, patched, controls }: TestPatch,
  params: Params,
  variant = templateOf(params),
): ScoreGroup[] {
  const one = groupIn(test(params));
  return [
    one(noContext, { method: "no-context", variant }),
    ...patched.map((scores, seed) => one(scores, { method: "patch", variant, layer, seed })),
    ...Object.entries(controls).flatMap(([name, bySeed]) =>
      [bySeed].flat().map((scores, seed) => {
        const which = variant === undefined ? name : `${name} ${variant}`;
        return one(scores, { method: "control", variant: which, layer, seed });
      }),
    ),
  ];
}

function promptGroups(scores: Scores, params: Params, variant = templateOf(params)): ScoreGroup[] {
  return [groupIn(test(params))(scores, { method: "prompt", variant, seed: seedOf(params) })];
}

/** The same answers by the outputs of both tasks. */
function twice(
  common: Common,
  { own, other }: ScoredTwice,
  detail: Detail,
  [first, second]: readonly [Asked, Asked] = ["own", "other"],
): ScoreGroup[] {
  const one = groupIn(common);
  return [one(own, { ...detail, asked: first }), one(other, { ...detail, asked: second })];
}

interface ByQuery {
  readonly text: Scores;
  readonly image?: Scores;
}

function byQuery(scores: ByQuery, detail: Detail): ScoreGroup[] {
  return Object.entries(scores).map(([query, one]) =>
    groupIn({ split: "test", query, specification: "text" })(one as Scores, detail),
  );
}

function groupIn(common: Common) {
  return (scores: Scores, detail: Detail): ScoreGroup => ({ asked: "own", ...common, ...detail, scores });
}

function test(params: Params, specification = optional(params["specification"])): Common {
  return { split: "test", query: text(params["query"]), specification };
}

function validation(params: Params, specification?: string): Common {
  return { ...test(params, specification), split: "validation" };
}

function scaled(index: number, params: Params): Detail {
  return { method: "patch", variant: `scale=${SCALES[index]}`, seed: seedOf(params) };
}

function asked(params: Params): string {
  return `asked=${params["asked"]}`;
}

function templateOf({ template }: Params): string | undefined {
  return template === undefined ? undefined : `template=${JSON.stringify(template)}`;
}

function seedOf({ seed }: Params): number | undefined {
  return seed === undefined ? undefined : Number(seed);
}

function text(value: string | number | undefined): string {
  return String(value ?? "text");
}

function optional(value: string | number | undefined): string | undefined {
  return value === undefined ? undefined : String(value);
}

/** Answers with their texts. */
export function textsOf(scores: Scores): readonly string[] | undefined {
  return "answers" in scores ? scores.answers : undefined;
}
