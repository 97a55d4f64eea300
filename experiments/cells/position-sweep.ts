import {
  atLastExample,
  concat,
  type Modality,
  mean,
  type Prompt,
  stack,
  type Tap,
  type Tensor,
  tap,
} from "xpatch";
import { defineCell } from "../framework/cell.ts";
import { specifiedQueries } from "../framework/prompts.ts";
import type { Scored } from "../framework/scored.ts";
import { patchAt, validationGrid } from "./layer-sweep.ts";
import { spread } from "./spread.ts";
import { rowsOf } from "./task-vectors.ts";

/**
 * Tokens around the last example's answer cue, counted from it: from the end of its x to the first token of its answer.
 * The last one is the answer cue of the query.
 */
const OFFSETS = [-3, -2, -1, 0, 1] as const;

/** Prompts in one pass: each layer of each position is kept until it ends. */
const BATCH_PROMPTS = 8;

export interface PositionSweepResult {
  /** Tokens of the first prompt at the positions, with the place that they have. */
  readonly positions: readonly string[];
  readonly layers: readonly number[];
  /** `patched[position][l]` */
  readonly patched: readonly (readonly Scored[])[];
}

/** Accuracy on validation items, by the token of the text prompts that the vector is read at, and by layer. */
export const positionSweep = defineCell(
  "position-sweep",
  async (lab, { task: name, query }: { task: string; query: Modality }): Promise<PositionSweepResult> => {
    const { model } = lab;
    const task = lab.task(name);
    const specified = { split: "validation", specification: "text", query: "text", seed: 0 } as const;
    const prompts = await specifiedQueries(lab, task, specified);
    const layers = spread(lab.layers);
    const places = [
      ...OFFSETS.map((offset) => (prompt: Prompt) => atLastExample(prompt) + offset),
      (prompt: Prompt) => prompt.last,
    ];
    const taps: Record<string, Tap<(prompt: Prompt) => number>> = {};
    places.forEach((place, p) => {
      for (const layer of layers) taps[`${p} ${layer}`] = tap(lab.streamAt(layer), place);
    });
    const names = Object.keys(taps);
    using means = model.device.scope(() => {
      const batches: Tensor[] = [];
      for (let first = 0; first < prompts.length; first += BATCH_PROMPTS) {
        const batch = prompts.slice(first, first + BATCH_PROMPTS);
        batches.push(
          model.device.scope(() => {
            const tapped = model.run(batch, { taps, stopAfter: lab.lastLayerOf(layers) });
            return stack(names.map((key) => tapped[key] as Tensor));
          }),
        );
      }
      return mean(concat(batches, 1), 1);
    });
    lab.spendPasses(prompts, model);
    const vectors = await rowsOf(means);
    const grid = places.map((_, p) =>
      layers.map((layer, l) => patchAt(lab, layer, vectors[p * layers.length + l]!)),
    );
    const { patched } = await validationGrid(lab, name, query, grid);
    const [prompt] = prompts;
    return {
      positions: places.map((place) => model.tokenizer.decode([prompt!.ids[place(prompt!)]!])),
      layers,
      patched,
    };
  },
);
