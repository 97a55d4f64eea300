import { gatherRows } from "../../kernels/movement/gather.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Prompt } from "../prompt/prompt.ts";
import type { Network } from "./network.ts";
import type { Pass } from "./pass.ts";
import { RowMap } from "./row-map.ts";
import { Sites, type Walk } from "./site-events.ts";

export interface ForwardOptions {
  /** Last layer to compute; without it the pass goes on to the logits. */
  stopAfter?: number;
  /** Positions that get logits: the last of each sequence, or all. */
  logits?: "last" | "all";
}

/**
 * A forward pass over whole prompts: the logits [prompts or rows, vocab], or undefined when it stops before them. Drive
 * it inside a scope; what is not returned goes with that scope at the latest.
 */
export function* forward(
  network: Network,
  prompts: readonly Prompt[],
  pass: Pass,
  { stopAfter, logits = "last" }: ForwardOptions = {},
): Walk<Tensor | undefined> {
  const embedded = yield* enter(network, prompts, pass);
  const blocks = stopAfter === undefined ? {} : { blocks: stopAfter + 1 };
  const x = yield* network.stack.run(embedded, pass, blocks);
  return stopAfter === undefined ? yield* unembed(network, x, pass, logits) : undefined;
}

/** What enters the first block: [rows, width]. The pass gets what the blocks' cross-attention reads. */
export function* enter(network: Network, prompts: readonly Prompt[], pass: Pass): Walk<Tensor> {
  const context = network.context && (yield* network.context(prompts, pass));
  if (context) pass.context.fill(context);
  return yield* network.embed(prompts, pass);
}

/** Final norm and logits at the last position of each sequence, or at all. x: [rows, width]. */
export function* unembed(network: Network, x: Tensor, pass: Pass, logits: "last" | "all"): Walk<Tensor> {
  if (logits === "all") return yield* network.head(x, pass.sites());
  const rows = new RowMap(
    pass.rows.spans.map(({ sequence, position, count }, row) => ({
      sequence,
      position: position + count - 1,
      row,
      count: 1,
    })),
  );
  return yield* network.head(takeRows(x, pass.rows.lastRows()), new Sites(pass.inUse, rows));
}

/** The given rows of x, in that order. */
export function takeRows(x: Tensor, rows: readonly number[]): Tensor {
  if (rows.length === x.dim(0) && rows.every((row, i) => row === i)) return x;
  return gatherRows(x, x.device.tensor(Uint32Array.from(rows), { dtype: "u32" }));
}
