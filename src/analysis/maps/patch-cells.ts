import type { LanguageModel } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { siteInfo } from "../../model/walk/site-info.ts";
import type { SiteName } from "../../model/walk/sites.ts";
import { set } from "../../patching/edit.ts";
import type { Recording } from "../../patching/recording.ts";
import { resume, type Variant } from "../../patching/resume.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { PatchColumn } from "./patch-map-result.ts";

/** Most patched copies in one batch; each has logits of its own. */
const BATCH_CELLS = 256;

/** A patched copy of the prompt. */
export interface Cell extends Variant {
  /** The first that is patched. */
  readonly position: number;
}

/** The copy with a site of the other prompt in it. value: [positions, features] or [heads, positions, keys], of the other prompt. */
export function cellOf(
  model: LanguageModel,
  site: SiteName,
  column: PatchColumn,
  positions: readonly number[],
  value: Tensor,
): Cell {
  if ("position" in column) {
    const { position } = column;
    return { position, edits: [set(site, position, value.at(positions.indexOf(position)))] };
  }
  const { head } = column;
  const size = value.dim(-1) / siteInfo(model.sites, site).heads!;
  const ofHead = value.rank === 3 ? value.at(head) : value.slice(1, head * size, (head + 1) * size);
  return { position: Math.min(...positions), edits: [set(site, positions, ofHead, { head })] };
}

/** Whether a token sees later ones: then a change reaches earlier tokens too. */
export function looksAhead({ network }: LanguageModel, prompt: Prompt): boolean {
  return network.stack.blocks.some(({ rule }) => rule(0, { prompt }).end > 1);
}

/**
 * Batches in the order given, so that what enters at one layer stays together. A copy computes the rows from its first patched
 * position on, or all of them where the mask looks ahead.
 */
export function* batchesOf(
  model: LanguageModel,
  base: Prompt,
  cells: readonly Cell[],
  batchRows: number,
): Generator<readonly Cell[]> {
  const ahead = looksAhead(model, base);
  let batch: Cell[] = [];
  let rows = 0;
  for (const cell of cells) {
    const own = ahead ? base.length : base.length - cell.position;
    if (batch.length > 0 && (rows + own > batchRows || batch.length === BATCH_CELLS)) {
      yield batch;
      batch = [];
      rows = 0;
    }
    batch.push(cell);
    rows += own;
  }
  yield batch;
}

/** What a judge makes of the logits [cells, vocab] of patched copies. */
export function resumeBatch(
  recording: Recording,
  cells: readonly Cell[],
  judge: (logits: Tensor) => Tensor,
): { values: Tensor; rowLayers: number } {
  return recording.model.device.scope(() => {
    const { logits, rowLayers } = resume(
      recording,
      cells.map(({ edits }) => ({ edits })),
    );
    return { values: judge(logits), rowLayers };
  });
}
