import { PromptError } from "../../errors.ts";
import type { ImageRules, ImageText } from "./image-rules.ts";
import type { ImageSpan, PatchGrid, Span } from "./prompt.ts";
import { tokenByteRanges } from "./token-spelling.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A piece of a text that has a name: in UTF-16 units, or in tokens. */
export interface Named extends Span {
  readonly name: string;
}

export function findPiece(name: string, piece: string, text: string): Named {
  const start = text.indexOf(piece);
  const again = text.indexOf(piece, start + 1);
  if (piece === "" || start < 0 || again >= 0) {
    const found = piece === "" ? "an empty one" : start < 0 ? "none" : "several";
    throw new PromptError(
      `Expected the text to contain ${JSON.stringify(piece)} (span "${name}") once, found ${found}.`,
    );
  }
  return { name, start, end: start + piece.length };
}

/** Where the placeholders of each image went: from its first to its last, whatever the family puts between. */
export function imageSpans(
  tokenizer: Tokenizer,
  body: readonly number[],
  imageTexts: readonly ImageText[],
  rules: Pick<ImageRules, "placeholder" | "featureToken"> | undefined,
): (Named & ImageSpan)[] {
  if (!rules || imageTexts.length === 0) return [];
  const { placeholder, featureToken = placeholder } = rules;
  const id = tokenizer.idOf(featureToken);
  const positions = [...body.keys()].filter((position) => body[position] === id);
  const counts = imageTexts.map(({ text }) => text.split(featureToken).length - 1);
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (positions.length !== total || counts.includes(0)) {
    throw new PromptError(
      `Expected ${counts.join(" + ")} tokens ${featureToken} for ${counts.length} image(s), at least one each, found ${positions.length}.`,
    );
  }
  return imageTexts.map(({ grid, tiles, parts }, i) => {
    const own = positions.splice(0, counts[i]!);
    if (parts) return { name: "image", ...gridSpan(own), parts: partSpans(own, parts) };
    if (!tiles) return { name: "image", ...gridSpan(own, grid) };
    const { each } = tiles;
    const size = each.rows * each.columns;
    const spans = Array.from({ length: own.length / size }, (_, tile) =>
      gridSpan(own.slice(tile * size, (tile + 1) * size), each),
    );
    return { name: "image", ...gridSpan(own), tiles: { grid: tiles.grid, spans } };
  });
}

/** The whole image, and the map of its tiles, each row of which has a further position behind it. */
function partSpans(positions: readonly number[], { whole, map }: NonNullable<ImageText["parts"]>) {
  const size = whole.rows * whole.columns;
  const ofMap = positions
    .slice(size)
    .filter((_, i) => map !== undefined && i % (map.columns + 1) < map.columns);
  return {
    whole: gridSpan(positions.slice(0, size), whole),
    ...(map && { map: gridSpan(ofMap, map) }),
  };
}

/** The same span behind `count` further positions. */
export function movedBy(count: number, { start, end, tiles, parts, ...rest }: ImageSpan): ImageSpan {
  return {
    start: start + count,
    end: end + count,
    ...rest,
    ...(tiles && { tiles: { ...tiles, spans: tiles.spans.map((tile) => movedBy(count, tile)) } }),
    ...(parts && {
      parts: {
        whole: movedBy(count, parts.whole),
        ...(parts.map && { map: movedBy(count, parts.map) }),
      },
    }),
  };
}

/** The span of these positions, which are a grid if one is given. */
function gridSpan(positions: readonly number[], grid?: PatchGrid): ImageSpan {
  const span = { start: positions[0]!, end: positions.at(-1)! + 1 };
  if (!grid) return span;
  const { rows, columns } = grid;
  const stride = rows > 1 ? positions[columns]! - positions[0]! : columns;
  const fits = (position: number, i: number) =>
    position === span.start + Math.floor(i / columns) * stride + (i % columns);
  if (rows * columns !== positions.length || !positions.every(fits)) {
    throw new PromptError(
      `Expected a grid of ${positions.length} patches, found ${rows} by ${columns}, or others between those of a row.`,
    );
  }
  return { ...span, grid, ...(stride !== columns && { rowStride: stride }) };
}

/** The tokens that cover each named piece. */
export function textSpans(
  tokenizer: Tokenizer,
  body: readonly number[],
  text: string,
  named: readonly Named[],
): Named[] {
  if (named.length === 0) return [];
  const tokens = body.map((id) => tokenizer.tokenOf(id));
  const ranges = tokenByteRanges(text, tokens, tokenizer.spell, tokenizer.unknownCharacter);
  const byteLength = (length: number) => new TextEncoder().encode(text.slice(0, length)).length;
  return named.map((piece) => {
    const from = byteLength(piece.start);
    const to = byteLength(piece.end);
    const inside = [...ranges.keys()].filter((i) => ranges[i]!.start < to && ranges[i]!.end > from);
    if (inside.length === 0) {
      throw new PromptError(
        `Expected tokens for the span "${piece.name}", found none: the tokenizer drops that text.`,
      );
    }
    return { name: piece.name, start: inside[0]!, end: inside.at(-1)! + 1 };
  });
}

/** `name` if it is free, otherwise `name2`, `name3`, … */
export function freeName(name: string, taken: object): string {
  let free = name;
  for (let n = 2; Object.hasOwn(taken, free); n++) free = `${name}${n}`;
  return free;
}
