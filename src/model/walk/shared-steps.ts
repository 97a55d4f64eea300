import { OutOfMemoryError } from "../../errors.ts";
import { rowsAlike } from "../../kernels/matmul/product-kernels.ts";
import { computeSteps, type GenerationStep } from "./generation-step.ts";
import type { Network } from "./network.ts";

interface Waiting {
  readonly step: GenerationStep;
  resolve(ids: Uint32Array): void;
  reject(error: unknown): void;
}

/** Rows from which on a product gains nothing from more; longer prompts would only keep the others waiting. */
const MOST_ROWS = 256;

/**
 * Lets generations that go on at the same time share their steps: what waits while a step is computed becomes the next
 * one. All rows go through the products together, which read the weights once; each generation attends to its own keys as
 * it would alone. What goes wrong on the device goes wrong for all who share the step; after memory ran out, steps are shared by fewer. Only for kernels that give a row the same bits whatever else is computed, so that an answer does not
 * depend on who else asks.
 */
export class SharedSteps {
  readonly #network: Network;
  readonly #waiting: Waiting[] = [];
  #members = 0;
  #working = false;
  #mostRows: number;

  private constructor(network: Network, mostRows: number) {
    this.#network = network;
    this.#mostRows = mostRows;
  }

  /** Those of a network, or undefined where its device's kernels do not allow it. */
  static of(network: Network): SharedSteps | undefined {
    let shared = ofNetworks.get(network);
    if (!shared) {
      const rows = Math.min(MOST_ROWS, rowsAlike(network.device, packed.has(network)));
      if (rows <= 1) return undefined;
      shared = new SharedSteps(network, rows);
      ofNetworks.set(network, shared);
    }
    return shared;
  }

  /** Whether several generations are going on. */
  get isShared(): boolean {
    return this.#members > 1;
  }

  /** Registers a generation, whose next step the others wait a moment for. To be undone by {@link leave}. */
  join(): void {
    this.#members++;
  }

  leave(): void {
    this.#members--;
  }

  /** The ids that the step's sampler chooses, one for each sequence. */
  run(step: GenerationStep): Promise<Uint32Array> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ step, resolve, reject });
      if (!this.#working) void this.#work();
    });
  }

  async #work(): Promise<void> {
    this.#working = true;
    await undefined; // those who ask in the same breath come along
    while (this.#waiting.length > 0) {
      await this.#compute(this.#takeGroup());
      // Members that have got their tokens ask for the next ones before long.
      if (this.#members > 1) await new Promise((resolve) => setTimeout(resolve));
      else await undefined;
    }
    this.#working = false;
  }

  /** The steps that have waited longest, as many as fit. */
  #takeGroup(): Waiting[] {
    let rows = 0;
    let count = 0;
    for (const { step } of this.#waiting) {
      rows += step.rows;
      if (count > 0 && rows > this.#mostRows) break;
      count++;
    }
    return this.#waiting.splice(0, count);
  }

  async #compute(group: readonly Waiting[]): Promise<void> {
    try {
      const results = await computeSteps(
        this.#network,
        group.map(({ step }) => step),
      );
      group.forEach(({ resolve, reject }, i) => {
        const result = results[i]!;
        if (result.status === "fulfilled") resolve(result.value);
        else reject(result.reason);
      });
    } catch (error) {
      if (error instanceof OutOfMemoryError) {
        this.#mostRows = Math.ceil(group.reduce((rows, { step }) => rows + step.rows, 0) / 2);
      }
      for (const { reject } of group) reject(error);
    }
  }
}

const ofNetworks = new WeakMap<Network, SharedSteps>();
const packed = new WeakSet<Network>();

/** Notes that a network has weights in few bits, whose products of few rows add up in another order than those of many. */
export function noteIsPacked(network: Network): void {
  packed.add(network);
}
