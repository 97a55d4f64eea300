import { PromptError } from "../../../errors.ts";
import { ropeFrequencies } from "../../../kernels/attention/rope.ts";
import type { RopeConfig } from "../../checkpoint/config/rope-config.ts";
import type { VisionSetup } from "../../checkpoint/config/vision-setup.ts";
import { type PromptInput, placesByImage } from "../../prompt/image-places.ts";
import type { Prompt } from "../../prompt/prompt.ts";
import { picturesOf } from "../../prompt/prompt-image.ts";
import { AxisRope } from "./axis-rope.ts";

export interface PictureRopeOptions {
  readonly headDim: number;
  readonly rope: RopeConfig;
  /** Which of the frequencies, half of a head, turns with time (0), row (1) and column (2). */
  readonly axes: readonly number[];
}

/**
 * M-RoPE (Wang et al. 2024, arXiv 2409.12191): a token of text turns by its position, a picture's by the position where the
 * picture starts, plus its row and its column. What follows a picture counts on from the largest of these.
 */
export function pictureRope({ headDim, rope, axes }: PictureRopeOptions, setup: VisionSetup): AxisRope {
  const known = new WeakMap<Prompt, PromptCoordinates>();
  const coordinatesOf = (prompt: Prompt) => {
    const found = known.get(prompt) ?? promptCoordinates(prompt, setup);
    known.set(prompt, found);
    return found;
  };
  return new AxisRope({
    frequencies: ropeFrequencies({ rotaryDim: headDim, ...rope }),
    axes,
    coordinates(pass) {
      const coordinates = [0, 1, 2].map(() => new Uint32Array(pass.rows.length));
      for (const { row, sequence, position } of pass.rows.entries()) {
        const prompt = pass.prompt(sequence)!;
        const { axes: own, next } = coordinatesOf(prompt);
        const generated = position - prompt.length;
        coordinates.forEach((axis, i) => {
          axis[row] = generated < 0 ? own[i]![position]! : next + generated;
        });
      }
      return coordinates;
    },
  });
}

interface PromptCoordinates {
  /** Time, row and column, each by position. */
  readonly axes: readonly [time: Uint32Array, row: Uint32Array, column: Uint32Array];
  /** Of the first token behind the prompt, on all axes. */
  readonly next: number;
}

/** Throws PromptError for a picture whose places do not follow each other. */
export function promptCoordinates(prompt: PromptInput, setup: VisionSetup): PromptCoordinates {
  const { length } = prompt.ids;
  const [time, row, column] = [0, 1, 2].map(() => new Uint32Array(length)) as [
    Uint32Array,
    Uint32Array,
    Uint32Array,
  ];
  let next = 0;
  let position = 0;
  const text = (end: number) => {
    for (; position < end; position++) time[position] = row[position] = column[position] = next++;
  };
  const places = placesByImage(prompt, setup);
  for (const [i, picture] of picturesOf(prompt).entries()) {
    const { tokens, grid } = setup.layout(picture);
    const start = places[i]![0]!;
    if (places[i]!.at(-1) !== start + tokens - 1) {
      throw new PromptError(
        `Expected the ${tokens} ${setup.imageToken} tokens of image ${i} one after the other, found other tokens between them.`,
      );
    }
    text(start);
    for (let token = 0; token < tokens; token++, position++) {
      time[position] = next;
      row[position] = next + Math.floor(token / grid!.columns);
      column[position] = next + (token % grid!.columns);
    }
    next += Math.max(grid!.rows, grid!.columns);
  }
  text(length);
  return { axes: [time, row, column], next };
}
