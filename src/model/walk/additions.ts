import type { Tensor } from "../../tensor/tensor.ts";
import { RowMap } from "./row-map.ts";

/**
 * Rows that are added to the residual stream between blocks, at the places of pictures (DeepStack, Meng et al. 2024, arXiv
 * 2406.04334).
 */
export interface Addition {
  /** `layers[i]` is added to what leaves block i, before the next one reads it; each [rows, width]. */
  readonly layers: readonly Tensor[];
  /** Which feature of which picture a row is: what its site calls it. */
  readonly named: RowMap;
  /** Where a row is added. */
  readonly places: readonly Place[];
}

export interface Place {
  readonly sequence: number;
  readonly position: number;
}

/** Of an addition, what goes to one sequence, whose pictures are numbered from `firstImage` on. */
export function additionTo(
  { layers, named, places }: Addition,
  from: number,
  to: { readonly sequence: number; readonly firstImage: number },
): Addition | undefined {
  const start = places.findIndex(({ sequence }) => sequence === from);
  if (start < 0) return undefined;
  const own = places.filter(({ sequence }) => sequence === from); // they lie together
  const end = start + own.length;
  const spans = named.spans.filter(({ row }) => row >= start && row < end);
  return {
    layers: layers.map((x) => x.rows(start, end)),
    named: new RowMap(
      spans.map((span, i) => ({ ...span, sequence: to.firstImage + i, row: span.row - start })),
    ),
    places: own.map(({ position }) => ({ sequence: to.sequence, position })),
  };
}
