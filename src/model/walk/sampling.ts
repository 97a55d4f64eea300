import { GenerationError, PromptError } from "../../errors.ts";
import { argmaxWithValues } from "../../kernels/reduction/reduce.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** How the next token is chosen. Greedy unless a temperature is given. */
export interface SamplingOptions {
  /** Softmax temperature, > 0. */
  temperature?: number;
  /** Only the k most probable tokens. */
  topK?: number;
  /** Only the most probable tokens that together reach this probability, 0 < topP <= 1. */
  topP?: number;
  /**
   * Of the random numbers, a whole number: the same seed gives the same tokens. Default 0. Each prompt of a batch has a
   * stream of its own, so that its neighbours change nothing; with one seed for all, equal prompts get equal answers. A
   * list has a seed for each prompt.
   */
  seed?: number | readonly number[];
}

/** What a sampler chooses for: row i of the logits continues prompt `sequences[i]`. */
export interface SamplerRows {
  readonly sequences: readonly number[];
  /** New tokens that these prompts have so far. */
  readonly step: number;
}

/** Chooses a token id for each row of logits [rows, vocab]. Throws GenerationError where there is none to choose. */
export type Sampler = (logits: Tensor, rows: SamplerRows) => Promise<Uint32Array>;

/**
 * The most probable token of each row of logits [rows, vocab], of equals the one with the lowest id, and its logit: u32
 * [2, rows], to be read and taken apart by {@link choicesOf}.
 */
export function mostProbable(logits: Tensor): Tensor<"u32"> {
  return argmaxWithValues(logits, -1);
}

/** Ids and logits of each row, of what {@link mostProbable} gave. */
export function choicesOf(read: Uint32Array): { ids: Uint32Array; logits: Float32Array } {
  const rows = read.length / 2;
  return { ids: read.subarray(0, rows), logits: new Float32Array(read.slice(rows).buffer) };
}

/** Throws GenerationError when a row's greatest logit (NaN if there is one) leaves nothing to choose. */
export function checkChoice(best: number, where: () => string): void {
  if (best > Number.NEGATIVE_INFINITY) return;
  const problem = Number.isNaN(best) ? "there is a NaN among the logits" : "all logits are -Infinity";
  throw new GenerationError(`${where()}: no token can be chosen, ${problem}`);
}

const placeOf =
  ({ sequences, step }: SamplerRows, row: number) =>
  () =>
    `generate: new token ${step} of prompt ${sequences[row]} (both counted from 0)`;

/** {@link mostProbable}, on the host. */
export async function readMostProbable(logits: Tensor): Promise<{ ids: Uint32Array; logits: Float32Array }> {
  using chosen = mostProbable(logits);
  return choicesOf(await chosen.read());
}

/**
 * The most probable token of each row of logits [rows, vocab], of equals the one with the lowest id. Throws
 * GenerationError, with what `where` calls the row, where a NaN or nothing but −∞ leaves none to choose.
 */
export async function mostProbableTokens(logits: Tensor, where: (row: number) => string): Promise<number[]> {
  const { ids, logits: best } = await readMostProbable(logits);
  for (const [row, value] of best.entries()) checkChoice(value, () => where(row));
  return [...ids];
}

/** Most probable tokens as a sampler's choice. Throws GenerationError where there is none to choose. */
export function chooseGreedily(ids: Uint32Array, logits: Float32Array, rows: SamplerRows): Uint32Array {
  logits.forEach((value, row) => {
    checkChoice(value, placeOf(rows, row));
  });
  return ids;
}

/** The most probable token; of equals the one with the lowest id. */
export const greedy: Sampler = async (logits, rows) => {
  const best = await readMostProbable(logits);
  return chooseGreedily(best.ids, best.logits, rows);
};

/** A sampler for so many prompts. Throws PromptError for options that make no sense. */
export function createSampler(
  { temperature, topK, topP = 1, seed = 0 }: SamplingOptions,
  prompts: number,
): Sampler {
  if (temperature === undefined) {
    if (topK !== undefined || topP !== 1) {
      throw new PromptError("sampling: topK and topP need a temperature; without one the choice is greedy");
    }
    return greedy;
  }
  if (!(temperature > 0)) throw new PromptError(`sampling: expected a temperature > 0, found ${temperature}`);
  if (!(topP > 0 && topP <= 1)) throw new PromptError(`sampling: expected 0 < topP <= 1, found ${topP}`);
  if (topK !== undefined && !(Number.isInteger(topK) && topK > 0)) {
    throw new PromptError(`sampling: expected topK to be a whole number > 0, found ${topK}`);
  }
  const random = seedsOf(seed, prompts).map(seededNumbers);
  return async (logits, rows) => {
    const vocab = logits.dim(1);
    const values = (await logits.read()) as Float32Array;
    return Uint32Array.from(rows.sequences, (sequence, row) => {
      const scores = values.subarray(row * vocab, (row + 1) * vocab);
      checkChoice(greatest(scores), placeOf(rows, row));
      return draw(scores, temperature, topK ?? vocab, topP, random[sequence]!());
    });
  };
}

function seedsOf(seed: number | readonly number[], prompts: number): readonly number[] {
  const seeds = typeof seed === "number" ? Array.from({ length: prompts }, () => seed) : seed;
  const wrong = seeds.find((each) => !Number.isInteger(each));
  if (wrong !== undefined) throw new PromptError(`sampling: expected whole numbers as seed, found ${wrong}`);
  if (seeds.length === prompts) return seeds;
  throw new PromptError(`sampling: expected a seed for each of ${prompts} prompt(s), found ${seeds.length}`);
}

/** NaN if there is one. */
function greatest(scores: Float32Array): number {
  return scores.reduce((most, score) => Math.max(most, score), Number.NEGATIVE_INFINITY);
}

/**
 * Draws from softmax(scores / temperature), cut to the `topK` best and then to the mass `topP`. Scores of +infinity have
 * all the probability, in equal parts.
 */
function draw(scores: Float32Array, temperature: number, topK: number, topP: number, u: number): number {
  const before = (a: number, b: number) =>
    scores[a] === scores[b] ? a - b : scores[b]! > scores[a]! ? 1 : -1;
  const order = Uint32Array.from(scores.keys()).sort(before);
  const best = scores[order[0]!]!;
  const weights: number[] = [];
  for (let i = 0; i < Math.min(topK, order.length); i++) {
    const score = scores[order[i]!]!;
    // By hand at the infinities, where differences are NaN.
    const finite = Number.isFinite(best) && Number.isFinite(score);
    weights.push(finite ? Math.exp((score - best) / temperature) : Number(score === best));
  }
  const total = weights.reduce((sum, w) => sum + w, 0);
  let kept = 0;
  let mass = 0;
  while (kept < weights.length && mass < topP * total) mass += weights[kept++]!;
  let rest = u * mass;
  for (let i = 0; i < kept; i++) {
    rest -= weights[i]!;
    if (rest < 0) return order[i]!;
  }
  return order[kept - 1]!;
}

/** Numbers in [0, 1) by the generator mulberry32 (Ettinger 2017, public domain): the same for the same seed. */
export function seededNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
