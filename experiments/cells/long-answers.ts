import {
  answerEach,
  type Edit,
  firstLine,
  type Generated,
  isCorrect,
  isCorrectTokens,
  isWholeAnswer,
  type PatchableModel,
  type Prompt,
  relatedTasks,
  type Task,
  type TaskItem,
  type Tokenizer,
} from "xpatch";
import { rowLayersOf } from "#src/patching/row-layers";
import { defineCell } from "../framework/cell.ts";
import type { Lab } from "../framework/lab.ts";
import { queries, seedsOf, specifiedQueries } from "../framework/prompts.ts";
import type { Scoring } from "../framework/scored.ts";
import { randomLike } from "../statistics/vectors.ts";
import { chosenLayer, patchAt, type Setup, tasksWith } from "./layer-sweep.ts";
import { vectorsOf } from "./task-vectors.ts";

/** How an answer of a line is right: by the whole of it, by the paper's rule for the line, or that for its first token. */
export const MEASURES = ["whole", "prefix", "firstToken"] as const;

export type Measure = (typeof MEASURES)[number];

/** Answers of a line, and for each measure a character an item, `1` where it is right. */
export interface LongAnswers extends Readonly<Record<Measure, string>> {
  readonly answers: readonly string[];
}

/** Vectors in place of the task's own: of the task that shares most inputs, of one that shares none, and a random one. */
export const LONG_CONTROLS = ["nearestTask", "anotherTask", "random"] as const;

export type LongControl = (typeof LONG_CONTROLS)[number];

export interface LongPatchResult {
  /** The layer that validation items chose, by one token. */
  readonly layer: number;
  /** Most tokens of an answer. */
  readonly limit: number;
  readonly noContext: LongAnswers;
  /** By seed. */
  readonly patched: readonly LongAnswers[];
  /** With a single task there is no other one. Where no task is so, the next one stands for it. */
  readonly controls: Readonly<Partial<Record<LongControl, LongAnswers>>>;
}

/** Whole answers to the test items of a task, patched at the query's last token and nowhere else. */
export const longPatch = defineCell(
  "long-patch",
  async (lab, { task: name, ...setup }: Setup & { task: string }): Promise<LongPatchResult> => {
    const task = lab.task(name);
    const bare = await queries(lab, task, "test", setup.query);
    const layer = chosenLayer(lab, setup, task);
    const { specification } = setup;
    const vectorOf = async (of: string, seed: number) =>
      (await vectorsOf(lab, { source: "model", task: of, specification, seed }))[layer]!;
    const own: Float32Array[] = [];
    for (const seed of seedsOf(lab, specification)) own.push(await vectorOf(name, seed));
    const controls: [LongControl, Float32Array][] = [["random", randomLike(own[0]!, layer)]];
    for (const [control, other] of otherTasks(lab, task, setup)) {
      controls.push([control, await vectorOf(other.name, 0)]);
    }
    const vectors = [...own, ...controls.map(([, vector]) => vector)];
    const [noContext, ...patched] = await longAnswers(lab, task, bare, [
      [],
      ...vectors.map((vector) => patchAt(lab, layer, vector)),
    ]);
    return {
      layer,
      limit: mostTokens(lab.model.tokenizer, task),
      noContext: noContext!,
      patched: patched.slice(0, own.length),
      controls: Object.fromEntries(controls.map(([control], i) => [control, patched[own.length + i]!])),
    };
  },
);

function otherTasks(lab: Lab, task: Task, setup: Setup): [LongControl, Task][] {
  const tasks = tasksWith(lab, setup);
  const index = tasks.indexOf(task);
  const others = [...tasks.slice(index + 1), ...tasks.slice(0, index)];
  if (others.length === 0) return [];
  const alike = relatedTasks(task.name, lab.pool(task, "test"), others, others.length);
  return [
    ["nearestTask", alike[0] ?? others[0]!],
    ["anotherTask", others.find((other) => !alike.includes(other)) ?? others[0]!],
  ];
}

/** Whole answers to the test items of a task behind their specification. */
export const longPrompt = defineCell(
  "long-prompt",
  async (lab, { task: name, ...asked }: Setup & { task: string; seed: number }): Promise<LongAnswers> => {
    const task = lab.task(name);
    const prompts = await specifiedQueries(lab, task, { split: "test", ...asked });
    const [answers] = await longAnswers(lab, task, prompts, [[]]);
    return answers!;
  },
);

/** Tokens of prompts that are continued at a time; bounds the memory. */
const BATCH_TOKENS = 1024;

/** Greedy answers to test items up to the end of the line, or of the most tokens, under each set of edits. */
async function longAnswers(
  lab: Lab,
  task: Task,
  prompts: readonly Prompt[],
  edits: readonly (readonly Edit[])[],
): Promise<LongAnswers[]> {
  const { model } = lab;
  const items = lab.items(task, "test");
  const maxNewTokens = mostTokens(model.tokenizer, task);
  const stopIds = lineEnds(model);
  const longest = Math.max(...prompts.map(({ length }) => length));
  const atOnce = Math.max(1, Math.floor(BATCH_TOKENS / (longest * edits.length)));
  const found: Generated[][] = edits.map(() => []);
  for (let first = 0; first < prompts.length; first += atOnce) {
    const some = prompts.slice(first, first + atOnce);
    const answers = await answerEach(model, some, edits, maxNewTokens, { stopIds });
    for (const [e, row] of answers.entries()) found[e]!.push(...row);
  }
  for (const row of found) spendAnswers(lab, prompts, row);
  return found.map((row) => scoredLines(model.tokenizer, items, row, lab.options));
}

export function scoredLines(
  tokenizer: Tokenizer,
  items: readonly TaskItem[],
  generated: readonly Generated[],
  { caseSensitive = false }: Scoring,
): LongAnswers {
  const options = { ignoreCase: !caseSensitive };
  const lines = generated.map((one) => firstLine(tokenizer, one));
  const hits = (isRight: (outputs: readonly string[], i: number) => boolean) =>
    items.map(({ outputs }, i) => (isRight(outputs, i) ? "1" : "0")).join("");
  return {
    answers: lines,
    whole: hits((outputs, i) => isWholeAnswer(lines[i]!, outputs, options)),
    prefix: hits((outputs, i) => isCorrect(lines[i]!, outputs, options)),
    firstToken: hits((outputs, i) =>
      isCorrectTokens(tokenizer, generated[i]!.ids.slice(0, 1), outputs, options),
    ),
  };
}

/** Room for every right answer of the task and one token more, so that an answer that goes on is seen to. */
export function mostTokens(tokenizer: Tokenizer, { items }: Task): number {
  const lengths = items.flatMap(({ outputs }) => outputs.map((output) => tokensOf(tokenizer, output)));
  return Math.max(...lengths) + 1;
}

/** Tokens that an output takes behind an answer cue. */
export function tokensOf(tokenizer: Tokenizer, output: string): number {
  const encode = (text: string) => tokenizer.encode(text, { specials: false }).length;
  return encode(`A: ${output}`) - encode("A:");
}

const ends = new WeakMap<PatchableModel, ReadonlySet<number>>();

/** Tokens with a line break, and those that end all. */
function lineEnds(model: PatchableModel): ReadonlySet<number> {
  const known = ends.get(model);
  if (known) return known;
  const { tokenizer, endIds } = model;
  const found = new Set(endIds);
  for (let id = 0; id < tokenizer.size; id++) {
    if (tokenizer.decode([id]).includes("\n")) found.add(id);
  }
  ends.set(model, found);
  return found;
}

/** A row a token of the prompt and of the answer but its last; plainly, a pass over all so far for each token. */
function spendAnswers(lab: Lab, prompts: readonly Prompt[], answers: readonly Generated[]): void {
  const { layers } = lab.model.config;
  for (const [i, { ids }] of answers.entries()) {
    const prompt = rowLayersOf(lab.model, prompts[i]!);
    lab.spend({
      rowLayers: prompt + (ids.length - 1) * layers,
      plainRowLayers: ids.reduce((sum, _, step) => sum + prompt + step * layers, 0),
      plainPasses: ids.length,
    });
  }
}
