import {
  decodeStream,
  extractActivations,
  type PatchableModel,
  type Prompt,
  softmax,
  type Tensor,
  topK,
} from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { AskedSplit, Lab } from "../framework/lab.ts";
import { specifiedQueries } from "../framework/prompts.ts";
import { checkReading } from "../framework/readings.ts";
import type { Setup } from "./layer-sweep.ts";
import { TARGETS, type Target, type TokenSets, tokenSets, typeTokens } from "./token-sets.ts";

export interface LensParams extends Setup {
  readonly task: string;
  readonly split: AskedSplit;
}

/** What the lens shows of a set of tokens, `[item][layer]`. */
export interface Traced {
  /** Probability of all of them. */
  readonly mass: readonly (readonly number[])[];
  /** 1 over the rank of the most probable one; 0 where the set is empty. */
  readonly reciprocalRank: readonly (readonly number[])[];
}

export interface LensPhasesResult {
  readonly prompts: readonly string[];
  /** Of the items looked at, in order. */
  readonly inputs: readonly string[];
  /** Items left out since their name and answer begin with the same token, or one of them with none that there is. */
  readonly ambiguous: number;
  /** The token that most validation prompts' delimiter reads as behind the first layer; absent where none was looked at. */
  readonly delimiter?: number;
  readonly own: Readonly<Record<Target, Traced>>;
  /**
   * The same of the sets of another item (input, answer) and of another task (task, answers), and of the token before the
   * delimiter.
   */
  readonly other: Readonly<Record<Target, Traced>>;
}

/** The logit lens at the last token of specified queries: the sets of tokens, through the layers. */
export const lensPhases = defineCell(
  "lens-phases",
  async (lab, { task: name, split, ...setup }: LensParams): Promise<LensPhasesResult> => {
    const task = lab.task(name);
    const all = lab.items(task, split);
    const prompts = await specifiedQueries(lab, task, { split, ...setup, seed: 0 });
    const { model } = lab;
    const { tokenizer } = model;
    const distinct = all.flatMap((item, i) =>
      tokenSets(tokenizer, task, all, item, undefined, lab.options) ? [{ item, prompt: prompts[i]! }] : [],
    );
    const used = distinct.map(({ prompt }) => prompt);
    using activations = used.length > 0 ? extractActivations(model, used) : undefined;
    const delimiter =
      split === "validation"
        ? await firstReading(model, used, activations)
        : (await lab.run(lensPhases({ task: name, split: "validation", ...setup }))).delimiter;
    const kept = distinct.map(({ item, prompt }) => ({
      sets: tokenSets(tokenizer, task, all, item, delimiter, lab.options)!,
      input: item.input,
      prompt,
    }));
    const foreign = otherTaskSets(lab, name, split);
    const controls = kept.map(({ sets, prompt }, i): TokenSets => {
      const next = kept[(i + 1) % kept.length]!.sets;
      const without = (ids: readonly number[], own: readonly number[]) =>
        ids.filter((id) => !own.includes(id));
      const { ids, last } = prompt;
      return {
        delimiter: without(
          [ids[last - 1]!],
          TARGETS.flatMap((target) => sets[target]),
        ),
        input: without(next.input, sets.input),
        answer: without(next.answer, sets.answer),
        ...foreign(sets),
      };
    });
    const own = emptyTraces();
    const other = emptyTraces();
    await eachLens(model, activations, (i, probabilities) => {
      for (const [layer, row] of probabilities.entries()) {
        checkReading(row[0]!, model, placeOf(used[i]!, layer)); // softmax makes all NaN where one is
      }
      for (const target of TARGETS) {
        addTrace(own[target], probabilities, kept[i]!.sets[target]);
        addTrace(other[target], probabilities, controls[i]![target]);
      }
    });
    lab.spendPasses(used, lab.model);
    return {
      prompts: used.map(({ text }) => text),
      inputs: kept.map(({ input }) => input),
      ambiguous: all.length - kept.length,
      delimiter,
      own,
      other,
    };
  },
);

/** The token that most prompts' last token reads as behind the first layer; of equals the first. */
async function firstReading(
  model: PatchableModel,
  prompts: readonly Prompt[],
  activations?: Tensor,
): Promise<number | undefined> {
  if (!activations) return undefined;
  const { device, config } = model;
  const scope = device.openScope();
  try {
    const tops = scope.enter(() =>
      prompts.map((_, i) =>
        device.scope(() => topK(decodeStream(model, activations.at(i).at(0).reshape([1, config.width])), 1)),
      ),
    );
    const read = await device.read(tops.flatMap(({ values, indices }): Tensor[] => [values, indices]));
    const ids = prompts.map((prompt, i) => {
      checkReading(read[2 * i]![0]!, model, placeOf(prompt, 0));
      return read[2 * i + 1]![0]!;
    });
    const count = (id: number) => ids.filter((other) => other === id).length;
    return ids.reduce((most, id) => (count(id) > count(most) ? id : most));
  } finally {
    scope.dispose();
  }
}

const placeOf = ({ text }: Prompt, layer: number) =>
  `resid_post.${layer} at the last token of ${JSON.stringify(text)}`;

/** Token probabilities of each prompt's last token, a row a layer; `activations` are [prompts, layers, width]. */
async function eachLens(
  model: PatchableModel,
  activations: Tensor | undefined,
  see: (prompt: number, probabilities: readonly Float32Array[]) => void,
): Promise<void> {
  if (!activations) return;
  for (let i = 0; i < activations.shape[0]!; i++) {
    using probabilities = model.device.scope(() => softmax(decodeStream(model, activations.at(i))));
    const [layers = 0, vocab = 0] = probabilities.shape;
    const values = await probabilities.read();
    see(
      i,
      Array.from({ length: layers }, (_, layer) =>
        Float32Array.from(values.subarray(layer * vocab, (layer + 1) * vocab)),
      ),
    );
  }
}

/** The task and answer sets of the next task, without what an item's own sets hold; empty where there is only one task. */
function otherTaskSets(lab: Lab, name: string, split: AskedSplit) {
  const index = lab.tasks.findIndex((task) => task.name === name);
  const other = lab.tasks[(index + 1) % lab.tasks.length]!;
  const sets = typeTokens(lab.model.tokenizer, other, lab.items(other, split), lab.options);
  return (own: TokenSets): Pick<TokenSets, "task" | "answers"> => {
    const mine = new Set(TARGETS.flatMap((target) => own[target]));
    const foreign = (ids: readonly number[]) =>
      other.name === name ? [] : ids.filter((id) => !mine.has(id));
    return { task: foreign(sets.task), answers: foreign(sets.answers) };
  };
}

interface Trace {
  readonly mass: number[][];
  readonly reciprocalRank: number[][];
}

function emptyTraces(): Record<Target, Trace> {
  const trace = (): Trace => ({ mass: [], reciprocalRank: [] });
  return { delimiter: trace(), input: trace(), task: trace(), answers: trace(), answer: trace() };
}

function addTrace(
  { mass, reciprocalRank }: Trace,
  layers: readonly Float32Array[],
  ids: readonly number[],
): void {
  mass.push(layers.map((row) => ids.reduce((sum, id) => sum + row[id]!, 0)));
  reciprocalRank.push(
    layers.map((row) => {
      if (ids.length === 0) return 0;
      const best = Math.max(...ids.map((id) => row[id]!));
      // Of a vocabulary, for each layer, set and item: a loop, as reduce is several times slower.
      let above = 0;
      for (const value of row) if (value > best) above++;
      return 1 / (1 + above);
    }),
  );
}
