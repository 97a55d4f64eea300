import { INSPECT } from "../../inspect.ts";
import type { PatchGrid } from "../../model/prompt/prompt.ts";
import type { Setting } from "../../patching/setting.ts";
import type { AttentionMap } from "../heads/attention-map.ts";
import { textTable } from "../text-table.ts";

/** Columns of patches that text shows as a grid; of wider ones it names the patches that get most. */
const SHOWN_COLUMNS = 16;
const SHOWN_PATCHES = 5;

/** An attention map that prints as text. */
export class PictureAttention implements AttentionMap {
  declare readonly setting?: Setting;
  declare readonly layer: number;
  declare readonly head?: number;
  declare readonly grid: PatchGrid;
  declare readonly weights: Float32Array;
  declare readonly share: number;

  constructor(fields: AttentionMap) {
    Object.assign(this, fields);
  }

  /** The share of the picture and of its patches, in percent. */
  toString(): string {
    const { layer, head, grid, weights, share } = this;
    const whose = head === undefined ? "" : `, head ${head}`;
    const title = `layer ${layer}${whose}: ${percent(share)} % of the attention is on the picture`;
    if (grid.columns > SHOWN_COLUMNS) {
      const most = [...weights.keys()].sort((a, b) => weights[b]! - weights[a]!).slice(0, SHOWN_PATCHES);
      const named = most.map(
        (i) => `${percent(weights[i]!)} % at row ${Math.floor(i / grid.columns)}, column ${i % grid.columns}`,
      );
      return `${title}; most of it ${named.join("; ")}`;
    }
    const rows = Array.from({ length: grid.rows }, (_, row) => [
      `  row ${row}`,
      ...Array.from(weights.subarray(row * grid.columns, (row + 1) * grid.columns), percent),
    ]);
    return `${title}, by patch:\n${textTable(rows)}`;
  }

  [INSPECT](): string {
    return this.toString();
  }
}

function percent(weight: number): string {
  return (100 * weight).toFixed(1);
}
