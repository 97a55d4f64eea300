import { type Edit, type Prompt, PromptError, type PromptImage, set, type Task, type TaskItem } from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { AskedSplit, Lab } from "../framework/lab.ts";
import { queries, specifiedQueries } from "../framework/prompts.ts";
import { patchOwn } from "../framework/recorded.ts";
import { type Answered, answered, type Scored, scored } from "../framework/scored.ts";
import { mean } from "../statistics/resample.ts";
import { meanOf, randomLike } from "../statistics/vectors.ts";
import { chosenLayer, patchAt, type Setup, tasksWith } from "./layer-sweep.ts";
import { spread } from "./spread.ts";
import { vectorsOf } from "./task-vectors.ts";

/** What tells the task: text examples before the question, or their vector at its last token. */
export const WAYS = ["prompt", "patch"] as const;
export type Way = (typeof WAYS)[number];

/** Text examples; the question is a picture, whose entity is replaced by that of its name. */
export const ENTITY_SETUP: Setup = { specification: "text", query: "image" };

export interface EntityParams {
  readonly task: string;
  readonly way: Way;
  /** Draws the examples. */
  readonly seed: number;
}

export interface EntitySweepResult {
  readonly layers: readonly number[];
  /** `patched[l]`: with the name's residual stream of that layer, behind that layer, at the picture's last token. */
  readonly patched: readonly Scored[];
}

/**
 * Accuracy on validation items by the layer of the name's residual stream that the picture's last token is given, under the
 * task vector: behind examples each question costs some five times as much.
 */
export const entitySweep = defineCell(
  "entity-sweep",
  async (lab, { task, seed }: Omit<EntityParams, "way">): Promise<EntitySweepResult> => {
    const asked = await askedTwice(lab, { task, way: "patch", seed }, "validation");
    const { items, pictures, base, states, at } = asked;
    const layers = spread(lab.layers);
    const { patched } = await patchOwn(lab, pictures, {
      edits: (i) => layers.map((layer) => [set(lab.streamAt(layer), at(i), states[i]![layer]!), ...base]),
    });
    return { layers, patched: patched.map((ids) => scored(lab.model.tokenizer, items, ids, lab.options)) };
  },
);

export interface EntityTestResult {
  /** That of the name's residual stream, chosen on validation items. */
  readonly layer: number;
  readonly prompts: readonly string[];
  /** The picture as it is, and its name in its place. */
  readonly picture: Answered;
  readonly name: Answered;
  /** The picture, with the residual stream of its name at its last token. */
  readonly entity: Answered;
  /** That of another item's name, as an answer to the picture and as one to that name. */
  readonly another: Answered;
  readonly anotherAsked: Answered;
  /** The mean over the names of all items asked about. */
  readonly meanName: Answered;
  /** Random, of the norm of the name's. */
  readonly random: Answered;
}

/** Test items with their names' residual stream at the picture's last token, in the chosen layer, and with controls. */
export const entityTest = defineCell(
  "entity-test",
  async (lab, params: EntityParams): Promise<EntityTestResult> => {
    const task = lab.task(params.task);
    const layer = chosenEntityLayer(lab, task);
    const { items, pictures, base, states, at, nameIds } = await askedTwice(lab, params, "test");
    const vectors = states.map((byLayer) => byLayer[layer]!);
    const others = items.map((_, i) => anotherItem(items, i));
    const { unpatched, patched } = await patchOwn(lab, pictures, {
      edits: (i) => [
        ...[
          vectors[i]!,
          vectors[others[i]!]!,
          meanOf(vectors),
          randomLike(vectors[i]!, layer * items.length + i),
        ].map((vector) => [set(lab.streamAt(layer), at(i), vector), ...base]),
        ...(base.length > 0 ? [base] : []),
      ],
    });
    const score = (ids: readonly number[], asked = items) =>
      answered(lab.model.tokenizer, asked, ids, lab.options);
    const [entity, another, meanName, random, withBase] = patched;
    return {
      layer,
      prompts: pictures.map(({ text }) => text),
      picture: score(withBase ?? unpatched),
      name: score(nameIds),
      entity: score(entity!),
      another: score(another!),
      anotherAsked: score(
        another!,
        others.map((other) => items[other]!),
      ),
      meanName: score(meanName!),
      random: score(random!),
    };
  },
);

/** The layer with the highest mean accuracy over the tasks on validation items, seed 0; of equals the first. */
export function chosenEntityLayer(lab: Lab, task: Task): number {
  const tasks = lab.options.layerBy === "task" ? [task] : tasksWith(lab, ENTITY_SETUP, lab.tasksInMeans);
  const sweeps = tasks.map(({ name }) => lab.result(entitySweep({ task: name, seed: 0 })));
  const { layers } = sweeps[0]!;
  const means = layers.map((_, l) => mean(sweeps.map(({ patched }) => patched[l]!.accuracy)));
  return layers[means.indexOf(Math.max(...means))]!;
}

/** The same questions about pictures and about their names. */
interface AskedTwice {
  readonly items: readonly TaskItem[];
  readonly pictures: readonly Prompt<PromptImage>[];
  /** The task vector's edit, where that tells the task. */
  readonly base: readonly Edit[];
  /** `states[item][layer]`: the residual stream at the name's last token. */
  readonly states: readonly (readonly Float32Array[])[];
  /** The answers to the names. */
  readonly nameIds: readonly number[];
  /** Position of the last token of an item's picture. */
  readonly at: (index: number) => number;
}

async function askedTwice(
  lab: Lab,
  { task: name, way, seed }: EntityParams,
  split: AskedSplit,
): Promise<AskedTwice> {
  const task = lab.task(name);
  const ask = (query: "image" | "text") =>
    way === "prompt"
      ? specifiedQueries(lab, task, { split, specification: "text", query, seed })
      : queries(lab, task, split, query);
  const base: Edit[] = [];
  if (way === "patch") {
    const layer = chosenLayer(lab, ENTITY_SETUP, task);
    const vectors = await vectorsOf(lab, { source: "model", task: name, specification: "text", seed });
    base.push(...patchAt(lab, layer, vectors[layer]!));
  }
  const pictures = await ask("image");
  const names = await ask("text");
  const at = (index: number) => pictures[index]!.span("image").end - 1;
  const { states, unpatched, patched } = await patchOwn(lab, names, {
    read: (index) => lastOfName(names[index]!, pictures[index]!),
    edits: () => (base.length > 0 ? [base] : []),
  });
  return { items: lab.items(task, split), pictures, base, states, nameIds: patched[0] ?? unpatched, at };
}

/**
 * Where a name ends: before the tokens that follow it as they follow the picture in the other prompt. Prompts with pictures may
 * have an end of their own behind those (Fuyu's).
 */
export function lastOfName(name: Prompt, picture: Prompt): number {
  const follows = picture.ids.slice(picture.span("image").end);
  for (let length = follows.length; length > 0; length--) {
    let shared = 0;
    while (shared < length && name.ids[name.length - 1 - shared] === follows[length - 1 - shared]) shared++;
    if (shared > 0 && shared < name.length) return name.length - 1 - shared;
  }
  throw new PromptError(
    `expected ${JSON.stringify(name.text)} to end as the same question about a picture does`,
  );
}

/** The next item that shares no answer with this one, or else the next. */
export function anotherItem(items: readonly TaskItem[], index: number): number {
  const others = items.map((_, i) => (index + 1 + i) % items.length).slice(0, -1);
  const apart = others.find(
    (i) => !items[i]!.outputs.some((output) => items[index]!.outputs.includes(output)),
  );
  return apart ?? others[0] ?? index;
}
