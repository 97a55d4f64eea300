import { concat } from "../../kernels/movement/concat.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { unembed } from "./forward.ts";
import type { Network } from "./network.ts";
import { Pass } from "./pass.ts";
import {
  choicesOf,
  chooseGreedily,
  greedy,
  mostProbable,
  readMostProbable,
  type Sampler,
  type SamplerRows,
} from "./sampling.ts";
import { NO_VISITOR, type Visitor, type Walk } from "./site-events.ts";
import { drive } from "./walk.ts";

/** What one generation wants computed next: whole prompts at first, then a row for each sequence that goes on. */
export interface GenerationStep {
  /** Number of rows. */
  readonly rows: number;
  /** The step's own pass; its tables live in the scope that is current. */
  pass(): Pass;
  /** The rows that go into the first layer: [rows, width]. */
  embed(pass: Pass): Walk<Tensor>;
  readonly sampler: Sampler;
  readonly at: SamplerRows;
}

/**
 * Computes steps of several generations together (only one may have a visitor, and then it is alone) and has their samplers
 * choose: an id for each sequence. A step whose input cannot be made (a picture that does not fit the tower) or whose sampler
 * fails, fails alone.
 */
export async function computeSteps(
  network: Network,
  steps: readonly GenerationStep[],
  visitor: Visitor = NO_VISITOR,
): Promise<PromiseSettledResult<Uint32Array>[]> {
  const { device } = network;
  const scope = device.openScope();
  try {
    const { counts, logits } = scope.enter(() => device.scope(() => forwardSteps(network, steps, visitor)));
    const allGreedy = steps.every(({ sampler }) => sampler === greedy);
    const best = allGreedy && logits ? await readMostProbable(logits) : undefined;
    let end = 0;
    const choices = counts.map(async (count, i) => {
      if (count.status === "rejected") throw count.reason;
      const { sampler, at } = steps[i]!;
      const start = end;
      end += count.value;
      if (best) return chooseGreedily(best.ids.slice(start, end), best.logits.slice(start, end), at);
      const own = scope.enter(() => logits!.rows(start, end));
      return await sampler(own, at);
    });
    return await Promise.allSettled(choices);
  } finally {
    scope.dispose();
  }
}

/** Computes one step by itself. Throws what fails. */
export async function computeStep(
  network: Network,
  step: GenerationStep,
  visitor: Visitor,
): Promise<Uint32Array> {
  const [result] = await computeSteps(network, [step], visitor);
  if (result!.status === "rejected") throw result!.reason;
  return result!.value;
}

/** A step whose tokens are on their way to the host, and on the device for the step behind it. */
export interface BegunStep {
  /** The tokens chosen, u32 [sequences]. */
  readonly tokens: Tensor;
  /** The same, once they are there. Throws what fails. */
  ids(): Promise<Uint32Array>;
  dispose(): void;
}

/** Has a greedy step computed without waiting for it. What its tokens are kept in lives in the scope that is current. */
export function beginGreedily(network: Network, step: GenerationStep): BegunStep {
  const { device } = network;
  const best = device.scope(() => {
    const { counts, logits } = forwardSteps(network, [step], NO_VISITOR);
    const [count] = counts;
    if (count!.status === "rejected") throw count!.reason;
    return mostProbable(logits!);
  });
  const reading = best.read(); // asked for before what comes behind it is recorded
  reading.catch(() => {}); // perhaps nobody waits for it
  return {
    tokens: best.at(0),
    async ids() {
      const { ids, logits } = choicesOf(await reading);
      return chooseGreedily(ids, logits, step.at);
    },
    dispose: () => best.dispose(),
  };
}

interface Input {
  readonly pass: Pass;
  /** [rows, width] */
  readonly embedded: Tensor;
}

/** What goes into the first layer, or why a step has none. */
function inputOf(step: GenerationStep, visitor: Visitor): PromiseSettledResult<Input> {
  try {
    const pass = step.pass();
    return { status: "fulfilled", value: { pass, embedded: drive(step.embed(pass), visitor) } };
  } catch (reason) {
    return { status: "rejected", reason };
  }
}

/**
 * The number of sequences of each step, or why it has no input, and the logits [sequences of all others, vocab]; undefined if
 * there are none.
 */
function forwardSteps(network: Network, steps: readonly GenerationStep[], visitor: Visitor) {
  const inputs = steps.map((step) => inputOf(step, visitor));
  const good = inputs.flatMap((input) => (input.status === "fulfilled" ? [input.value] : []));
  const counts = inputs.map(
    (input): PromiseSettledResult<number> =>
      input.status === "fulfilled"
        ? { status: "fulfilled", value: input.value.pass.rows.spans.length }
        : input,
  );
  if (good.length === 0) return { counts };
  const [pass, input] =
    good.length === 1
      ? [good[0]!.pass, good[0]!.embedded]
      : [Pass.joined(good.map(({ pass }) => pass)), concat(good.map(({ embedded }) => embedded))];
  const x = drive(network.stack.run(input, pass), visitor); // [rows, width]
  const logits = drive(unembed(network, x, pass, "last"), visitor);
  return { counts, logits };
}
