import {
  aCount,
  aFunction,
  aListOf,
  aNumber,
  anObject,
  aString,
  aWholeFromOne,
  checkArgument,
  checkOptions,
  type Options,
} from "../../arguments.ts";
import { ArgumentError, GradientError } from "../../errors.ts";
import { Tape } from "../../gradient/tape.ts";
import { neg } from "../../kernels/elementwise/elementwise.ts";
import { randomNormal } from "../../kernels/elementwise/random.ts";
import { gatherRows, takeAlongAxis } from "../../kernels/movement/gather.ts";
import { mean } from "../../kernels/reduction/reduce.ts";
import { logSoftmax } from "../../kernels/reduction/softmax.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { mostProbableTokens } from "../../model/walk/sampling.ts";
import type { SiteName } from "../../model/walk/sites.ts";
import { aModel, aPrompt, onePosition } from "../../patching/arguments.ts";
import { defaultKeepBytes } from "../../patching/gradients.ts";
import { type OneToken, oneTokenId } from "../../patching/one-token.ts";
import type { OnePosition } from "../../patching/positions.ts";
import { compute, run } from "../../patching/run.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { AdamW } from "../../training/adamw.ts";
import { shuffledBatch } from "../../training/data-order.ts";
import { cosineSchedule } from "../../training/schedule.ts";
import { vectorSite } from "../layers.ts";
import { activationsAt, editsOf, exchange, orthonormal, Subspace } from "./subspace.ts";

/** Two prompts, and what the first is to say once it has the second's value of a variable. */
export interface InterchangePair {
  /** The prompt that is run. */
  readonly base: Prompt;
  /** The prompt whose activation takes its place, within the subspace. */
  readonly source: Prompt;
  /** The next token: its id, or a text of one token. */
  readonly expected: OneToken;
}

/** Where {@link findSubspace} looks, for how many dimensions, and how it trains. */
export interface SubspaceOptions {
  /** A site of a layer whose rows are vectors, `resid_post.12` say. */
  site: SiteName;
  /** Which token of each prompt. */
  at: OnePosition;
  /** Dimensions of the subspace. */
  rank: number;
  /** How often the basis changes. */
  steps: number;
  /** Pairs that are not trained on but scored. Default: every fourth of those given, which training then goes without. */
  heldOut?: readonly InterchangePair[];
  /** Of AdamW, without weight decay; it falls to 0 by a cosine. The rows that the basis is made of start about 1 long. Default 0.02. */
  learningRate?: number;
  /** Pairs in a step, in an order that the seed draws. Default 16, or all if there are fewer. */
  batch?: number;
  /** Of that, and of the basis that training starts from. Default 0. */
  seed?: number;
  /** Called after each step with its loss. */
  onStep?: (step: number, loss: number) => void;
}

const OPTIONS: Options<SubspaceOptions> = {
  site: aString,
  at: onePosition,
  rank: aWholeFromOne,
  steps: aWholeFromOne,
  heldOut: aListOf(anObject),
  learningRate: aNumber,
  batch: aWholeFromOne,
  seed: aCount,
  onStep: aFunction,
};

/** What {@link findSubspace} found. Accuracies are over held-out pairs: how many runs say the expected token. */
export interface FoundSubspace {
  /** To be saved, and to project by. */
  readonly subspace: Subspace;
  /** f32 [rank, features], that of the subspace. */
  readonly basis: Tensor;
  /** Of each step, the mean of −log p(expected) of its pairs before it, in nats. */
  readonly losses: readonly number[];
  /** With the random subspace that training started from. */
  readonly accuracyBefore: number;
  /** With the one that was found. */
  readonly accuracyAfter: number;
  /** With the whole activation exchanged. Where this is as high, any subspace with what counts in it does. */
  readonly accuracyWhole: number;
}

/**
 * Distributed alignment search (Geiger et al. 2023, arXiv 2303.02536): learns a subspace of an activation that holds a variable,
 * by exchanging the component of a base prompt's activation in it for that of a source prompt's, such that the run says what the
 * variable's value in the source makes of the base. The model stays as it is.
 *
 * That a subspace is found does not show that the model uses it: compare with other sites, and with pairs whose expectations are
 * permuted. Throws ArgumentError for too few pairs, a rank above the site's width and expected texts that are not one token;
 * SiteError and PromptError like `run`; GradientError where the answers do not depend on the site.
 *
 * @example const { subspace, accuracyAfter } = await findSubspace(model, pairs, { site: "resid_post.12", at: -1, rank: 4, steps: 100 });
 * const { text } = await model.generate(base, { edits: subspace.swap(model, base, source) });
 */
export async function findSubspace(
  model: LanguageModel,
  pairs: readonly InterchangePair[],
  options: SubspaceOptions,
): Promise<FoundSubspace> {
  checkArgument("findSubspace", "model", model, aModel);
  checkOptions("findSubspace", options, OPTIONS, { required: ["site", "at", "rank", "steps"] });
  const { site, at, rank, steps, learningRate = 0.02, batch = 16, seed = 0, onStep } = options;
  const { features } = vectorSite("findSubspace", model, site);
  if (rank > features) {
    throw new ArgumentError(
      `findSubspace: expected a rank of at most ${features}, the width of ${site}, found ${rank}`,
    );
  }
  const [trained, heldOut] = divide(model, pairs, options.heldOut);
  const { device } = model;
  const scope = device.openScope();
  try {
    const [data, held] = scope.enter(() =>
      [trained, heldOut].map((each) => withActivations(model, each, site, at)),
    );
    const weights = scope.enter(() =>
      randomNormal(device, [rank, features], { seed, standardDeviation: 1 / Math.sqrt(features) }),
    );
    const score = (basis?: Tensor) => accuracy(model, held!, site, at, basis);
    const scored = (basis: Tensor) => score(basis).finally(() => basis.dispose());
    const accuracyBefore = await scored(device.scope(() => orthonormal(weights)));
    using optimizer = scope.enter(() => new AdamW(device, { weights }, { learningRate, weightDecay: 0 }));
    const losses: number[] = [];
    for (let step = 0; step < steps; step++) {
      const size = Math.min(batch, trained.length);
      const drawn = shuffledBatch(trained.length, size, { step, seed });
      const made = device.scope(() => {
        const { loss, gradient } = back(model, chosen(data!, drawn), weights, site, at);
        return [loss, optimizer.step({ weights: gradient }, cosineSchedule(step, steps))] as const;
      });
      const [[loss], [norm]] = (await device.read(made)) as [Float32Array, Float32Array];
      for (const tensor of made) tensor.dispose();
      checkStep(step, loss!, norm!, site);
      losses.push(loss!);
      onStep?.(step, loss!);
    }
    const basis = device.scope(() => orthonormal(weights));
    const accuracyAfter = await score(basis);
    const subspace = new Subspace(basis, site, at);
    return { subspace, basis, losses, accuracyBefore, accuracyAfter, accuracyWhole: await score() };
  } finally {
    scope.dispose();
  }
}

interface ResolvedPair extends InterchangePair {
  readonly expected: number;
}

/** Pairs to train on and pairs to score, their tokens looked up. */
function divide(
  model: LanguageModel,
  pairs: readonly InterchangePair[],
  heldOut: readonly InterchangePair[] | undefined,
): [ResolvedPair[], ResolvedPair[]] {
  checkArgument("findSubspace", "pairs", pairs, aListOf(anObject));
  const resolved = (name: string, list: readonly InterchangePair[]) =>
    list.map(({ base, source, expected }, i): ResolvedPair => {
      const call = `findSubspace, ${name}[${i}]`;
      checkArgument(call, "base", base, aPrompt);
      checkArgument(call, "source", source, aPrompt);
      return { base, source, expected: oneTokenId(`${call}.expected`, model, expected) };
    });
  const all = resolved("pairs", pairs);
  const isHeld = (i: number) => heldOut === undefined && i % 4 === 3;
  const trained = all.filter((_, i) => !isHeld(i));
  const held = heldOut ? resolved("heldOut", heldOut) : all.filter((_, i) => isHeld(i));
  if (trained.length > 0 && held.length > 0) return [trained, held];
  const expected = heldOut
    ? "a pair to train on and one that is held out"
    : "at least 4 pairs, one of them held out";
  throw new ArgumentError(
    `findSubspace: expected ${expected}, found ${all.length}${heldOut ? ` and ${held.length}` : ""}`,
  );
}

interface Data {
  readonly pairs: readonly ResolvedPair[];
  /** [pairs, features] */
  readonly base: Tensor;
  readonly source: Tensor;
}

function withActivations(
  model: LanguageModel,
  pairs: readonly ResolvedPair[],
  site: SiteName,
  at: OnePosition,
): Data {
  const of = (which: "base" | "source") =>
    activationsAt(
      model,
      pairs.map((pair) => pair[which]),
      site,
      at,
    );
  return { pairs, base: of("base"), source: of("source") };
}

function chosen({ pairs, base, source }: Data, indices: readonly number[]): Data {
  const ids = base.device.tensor(Uint32Array.from(indices), { dtype: "u32" });
  return {
    pairs: indices.map((i) => pairs[i]!),
    base: gatherRows(base, ids),
    source: gatherRows(source, ids),
  };
}

/** The mean loss f32 [] of pairs, and its gradient by the rows that the basis is made of. */
function back(
  model: LanguageModel,
  { pairs, base, source }: Data,
  weights: Tensor,
  site: SiteName,
  at: OnePosition,
): { loss: Tensor; gradient: Tensor } {
  const { device } = model;
  return device.scope(() => {
    using tape = new Tape(device, { keepBytes: defaultKeepBytes(device) });
    const watched = tape.watch(weights);
    const exchanged = tape.record(() => exchange(orthonormal(weights), base, source));
    const ids = Uint32Array.from(pairs, ({ expected }) => expected);
    const labels = device.tensor(ids, { dtype: "u32", shape: [ids.length, 1] });
    const { metric } = compute(
      "findSubspace",
      model,
      pairs.map((pair) => pair.base),
      { edits: editsOf(exchanged, site, at) },
      {
        metric: (logits) => neg(takeAlongAxis(logSoftmax(logits), labels)).reshape([ids.length]),
        back: { tape, cotangent: device.tensor(new Float32Array(ids.length).fill(1 / ids.length)) },
      },
    );
    return { loss: mean(metric as Tensor), gradient: tape.gradientOfUsed("the basis", watched) };
  });
}

function checkStep(step: number, loss: number, norm: number, site: SiteName): void {
  if (Number.isFinite(loss) && Number.isFinite(norm) && (norm > 0 || step > 0)) return;
  const found =
    norm === 0 ? `the answers do not depend on ${site}` : `the loss is ${loss}, its gradient ${norm} long`;
  throw new GradientError(`findSubspace: step ${step}: ${found}`);
}

/** Pairs in a run that is only read. */
const SCORED = 32;

/** The part of pairs whose run says the expected token; without a basis the whole activation is exchanged. */
async function accuracy(
  model: LanguageModel,
  data: Data,
  site: SiteName,
  at: OnePosition,
  basis: Tensor | undefined,
): Promise<number> {
  const { device } = model;
  let right = 0;
  for (let start = 0; start < data.pairs.length; start += SCORED) {
    const indices = [...data.pairs.keys()].slice(start, start + SCORED);
    using logits = device.scope(() => {
      const { pairs, base, source } = chosen(data, indices);
      const values = basis ? exchange(basis, base, source) : source;
      const bases = pairs.map((pair) => pair.base);
      return run(model, bases, { edits: editsOf(values, site, at) }).logits as Tensor;
    });
    const said = await mostProbableTokens(logits, (row) => `findSubspace: held-out pair ${start + row}`);
    right += said.filter((id, i) => id === data.pairs[start + i]!.expected).length;
  }
  return right / data.pairs.length;
}
