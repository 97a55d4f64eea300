import { aListOf, checkArgument, type Expected } from "../../arguments.ts";
import { ArgumentError } from "../../errors.ts";
import { takeAlongAxis } from "../../kernels/movement/gather.ts";
import { logSoftmax } from "../../kernels/reduction/softmax.ts";
import { MAX_TOP_K, topK } from "../../kernels/reduction/top-k.ts";
import { checkChoice, choicesOf, mostProbable } from "../../model/walk/sampling.ts";
import type { PatchableModel } from "../../patching/model.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { AnswerOptions } from "../messages/requests.ts";
import type { Answer, TokenAnswer } from "../messages/results.ts";

const DEFAULT_TOP = 10;

export const aTop: Expected = {
  words: `a whole number from 1 to ${MAX_TOP_K}`,
  holds: (value) => Number.isInteger(value) && (value as number) >= 1 && (value as number) <= MAX_TOP_K,
};
const anId: Expected = { words: "a token's id", holds: (value) => Number.isInteger(value) };
export const someIds = aListOf(anId);

/** Answers that the device computes; `read` has them once what it gives to read has been read. */
export interface Asked {
  readonly tensors: readonly Tensor[];
  readonly read: (arrays: readonly ArrayLike<number>[]) => Answer[];
}

/**
 * The most probable next tokens for each row of logits [rows, vocab], and the probabilities of those that are tracked. Call it
 * within a scope.
 *
 * @param where what the message calls a row whose logits are NaN, which throws GenerationError
 */
export function askTokens(
  model: PatchableModel,
  logits: Tensor,
  { top = DEFAULT_TOP, track = [] }: AnswerOptions,
  where: (row: number) => string,
): Asked {
  const { device, tokenizer, config } = model;
  checkArgument("request", "top", top, aTop);
  checkArgument("request", "track", track, someIds);
  const wrong = track.find((id) => id < 0 || id >= config.vocab);
  if (wrong !== undefined) {
    throw new ArgumentError(`track: expected ids from 0 to ${config.vocab - 1}, found ${wrong}`);
  }
  const k = Math.min(top, config.vocab);
  const rows = logits.dim(0);
  const logprobs = logSoftmax(logits);
  const best = topK(logprobs, k);
  const ids = Uint32Array.from({ length: rows * track.length }, (_, i) => track[i % track.length]!);
  const tracked =
    track.length > 0
      ? takeAlongAxis(logprobs, device.tensor(ids, { shape: [rows, track.length], dtype: "u32" }), 1)
      : undefined;
  const token = (id: number, logprob: number): TokenAnswer => ({
    id,
    token: tokenizer.tokenOf(id),
    text: tokenizer.decode([id]),
    logprob,
    probability: Math.exp(logprob),
  });
  return {
    tensors: [mostProbable(logits), best.values, best.indices, ...(tracked ? [tracked] : [])],
    read([choice, values, indices, others]) {
      for (const [row, value] of choicesOf(choice as Uint32Array).logits.entries()) {
        checkChoice(value, () => where(row));
      }
      return Array.from({ length: rows }, (_, row) => ({
        top: Array.from({ length: k }, (_, i) => token(indices![row * k + i]!, values![row * k + i]!)),
        tracked: track.map((id, i) => token(id, others![row * track.length + i]!)),
      }));
    },
  };
}

/** Logits as rows: [vocab] as [1, vocab], several [vocab] or [rows, vocab] one under the other. */
export function asRows(logits: Tensor): Tensor {
  return logits.rank === 1 ? logits.reshape([1, logits.size]) : logits;
}
