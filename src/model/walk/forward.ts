import { gatherRows } from "../../kernels/movement/gather.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Prompt } from "../prompt/prompt.ts";
import type { Network } from "./network.ts";
import type { Pass } from "./pass.ts";
import { at } from "./place.ts";
import { RowMap, type RowSpan } from "./row-map.ts";
import { Sites, type Walk } from "./site-events.ts";

/** Positions that get logits: the last of each sequence, all, or those of each sequence in a list. */
export type LogitPositions = "last" | "all" | readonly (readonly number[])[];

export interface ForwardOptions {
  /** Last layer to compute; without it the pass goes on to the logits. */
  stopAfter?: number;
  /** Default "last". */
  logits?: LogitPositions;
  /** Default {@link WHOLE}. */
  entrance?: Entrance;
}

/**
 * A forward pass over whole prompts: the logits [positions, vocab], or undefined when it stops before them. Drive
 * it inside a scope; what is not returned goes with that scope at the latest.
 */
export function* forward(
  network: Network,
  prompts: readonly Prompt[],
  pass: Pass,
  { stopAfter, logits = "last", entrance = WHOLE }: ForwardOptions = {},
): Walk<Tensor | undefined> {
  const embedded = yield* entrance.enter(network, prompts, pass);
  const blocks = stopAfter === undefined ? {} : { blocks: stopAfter + 1 };
  const x = yield* network.stack.run(embedded, pass, blocks);
  return stopAfter === undefined ? yield* unembed(network, x, pass, logits) : undefined;
}

/** Where what enters the first block comes from. */
export interface Entrance {
  /** [rows of the pass, width] */
  enter(network: Network, prompts: readonly Prompt[], pass: Pass): Walk<Tensor>;
}

/** Whole prompts. */
export const WHOLE: Entrance = { enter };

/** What enters the first block: [rows, width]. The pass gets what the blocks' cross-attention reads. */
export function enter(network: Network, prompts: readonly Prompt[], pass: Pass): Walk<Tensor> {
  return at(network.device, { part: "embed" }, entering(network, prompts, pass));
}

function* entering(network: Network, prompts: readonly Prompt[], pass: Pass): Walk<Tensor> {
  const context = network.context && (yield* network.context(prompts, pass));
  if (context) pass.context.fill(context);
  return yield* network.embed(prompts, pass);
}

/** Final norm and logits at some positions. x: [rows, width] → [positions, vocab]. */
export function unembed(network: Network, x: Tensor, pass: Pass, logits: LogitPositions): Walk<Tensor> {
  return at(network.device, { part: "head" }, heading(network, x, pass, logits));
}

function* heading(network: Network, x: Tensor, pass: Pass, logits: LogitPositions): Walk<Tensor> {
  if (logits === "all") return yield* network.head(x, pass.sites());
  const rows = logitRows(pass.rows, logits);
  const from = [...rows.entries()].map(({ sequence, position }) => pass.rows.row(sequence, position)!);
  return yield* network.head(takeRows(x, from), new Sites(pass.inUse, rows));
}

/** Which row of the logits is of which position. */
export function logitRows(rows: RowMap, logits: LogitPositions): RowMap {
  if (logits === "all") return rows;
  const ofSpan = ({ sequence, position, count }: RowSpan) =>
    logits === "last" ? [position + count - 1] : (logits[sequence] ?? []);
  let row = 0;
  return new RowMap(
    rows.spans.flatMap((span) => {
      const { sequence } = span;
      return ofSpan(span).map((position) => ({ sequence, position, row: row++, count: 1 }));
    }),
  );
}

/** The given rows of x, in that order. */
export function takeRows(x: Tensor, rows: readonly number[]): Tensor {
  if (rows.length === x.dim(0) && rows.every((row, i) => row === i)) return x;
  return gatherRows(x, x.device.tensor(Uint32Array.from(rows), { dtype: "u32" }));
}
