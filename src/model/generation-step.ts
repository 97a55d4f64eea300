import { concat } from "../kernels/concat.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { layers, unembed } from "./forward.ts";
import type { Network } from "./network.ts";
import { Pass } from "./pass.ts";
import { chooseGreedily, greedy, readMostProbable, type Sampler, type SamplerRows } from "./sampling.ts";
import { NO_VISITOR, type Visitor, type Walk } from "./sites.ts";
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
 * choose: an id for each sequence. A sampler that fails fails its own step.
 */
export async function computeSteps(
  network: Network,
  steps: readonly GenerationStep[],
  visitor: Visitor = NO_VISITOR,
): Promise<PromiseSettledResult<Uint32Array>[]> {
  const { device } = network;
  const scope = device.openScope();
  try {
    const { logits, counts } = scope.enter(() => device.scope(() => forwardSteps(network, steps, visitor)));
    const ends = counts.map((_, i) => counts.slice(0, i + 1).reduce((sum, n) => sum + n, 0));
    const allGreedy = steps.every(({ sampler }) => sampler === greedy);
    const best = allGreedy ? await readMostProbable(logits) : undefined;
    const choices = steps.map(async ({ sampler, at }, i) => {
      const [start, end] = [ends[i]! - counts[i]!, ends[i]!];
      if (best) return chooseGreedily(best.ids.slice(start, end), best.logits.slice(start, end), at);
      const own = scope.enter(() => logits.rows(start, end));
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

/** Logits [sequences of all steps, vocab], and the number of sequences of each step. */
function forwardSteps(network: Network, steps: readonly GenerationStep[], visitor: Visitor) {
  const passes = steps.map((step) => step.pass());
  const embedded = steps.map((step, i) => drive(step.embed(passes[i]!), visitor));
  const [pass, input] =
    steps.length === 1 ? [passes[0]!, embedded[0]!] : [Pass.joined(passes), concat(embedded)];
  const x = drive(layers(network, input, pass), visitor); // [rows, width]
  const logits = drive(unembed(network, x, pass, "last"), visitor);
  return { logits, counts: passes.map(({ rows }) => rows.spans.length) };
}
