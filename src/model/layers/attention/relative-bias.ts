import { gatherRows } from "../../../kernels/movement/gather.ts";
import type { Device } from "../../../tensor/device.ts";
import type { Scope } from "../../../tensor/scope.ts";
import type { Tensor } from "../../../tensor/tensor.ts";

export interface RelativeBiasOptions {
  /** Rows of the learned table. */
  readonly buckets: number;
  /** Distance from which on all keys share a bucket. */
  readonly maxDistance: number;
  /** Whether keys behind the query have buckets of their own (encoders); else they count as the query itself. */
  readonly bidirectional: boolean;
}

/**
 * What T5 adds to the scores of its heads (Raffel et al. 2020, arXiv 1910.10683): a learned number for each head and bucket
 * of distances, which are the wider the farther they lie.
 */
export class RelativeBias {
  readonly #weight: Tensor;
  readonly #options: RelativeBiasOptions;
  readonly #scope: Scope;
  #table: Tensor | undefined;

  /** weight: [buckets, heads] */
  constructor(device: Device, weight: Tensor, options: RelativeBiasOptions) {
    this.#weight = weight;
    this.#options = options;
    this.#scope = device.openScope();
  }

  /** By distance, from -maxDistance to maxDistance: f32 [2 * maxDistance + 1, heads]. */
  table(): Tensor {
    if (this.#weight.device.isTaped) return this.#make();
    this.#table ??= this.#scope.enter(() => this.#make());
    return this.#table;
  }

  #make(): Tensor {
    const { maxDistance } = this.#options;
    const ids = Uint32Array.from({ length: 2 * maxDistance + 1 }, (_, i) =>
      relativeBucket(i - maxDistance, this.#options),
    );
    return gatherRows(this.#weight, this.#weight.device.tensor(ids, { dtype: "u32" }));
  }

  dispose(): void {
    this.#scope.dispose();
  }
}

/**
 * The bucket of a key that lies `distance` positions behind its query: half of them for one distance each, the others
 * growing with its logarithm. In f32, step by step as transformers computes it, since at the edges a rounding decides.
 */
export function relativeBucket(
  distance: number,
  { buckets, maxDistance, bidirectional }: RelativeBiasOptions,
): number {
  const count = bidirectional ? Math.floor(buckets / 2) : buckets;
  const first = bidirectional && distance > 0 ? count : 0;
  const far = bidirectional ? Math.abs(distance) : Math.max(0, -distance);
  const exact = Math.floor(count / 2);
  if (far < exact) return first + far;
  const { fround } = Math;
  const log = fround(Math.log(fround(far / exact)));
  const share = fround(log / fround(Math.log(maxDistance / exact)));
  return first + Math.min(count - 1, exact + Math.floor(fround(share * (count - exact))));
}
