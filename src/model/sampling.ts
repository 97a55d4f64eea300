import { argmax } from "../kernels/reduce.ts";
import { PromptError } from "../tensor/errors.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** How the next token is chosen. Greedy unless a temperature is given. */
export interface SamplingOptions {
  /** Softmax temperature, > 0. */
  temperature?: number;
  /** Only the k most probable tokens. */
  topK?: number;
  /** Only the most probable tokens that together reach this probability, 0 < topP <= 1. */
  topP?: number;
  /** Of the random numbers; the same seed gives the same tokens. Default 0. */
  seed?: number;
}

/** Chooses a token id for each row of logits [rows, vocab]. */
export type Sampler = (logits: Tensor) => Promise<Uint32Array>;

/** The most probable token; of equals the one with the lowest id. */
export const greedy: Sampler = async (logits) => {
  using ids = argmax(logits, -1) as Tensor<"u32">;
  return await ids.read();
};

/** Throws PromptError for options that make no sense. */
export function createSampler({ temperature, topK, topP = 1, seed = 0 }: SamplingOptions = {}): Sampler {
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
  const random = uniform(seed);
  return async (logits) => {
    const [rows, vocab] = logits.shape as [number, number];
    const values = await logits.read();
    return Uint32Array.from({ length: rows }, (_, row) => {
      const scores = values.subarray(row * vocab, (row + 1) * vocab) as Float32Array;
      return draw(scores, temperature, topK ?? vocab, topP, random());
    });
  };
}

/** Draws from softmax(scores / temperature), cut to the `topK` best and then to the mass `topP`. */
function draw(scores: Float32Array, temperature: number, topK: number, topP: number, u: number): number {
  const order = Uint32Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || a - b);
  const best = scores[order[0]!]!;
  const weights: number[] = [];
  for (let i = 0; i < Math.min(topK, order.length); i++) {
    weights.push(Math.exp((scores[order[i]!]! - best) / temperature));
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

/** Numbers in [0, 1) by the generator mulberry32. */
function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
