import type { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { AttentionRule } from "./masks.ts";
import type { Pass } from "./pass.ts";
import { at } from "./place.ts";
import type { Walk } from "./site-events.ts";
import { giveBack, scoped } from "./walk.ts";

/** One block of a stack. */
export interface Block {
  /** The attention mask: which positions a query sees. What a patch can reach follows from it. */
  readonly rule: AttentionRule;
  /**
   * Where it has cross-attention: which of the rows of another stack that its sequence reads a query sees. From it follows what
   * a change in that stack can reach.
   */
  readonly crossRule?: AttentionRule;
  /** Set where features of pictures are added to what enters it; see `Addition`. */
  readonly takesPictures?: boolean;
  /** x: [rows, width] → [rows, width]. */
  run(x: Tensor, index: number, pass: Pass): Walk<Tensor>;
}

/** What a block is to compute. */
export interface Entry {
  /** [rows, width] */
  readonly x: Tensor;
  readonly pass: Pass;
}

export interface StackRun {
  /** The first block to run. Default 0. */
  readonly from?: number;
  /** Number of the block to stop before. Default all are run. */
  readonly blocks?: number;
  /**
   * Called with the stream that enters each block, and at last with the one that leaves (then `index` is the block to stop
   * before). It may put another stream in its place, and another pass for the rows of that.
   */
  entering?(index: number, entry: Entry): Walk<Entry | undefined>;
  /** Called with what enters each block, and what leaves, as `entering` left it. Keep an alias: it goes once it has been used. */
  onStream?(index: number, x: Tensor): void;
}

/** A stack of blocks over one residual stream: a decoder, an encoder, a tower. */
export class Stack {
  readonly device: Device;
  readonly blocks: readonly Block[];

  constructor(device: Device, blocks: readonly Block[]) {
    this.device = device;
    this.blocks = blocks;
  }

  /** The attention mask of a block. */
  rule(index: number): AttentionRule {
    return this.blocks[index]!.rule;
  }

  /** Runs the blocks: [rows, width] → [rows, width]. Streams between them go as soon as the next one has been computed. */
  *run(
    x: Tensor,
    pass: Pass,
    { from = 0, blocks = this.blocks.length, entering, onStream }: StackRun = {},
  ): Walk<Tensor> {
    let entry: Entry = { x, pass };
    for (let index = from; index <= blocks; index++) {
      if (entering) entry = (yield* entering(index, entry)) ?? entry;
      const { x: stream, pass: own } = entry;
      onStream?.(index, stream);
      if (index === blocks) break;
      for (const passed of this.device.boundaryObservers) passed();
      const block = scoped(this.device, () => this.blocks[index]!.run(stream, index, own));
      const next = yield* at(this.device, { part: "block", stack: own.prefix, index }, block);
      giveBack(stream, next);
      entry = { x: next, pass: own };
    }
    return entry.x;
  }
}
