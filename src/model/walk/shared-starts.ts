import type { Tensor } from "../../tensor/tensor.ts";
import { placesByImage } from "../prompt/image-places.ts";
import type { Prompt } from "../prompt/prompt.ts";
import { type Entrance, enter, takeRows } from "./forward.ts";
import { type KeysAndValues, type KeysToUse, type KeyValueStore, PrefixRows } from "./key-value-store.ts";
import type { Network } from "./network.ts";
import type { Pass } from "./pass.ts";
import { RowMap } from "./row-map.ts";
import type { Walk } from "./site-events.ts";
import { giveBack } from "./walk.ts";

/** Tokens that two prompts have to begin with alike. */
const FEWEST_TOKENS = 16;
/** Rows that a batch has to save: what is shared costs attention a second source of keys. */
const FEWEST_ROWS = 64;

/** The first positions of a sequence, which are those of another one. */
export interface SharedStart {
  /** The sequence that computes them. It shares none itself. */
  readonly leader: number;
  readonly count: number;
}

/** By sequence, what bounds a start that it shares. */
export interface StartLimits {
  /** The first position of which something is wanted. */
  readonly wanted: readonly number[];
  /** The first position of which something is changed: those behind it are not what they are in another prompt. */
  readonly changed: readonly number[];
}

/**
 * Prompts of a batch that begin alike: the first of each group computes its start, the others only what comes behind it, with
 * the keys and values of the first. Rows behind the start see what they would see alone.
 */
export class SharedStarts implements Entrance {
  /** The rows that are computed, by sequence: all, or those behind the shared start. */
  readonly rows: RowMap;
  readonly #starts: readonly (SharedStart | undefined)[];
  /** Of the rows of whole prompts, those that are computed. */
  readonly #taken: readonly number[];
  readonly #whole: RowMap;

  constructor(lengths: readonly number[], starts: readonly (SharedStart | undefined)[]) {
    this.#starts = starts;
    this.#whole = RowMap.packed(lengths);
    const firsts = lengths.map((_, s) => this.first(s));
    this.rows = RowMap.packed(
      lengths.map((length, s) => length - firsts[s]!),
      firsts,
    );
    this.#taken = [...this.rows.entries()].map(
      ({ sequence, position }) => this.#whole.row(sequence, position)!,
    );
  }

  /** The first position of a sequence that is computed for it. */
  first(sequence: number): number {
    return this.#starts[sequence]?.count ?? 0;
  }

  /** Where the keys of shared starts lie, if `rowOf` is where a sequence's position 0 does. */
  prefix(rowOf: (sequence: number) => number): RowMap {
    return new RowMap(
      this.#starts.flatMap((start, sequence) =>
        start ? [{ sequence, position: 0, row: rowOf(start.leader), count: start.count }] : [],
      ),
    );
  }

  /** For a pass over {@link rows}. */
  get keys(): KeyValueStore {
    return new SharedKeys(this);
  }

  /** What enters the first block, for a pass over {@link rows}: [rows, width]. Sites before the blocks see whole prompts. */
  *enter(network: Network, prompts: readonly Prompt[], pass: Pass): Walk<Tensor> {
    const embedded = yield* enter(network, prompts, pass.ofRows(this.#whole));
    const taken = takeRows(embedded, this.#taken);
    giveBack(embedded, taken);
    return taken;
  }
}

/** Every key is computed in the pass itself, those of a shared start by the sequence that has it. */
class SharedKeys implements KeyValueStore {
  readonly own: RowMap;
  readonly prefix: RowMap;
  readonly #cut: PrefixRows;

  constructor(starts: SharedStarts) {
    this.own = starts.rows;
    this.#cut = new PrefixRows(starts.prefix((leader) => starts.rows.row(leader, 0)!));
    this.prefix = this.#cut.rows;
  }

  use(_layer: number, computed: KeysAndValues): KeysToUse {
    return { ...computed, prefix: this.#cut.of(computed) };
  }
}

/**
 * What of a batch's prompts need not be computed more than once; undefined where that is too little to gain by. Only for
 * networks whose later rows read earlier ones through self-attention alone.
 */
export function sharedStarts(
  network: Network,
  prompts: readonly Prompt[],
  limits?: StartLimits,
): SharedStarts | undefined {
  if (network.context || prompts.length < 2) return undefined;
  const contents = contentsOf(network, prompts);
  const starts: (SharedStart | undefined)[] = prompts.map(() => undefined);
  const startOf = (leader: number, s: number): number => {
    const most = Math.min(
      prompts[s]!.last,
      limits?.wanted[s] ?? Number.POSITIVE_INFINITY,
      limits?.changed[s] ?? Number.POSITIVE_INFINITY,
      limits?.changed[leader] ?? Number.POSITIVE_INFINITY,
    );
    return seenAlike(
      network,
      prompts[leader]!,
      prompts[s]!,
      Math.min(most, alike(contents[leader]!, contents[s]!)),
    );
  };
  // Sorted by what they hold, prompts that begin alike stand together.
  const order = [...prompts.keys()].sort((a, b) => compare(contents[a]!, contents[b]!));
  let leader = order[0]!;
  for (const [i, s] of order.entries()) {
    if (i === 0) continue;
    const next = order[i + 1];
    const common = alike(contents[leader]!, contents[s]!);
    const rival = next === undefined ? 0 : alike(contents[s]!, contents[next]!);
    // A sequence that has much more in common with those behind it had better compute that for them.
    const count = common < FEWEST_TOKENS || rival > 2 * common ? 0 : startOf(leader, s);
    if (count >= FEWEST_TOKENS) starts[s] = { leader, count };
    else leader = s;
  }
  const saved = starts.reduce((sum, start) => sum + (start?.count ?? 0), 0);
  if (saved < FEWEST_ROWS) return undefined;
  return new SharedStarts(
    prompts.map(({ length }) => length),
    starts,
  );
}

/**
 * Of `most` positions that hold the same in both prompts, the first ones whose rows are the same: turned alike, and with no query
 * among them that sees a key behind them.
 */
function seenAlike(network: Network, a: Prompt, b: Prompt, most: number): number {
  const border = network.config.rope?.beyond?.tokens ?? Number.POSITIVE_INFINITY;
  if (a.length > border !== b.length > border) return 0;
  const rules = [...new Set(network.stack.blocks.map(({ rule }) => rule))];
  let count = 0;
  let seen = 0; // end of what the queries so far see
  for (let query = 0; query < most; query++) {
    for (const rule of rules) {
      const [of, other] = [rule(query, { prompt: a }), rule(query, { prompt: b })];
      if (of.start !== other.start || of.end !== other.end) return count;
      seen = Math.max(seen, of.end);
    }
    if (seen <= query + 1) count = query + 1;
  }
  return count;
}

/**
 * Of each prompt what its positions hold: token ids, and at the places of pictures a number of their own for each picture (and
 * text that a Q-Former reads beside it), below 0.
 */
function contentsOf({ config: { vision } }: Network, prompts: readonly Prompt[]): (readonly number[])[] {
  const numbers = new Map<unknown, Map<string, number>>();
  let last = 0;
  const numberOf = (image: unknown, instruction: string) => {
    const ofImage = numbers.get(image) ?? new Map<string, number>();
    numbers.set(image, ofImage);
    const number = ofImage.get(instruction) ?? --last;
    ofImage.set(instruction, number);
    return number;
  };
  return prompts.map((prompt) => {
    if (!vision || prompt.images.length === 0) return prompt.ids;
    const contents = [...prompt.ids];
    for (const [i, places] of placesByImage(prompt, vision).entries()) {
      const number = numberOf(prompt.images[i], prompt.instruction?.join() ?? "");
      for (const place of places) contents[place] = number;
    }
    return contents;
  });
}

function alike(a: readonly number[], b: readonly number[]): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return i;
  return length;
}

function compare(a: readonly number[], b: readonly number[]): number {
  const at = alike(a, b);
  return (a[at] ?? Number.NEGATIVE_INFINITY) - (b[at] ?? Number.NEGATIVE_INFINITY);
}
