import { OutOfMemoryError, PromptError } from "../../errors.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { checkGrowth, type Prompt } from "../prompt/prompt.ts";
import { WHOLE } from "./forward.ts";
import { type BegunStep, beginGreedily, computeStep, type GenerationStep } from "./generation-step.ts";
import { ContextKeys, KvCache } from "./key-value-store.ts";
import type { Network } from "./network.ts";
import { Pass } from "./pass.ts";
import { at } from "./place.ts";
import { RowMap } from "./row-map.ts";
import { greedy, type Sampler } from "./sampling.ts";
import { sharedStarts } from "./shared-starts.ts";
import { SharedSteps } from "./shared-steps.ts";
import { NO_VISITOR, type Visitor, type Walk } from "./site-events.ts";
import type { SiteName } from "./sites.ts";

/**
 * New tokens of a generation from which on steps are computed ahead. Short answers end soon, and what is computed behind the end
 * is computed for nothing.
 */
const AHEAD_FROM = 4;

export interface GenerateTokensOptions {
  maxNewTokens: number;
  /** Ids that end a sequence; they are part of its output. */
  stopIds?: ReadonlySet<number>;
  sampler?: Sampler;
  /** Is shown the sites of every step: of the prompts first, then of each new token. */
  visitor?: Visitor;
}

/** The tokens of one step: `ids[i]` continues sequence `sequences[i]`; sequences that have ended are left out. */
export interface NewTokens {
  readonly sequences: readonly number[];
  readonly ids: readonly number[];
}

/**
 * Continues several prompts at once, with a KV cache and without padding, and yields the new tokens step by step. The
 * memory goes when the generator ends or is broken off.
 *
 * Throws PromptError when a prompt and its new tokens but the last exceed the model's context (or grow past where LongRoPE changes), and GenerationError when
 * the logits leave no token to choose.
 */
export async function* generateTokens(
  network: Network,
  prompts: readonly Prompt[],
  { maxNewTokens, stopIds = new Set(), sampler = greedy, visitor = NO_VISITOR }: GenerateTokensOptions,
): AsyncGenerator<NewTokens, void, void> {
  const options = { maxNewTokens, stopIds, sampler, visitor };
  if (!Number.isInteger(maxNewTokens) || maxNewTokens < 1) {
    throw new PromptError(`generate: expected maxNewTokens to be a whole number >= 1, found ${maxNewTokens}`);
  }
  // The last token of a sequence is never fed back, so it needs no position.
  for (const { length } of prompts) checkGrowth(length, maxNewTokens - 1, network.config);
  let started = false;
  try {
    for await (const tokens of continuePrompts(network, prompts, options)) {
      started = true;
      yield tokens;
    }
  } catch (error) {
    // What was idle has been given back meanwhile. Later, or with somebody watching, it cannot be done over.
    if (started || options.visitor !== NO_VISITOR || !(error instanceof OutOfMemoryError)) throw error;
    yield* continuePrompts(network, prompts, options);
  }
}

async function* continuePrompts(
  network: Network,
  prompts: readonly Prompt[],
  { maxNewTokens, stopIds, sampler, visitor }: Required<GenerateTokensOptions>,
): AsyncGenerator<NewTokens, void, void> {
  const { device } = network;
  const memory = device.openScope();
  const uses = (site: SiteName) => visitor.uses(site);
  const shared = visitor === NO_VISITOR ? SharedSteps.of(network) : undefined;
  shared?.join();
  try {
    // The last token of a sequence is never fed back, so it needs no place.
    const capacities = prompts.map((p) => p.length + maxNewTokens - 1);
    const starts = visitor === NO_VISITOR ? sharedStarts(network, prompts) : undefined;
    const cache = new KvCache(device, capacities, memory, starts);
    const context = new ContextKeys({ keep: memory }); // computed with the prompts, and read by all new tokens
    let rows = starts?.rows ?? RowMap.packed(prompts.map((p) => p.length));
    let previous: Tensor | undefined;
    let begun: BegunStep | undefined;
    for (let step = 0; step < maxNewTokens && rows.length > 0; step++) {
      const sequences = rows.spans.map((span) => span.sequence);
      const stepOf = (step: number, rows: RowMap, tokens: Tensor | undefined): GenerationStep => {
        cache.extend(rows);
        return {
          rows: rows.length,
          pass: () => Pass.over(device, prompts, { rows, keys: cache, context, inUse: uses }),
          embed: (pass) =>
            tokens ? embedTokens(network, tokens, pass) : (starts ?? WHOLE).enter(network, prompts, pass),
          sampler,
          at: { sequences: rows.spans.map((span) => span.sequence), step },
        };
      };
      const begin = (...of: Parameters<typeof stepOf>) =>
        memory.enter(() => beginGreedily(network, stepOf(...of)));
      // The step behind this one is computed while this one's tokens travel, as if no sequence had ended.
      const ahead =
        sampler === greedy &&
        visitor === NO_VISITOR &&
        step >= AHEAD_FROM &&
        step + 1 < maxNewTokens &&
        shared?.isShared !== true;
      const current = begun ?? (ahead ? begin(step, rows, previous) : undefined);
      begun = undefined;
      let ids: Uint32Array;
      if (current) {
        if (ahead) begun = attempt(() => begin(step + 1, continued(rows), current.tokens));
        ids = await current.ids();
        current.dispose();
      } else {
        const next = stepOf(step, rows, previous);
        ids = shared ? await shared.run(next) : await computeStep(network, next, visitor);
      }
      yield { sequences, ids: [...ids] };

      const going = rows.spans.map((_, i) => i).filter((i) => !stopIds.has(ids[i]!));
      if (going.length < rows.spans.length) {
        begun?.dispose();
        begun = undefined;
      }
      previous?.dispose();
      const kept = Uint32Array.from(going, (i) => ids[i]!);
      previous = begun ? undefined : memory.enter(() => device.tensor(kept, { dtype: "u32" }));
      rows = continued(rows, going);
    }
  } finally {
    shared?.leave();
    memory.dispose();
  }
}

/** The rows of the step behind one: a new token of each sequence that goes on. */
function continued({ spans }: RowMap, going: readonly number[] = spans.map((_, i) => i)): RowMap {
  return new RowMap(
    going.map((i, row) => {
      const { sequence, position, count } = spans[i]!;
      return { sequence, position: position + count, row, count: 1 };
    }),
  );
}

/** What is done ahead may fail: it is done again when its turn comes, and fails then. */
function attempt<T>(fn: () => T): T | undefined {
  try {
    return fn();
  } catch {
    return undefined;
  }
}

function embedTokens(network: Network, tokens: Tensor, pass: Pass): Walk<Tensor> {
  return at(network.device, { part: "embed" }, network.embedTokens(tokens, pass));
}
