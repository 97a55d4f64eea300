import type { LensCell, LensToken } from "../../analysis/lens/logit-lens.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import type { PatchableModel } from "../../patching/model.ts";

/** What one position of one layer reads as, the most probable first; `token` is as the vocabulary spells it. */
export interface SpelledCell extends LensCell {
  readonly tokens: readonly (LensToken & { readonly token: string })[];
}

export function spellCells({ tokenizer }: PatchableModel, cells: readonly LensCell[]): SpelledCell[] {
  return cells.map((cell) => ({
    ...cell,
    tokens: cell.tokens.map((found) => ({ ...found, token: tokenizer.tokenOf(found.id) })),
  }));
}

/** A position looked at, and its token as the vocabulary spells it. */
export interface LensPosition {
  readonly position: number;
  readonly token: string;
}

export function lensPositions({ tokens }: Prompt, positions: readonly number[]): LensPosition[] {
  return positions.map((position) => ({ position, token: tokens[position]! }));
}
