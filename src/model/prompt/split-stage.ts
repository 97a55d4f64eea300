/** How a pre-tokenizer's matches and what lies between them become pieces, as Hugging Face's `tokenizers` names it. */
const BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"] as const;
export type Behavior = (typeof BEHAVIORS)[number];

/** The behavior of a config, which may spell it like a Python argument (`merged_with_next`). */
export function behaviorOf(value: unknown): Behavior | undefined {
  const plain = String(value).toLowerCase().replaceAll("_", "");
  return BEHAVIORS.find((behavior) => behavior.toLowerCase() === plain);
}

interface Piece {
  text: string;
  readonly matches: boolean;
}

/**
 * Cuts a text at the matches of a global pattern, in the way of `NormalizedString::split` of Hugging Face's `tokenizers`.
 * With `invert` what lies between the matches counts as the match.
 */
export function split(text: string, pattern: RegExp, behavior: Behavior, invert = false): string[] {
  const pieces = cut(text, pattern, invert);
  switch (behavior) {
    case "Removed":
      return texts(pieces.filter(({ matches }) => !matches));
    case "Isolated":
      return texts(pieces);
    case "Contiguous":
      return texts(joined(pieces, (piece, before) => piece.matches === before.matches));
    case "MergedWithPrevious":
      return texts(joined(pieces, (piece, before) => piece.matches && !before.matches));
    case "MergedWithNext": {
      const reversed = joined(
        pieces.reverse(),
        (piece, before) => piece.matches && !before.matches,
        (piece, before) => piece + before,
      );
      return texts(reversed.reverse());
    }
  }
}

function cut(text: string, pattern: RegExp, invert: boolean): Piece[] {
  const pieces: Piece[] = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > end) pieces.push({ text: text.slice(end, match.index), matches: invert });
    end = match.index + match[0].length;
    if (match[0] !== "") pieces.push({ text: match[0], matches: !invert });
  }
  if (end < text.length) pieces.push({ text: text.slice(end), matches: invert });
  return pieces;
}

/** Joins each piece to the one before it where `joins` says so; that one counts as what it last was. */
function joined(
  pieces: readonly Piece[],
  joins: (piece: Piece, before: Piece) => boolean,
  join = (piece: string, before: string) => before + piece,
): Piece[] {
  const out: Piece[] = [];
  let before: Piece | undefined;
  for (const piece of pieces) {
    const last = out.at(-1);
    if (last && before && joins(piece, before)) last.text = join(piece.text, last.text);
    else out.push({ ...piece });
    before = piece;
  }
  return out;
}

const texts = (pieces: readonly Piece[]) => pieces.map(({ text }) => text);
