import type { Picture } from "../checkpoint/config/vision-setup.ts";
import type { Prompt } from "../prompt/prompt.ts";

/** Positions `start` up to but not including `end` that a query may attend to. */
export interface KeyRange {
  readonly start: number;
  readonly end: number;
}

/** What a mask may depend on beside the position. */
export interface Sequence {
  /** Absent in a vision tower, whose sequences are images. */
  readonly prompt?: Prompt | undefined;
  /** In a vision tower: what the sequence is. */
  readonly image?: Picture | undefined;
}

/** The attention mask of a layer, as a rule: what a query at `position` of a sequence may attend to. */
export type AttentionRule = (position: number, sequence: Sequence) => KeyRange;

/** Every position of the sequence: encoders. */
export const full: AttentionRule = () => ({ start: 0, end: Number.POSITIVE_INFINITY });

export const causal: AttentionRule = (position) => ({ start: 0, end: position + 1 });

/** The `window` latest positions, the query's own included (Mistral's sliding window). */
export function slidingWindow(window: number): AttentionRule {
  return (position) => ({ start: Math.max(0, position + 1 - window), end: position + 1 });
}

/** Blocks of this many positions, each of which sees itself and no other: the tiles of a picture. */
export function blocksOf(size: number): AttentionRule {
  return (position) => {
    const start = position - (position % size);
    return { start, end: start + size };
  };
}

/** All of the prompt for its own positions, causal behind it (PaliGemma's prefix). */
export const promptPrefix: AttentionRule = (position, { prompt }) => ({
  start: 0,
  end: Math.max(position + 1, prompt?.length ?? 0),
});

/**
 * What `rule` shows, and of the picture that a query is a token of also what is behind the query (Gemma 3). A picture is a run of
 * image tokens; so two of them with nothing between are one here, as in transformers.
 */
export function wholePictures(rule: AttentionRule, imageTokenId: number): AttentionRule {
  const known = new WeakMap<Prompt, Uint32Array>();
  const endsOf = (prompt: Prompt) => {
    const ends = known.get(prompt) ?? runEnds(prompt.ids, imageTokenId);
    known.set(prompt, ends);
    return ends;
  };
  return (position, sequence) => {
    const { start, end } = rule(position, sequence);
    const ends = sequence.prompt && endsOf(sequence.prompt);
    return { start, end: Math.max(end, ends?.[position] ?? 0) };
  };
}

/** By position of an id that is `wanted`, where the run of it ends; 0 at others. */
function runEnds(ids: readonly number[], wanted: number): Uint32Array {
  const ends = new Uint32Array(ids.length);
  for (let position = ids.length - 1; position >= 0; position--) {
    if (ids[position] === wanted) ends[position] = ends[position + 1] || position + 1;
  }
  return ends;
}

/** A part of a picture: how many queries it has, and the keys that they see, and no others do. */
export interface PicturePart {
  readonly rows: number;
  readonly keys: number;
}

/** Parts of a picture one after the other, whose keys lie in that order too: tiles of unequal size. */
export function partsOf(parts: (picture: Picture) => readonly PicturePart[]): AttentionRule {
  const known = new WeakMap<Picture, readonly PicturePart[]>();
  return (position, { image }) => {
    const own = known.get(image!) ?? parts(image!);
    known.set(image!, own);
    let [row, key] = [0, 0];
    for (const { rows, keys } of own) {
      row += rows;
      if (position < row) return { start: key, end: key + keys };
      key += keys;
    }
    return { start: key, end: key };
  };
}
