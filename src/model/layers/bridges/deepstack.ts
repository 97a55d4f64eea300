import { addRows } from "../../../kernels/movement/row-edits.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import { takeRows } from "../../walk/forward.ts";
import type { Pass } from "../../walk/pass.ts";
import type { Walk } from "../../walk/site-events.ts";

/**
 * The stream behind block `layer` with the features that pictures add there (DeepStack, Meng et al. 2024, arXiv 2406.04334), as
 * far as the pass computes the rows of their places: [rows, width] → the same. Site: deepstack, of the layer.
 */
export function* addDeepstack(x: Tensor, layer: number, pass: Pass): Walk<Tensor> {
  let sum = x;
  let first = 0; // row of the part's first row
  for (const part of pass.parts) {
    for (const { layers, named, places } of part.additions) {
      const features = layers[layer];
      // Those of sequences that come in at a later layer have been added already.
      if (!features || !places.some(({ sequence }) => part.rows.of(sequence).length > 0)) continue;
      const seen = yield* part.sites(layer, { rows: named }).pass("deepstack", features); // [places, width]
      const rows = places.map(({ sequence, position }) => part.rows.row(sequence, position));
      const taken = [...rows.keys()].filter((i) => rows[i] !== undefined);
      if (taken.length === 0) continue;
      sum = addRows(
        sum,
        taken.map((i) => first + rows[i]!),
        takeRows(seen, taken),
      );
    }
    first += part.rows.length;
  }
  return sum;
}
