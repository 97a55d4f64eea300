import { PromptError } from "../tensor/errors.ts";
import { forward, layers, unembed } from "./forward.ts";
import { KvCache } from "./key-store.ts";
import type { Network } from "./network.ts";
import { Pass } from "./pass.ts";
import { checkContext, type Prompt } from "./prompt.ts";
import { RowMap } from "./rows.ts";
import { greedy, type Sampler } from "./sampling.ts";
import { NO_VISITOR, type Visitor } from "./sites.ts";
import { firstImages } from "./vision-setup.ts";
import { drive } from "./walk.ts";

export interface GenerateTokensOptions {
  maxNewTokens: number;
  /** Ids that end a sequence; they are part of its output. */
  stopIds?: ReadonlySet<number>;
  sampler?: Sampler;
  /** Is shown the sites of every step: of the prompts first, then of each new token. */
  visitor?: Visitor;
}

/** The tokens of one step: `ids[i]` continues sequence `sequences[i]`; sequences that have ended are left out. */
export interface GenerationStep {
  readonly sequences: readonly number[];
  readonly ids: readonly number[];
}

/**
 * Continues several prompts at once, with a KV cache and without padding, and yields the new tokens step by step. The
 * memory goes when the generator ends or is broken off.
 *
 * Throws PromptError when a prompt and its new tokens but the last exceed the model's context, and GenerationError when
 * the logits leave no token to choose.
 */
export async function* generateTokens(
  network: Network,
  prompts: readonly Prompt[],
  { maxNewTokens, stopIds = new Set(), sampler = greedy, visitor = NO_VISITOR }: GenerateTokensOptions,
): AsyncGenerator<GenerationStep, void, void> {
  if (!Number.isInteger(maxNewTokens) || maxNewTokens < 1) {
    throw new PromptError(`generate: expected maxNewTokens to be a whole number >= 1, found ${maxNewTokens}`);
  }
  // The last token of a sequence is never fed back, so it needs no place.
  const capacities = prompts.map((p) => p.length + maxNewTokens - 1);
  for (const capacity of capacities) checkContext(capacity, network.config.context);
  const { device } = network;
  const memory = device.openScope();
  try {
    const cache = new KvCache(device, capacities, memory);
    const images = firstImages(prompts);
    let rows = RowMap.packed(prompts.map((p) => p.length));
    let previous: readonly number[] = [];
    for (let step = 0; step < maxNewTokens && rows.length > 0; step++) {
      cache.extend(rows);
      const logits = memory.enter(() =>
        device.scope(() => {
          const pass = new Pass(device.currentScope!, device, rows, cache, (site) => visitor.uses(site), {
            firstImages: images,
          });
          const walk = step === 0 ? forward(network, prompts, pass) : continueFrom(network, previous, pass);
          return drive(walk, visitor)!;
        }),
      );
      const sequences = rows.spans.map((span) => span.sequence);
      const ids = await sampler(logits, { sequences, step });
      logits.dispose();
      yield { sequences, ids: [...ids] };

      const going = rows.spans.map((_, i) => i).filter((i) => !stopIds.has(ids[i]!));
      previous = going.map((i) => ids[i]!);
      rows = new RowMap(
        going.map((i, row) => {
          const { sequence, position, count } = rows.spans[i]!;
          return { sequence, position: position + count, row, count: 1 };
        }),
      );
    }
  } finally {
    memory.dispose();
  }
}

function* continueFrom(network: Network, ids: readonly number[], pass: Pass) {
  const tokens = network.device.tensor(Uint32Array.from(ids), { dtype: "u32" });
  const embedded = yield* network.embedTokens(tokens, pass.sites());
  return yield* unembed(network, yield* layers(network, embedded, pass), pass, "last");
}
