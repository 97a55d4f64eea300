import type { EncodedPrompt, LensAnswer } from "../../../../src/session/messages/results.ts";
import { tokensComputed } from "../../prompts/tokens-computed.ts";
import { percentInWords, tokenInWords } from "../../ui/words.ts";
import type { Cell } from "./places.ts";

export interface ReadToken {
  readonly id: number;
  readonly text: string;
  readonly probability: number;
}

/** What each cell reads as: the most probable tokens, the most probable first; undefined where nothing was read. */
export function cellReader(answer: LensAnswer | undefined): (cell: Cell) => readonly ReadToken[] | undefined {
  if (!answer) return () => undefined;
  const { layers, positions, k, ids, probabilities, texts } = answer;
  const layerAt = new Map(layers.map((layer, i) => [layer, i]));
  const positionAt = new Map(positions.map((position, i) => [position, i]));
  return ({ layer, position }) => {
    const [row, column] = [layerAt.get(layer), positionAt.get(position)];
    if (row === undefined || column === undefined) return undefined;
    const start = (row * positions.length + column) * k;
    return Array.from({ length: k }, (_, rank) => ({
      id: ids[start + rank]!,
      text: texts[ids[start + rank]!]!,
      probability: probabilities[start + rank]!,
    }));
  };
}

/** A row of the grid: a token of the prompt, or a patch of a picture. */
export interface GridRow {
  readonly position: number;
  readonly head: string;
  readonly isPatch: boolean;
}

/** Beyond this many patches a prompt's grid is folded: they are chosen on the picture. */
const MOST_PATCH_ROWS = 32;

/** The rows of a prompt's grid. Of patches that are folded away only `kept` has one. */
export function gridRows(encoded: EncodedPrompt, kept?: number): GridRow[] {
  const patches = new Map<number, string>();
  const pictures = encoded.sequence ? [] : encoded.pictures;
  for (const [i, { patches: grid }] of pictures.entries()) {
    grid?.positions.forEach((position, index) => {
      const place = `${Math.floor(index / grid.columns) + 1},${(index % grid.columns) + 1}`;
      patches.set(position, `▦${pictures.length > 1 ? i + 1 : ""} ${place}`);
    });
  }
  const folded = patches.size > MOST_PATCH_ROWS;
  return tokensComputed(encoded).texts.flatMap((text, position): GridRow[] => {
    const patch = patches.get(position);
    if (patch === undefined) return [{ position, head: tokenInWords(text), isPatch: false }];
    return folded && position !== kept ? [] : [{ position, head: patch, isPatch: true }];
  });
}

/** All there is to say about a cell, for screen readers. */
export function cellInWords(
  { position, layer }: Cell,
  head: string,
  tokens: readonly ReadToken[] | undefined,
  { reached = false, edited = false } = {},
): string {
  const [first] = tokens ?? [];
  const reads = first
    ? `reads ${tokenInWords(first.text)}, ${percentInWords(first.probability)}`
    : "not read yet";
  const more = [edited && "edited", reached && "can change"].filter(Boolean).join(", ");
  return `layer ${layer}, position ${position} ${head}: ${reads}${more && `; ${more}`}`;
}
