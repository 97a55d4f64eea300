import { CheckpointError } from "../errors.ts";
import { rope, ropeFrequencies } from "../kernels/attention/rope.ts";
import type { SiteEvent, Visitor } from "../model/walk/site-events.ts";
import type { SiteName } from "../model/walk/sites.ts";
import type { PatchableModel } from "../patching/model.ts";
import { f16Bits, f16Value } from "../tensor/dtype.ts";
import type { Tensor } from "../tensor/tensor.ts";

/**
 * Makes a forward pass one with RoPE frequencies rounded to f16. A PyTorch model has those after `model.half()`, also
 * when it is widened to f32 again: the cast takes the frequencies along, a buffer like others. Queries and keys are
 * turned by the difference of the angles before the model turns them by its own.
 */
export class HalfRope implements Visitor {
  readonly #headDim: number;
  /** As `ropeTable` has it: [positions, headDim]. */
  readonly #table: Tensor;

  constructor({ config, device }: PatchableModel, positions: number) {
    const { headDim } = config;
    if (!config.rope) throw new CheckpointError("a model without RoPE has no frequencies to round");
    if (config.localRope)
      throw new CheckpointError("expected a model with one RoPE for all layers, found two");
    const { rope } = config;
    const frequencies = ropeFrequencies({ rotaryDim: headDim, ...rope });
    const half = frequencies.length;
    const table = new Float32Array(positions * headDim);
    for (let position = 0; position < positions; position++) {
      frequencies.forEach((frequency, i) => {
        const rounded = f16Value(f16Bits(frequency));
        const angle = Math.fround(position * rounded) - Math.fround(position * frequency);
        table[position * headDim + i] = Math.cos(angle);
        table[position * headDim + half + i] = Math.sin(angle);
      });
    }
    this.#headDim = headDim;
    this.#table = device.tensor(table, { shape: [positions, headDim] });
  }

  uses(site: SiteName): boolean {
    return /^[qk]\.\d+$/.test(site);
  }

  visit(event: SiteEvent): void {
    const { value, rows } = event;
    const positions = Uint32Array.from([...rows.entries()], ({ position }) => position);
    using own = value.device.tensor(positions, { dtype: "u32" });
    event.value = rope(value, own, this.#table, { headDim: this.#headDim });
  }

  [Symbol.dispose](): void {
    this.#table.dispose();
  }
}
