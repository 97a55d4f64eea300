import { decodeStream, extractActivations, type SpecificationKind, topK, upToLastExample } from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { Lab } from "../framework/lab.ts";
import { instructionOf, specifiedQueries } from "../framework/prompts.ts";
import { checkReading } from "../framework/readings.ts";
import { sample } from "../statistics/random.ts";
import { chosenLayer } from "./layer-sweep.ts";
import { spread } from "./spread.ts";

/** Most probable tokens that are kept. */
const TOKENS = 5;

/** Most sets of a task and specification under each seed. */
const MOST_SETS = 10;

export interface DecodedSetsResult {
  /** Where text vectors are patched into text queries, chosen by validation items. */
  readonly layer: number;
  /** That layer and others at even distances. */
  readonly layers: readonly number[];
  readonly sets: readonly DecodedSet[];
}

/** A set of examples by itself, or an instruction. */
export interface DecodedSet {
  /** The item that the examples were drawn for; of an instruction its task. */
  readonly of: string;
  /** `ids[l]`: the most probable tokens in `layers[l]`, most probable first. */
  readonly ids: readonly (readonly number[])[];
  readonly tokens: readonly (readonly string[])[];
}

export interface DecodedSetsParams {
  readonly task: string;
  readonly specification: SpecificationKind;
  readonly seed: number;
}

/** What the vector of each set of examples, unaveraged, reads as through the unembedding. */
export const decodedSets = defineCell(
  "decoded-sets",
  async (lab, params: DecodedSetsParams): Promise<DecodedSetsResult> => {
    const { model } = lab;
    const task = lab.task(params.task);
    const layer = chosenLayer(lab, { specification: "text", query: "text" }, task);
    const layers = [...new Set([...spread(model.config.layers), layer])].sort((a, b) => a - b);
    const { names, prompts } = await setsOf(lab, params);
    const scope = model.device.openScope();
    try {
      const top = scope.enter(() => {
        const vectors = extractActivations(model, prompts, { layers });
        const rows = vectors.reshape([prompts.length * layers.length, model.config.width]);
        return topK(decodeStream(model, rows), TOKENS);
      });
      const [values, indices] = await model.device.read([top.values, top.indices]);
      const ids = Array.from(indices);
      for (const row of Array.from({ length: prompts.length * layers.length }).keys()) {
        const place = `resid_post.${layers[row % layers.length]} of ${names[Math.floor(row / layers.length)]}`;
        checkReading(values[row * TOKENS]!, model, place);
      }
      lab.spendPasses(prompts, model);
      const sets = names.map((of, set): DecodedSet => {
        const rows = layers.map((_, l) => {
          const start = (set * layers.length + l) * TOKENS;
          return ids.slice(start, start + TOKENS);
        });
        return { of, ids: rows, tokens: rows.map((row) => row.map((id) => model.tokenizer.decode([id]))) };
      });
      return { layer, layers, sets };
    } finally {
      scope.dispose();
    }
  },
);

async function setsOf(lab: Lab, { task: name, specification, seed }: DecodedSetsParams) {
  const task = lab.task(name);
  if (specification === "instruction") {
    return { names: [name], prompts: [lab.model.prompt(instructionOf(task))] };
  }
  const items = lab.items(task, "validation");
  const asked = { split: "validation", specification, query: "text", seed } as const;
  const all = await specifiedQueries(lab, task, asked);
  const kept = sample([...items.keys()], MOST_SETS, seed);
  return {
    names: kept.map((i) => items[i]!.input),
    prompts: kept.map((i) => upToLastExample(lab.model, all[i]!)),
  };
}
