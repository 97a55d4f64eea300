import {
  concat,
  type Edit,
  extractActivations,
  type Prompt,
  type Recording,
  record,
  resume,
  stack,
  type Tensor,
} from "xpatch";
import { checkChoice, choicesOf, mostProbable } from "#src/model/walk/sampling";
import { encoderRowLayers, rowLayersOf } from "#src/patching/row-layers";
import type { Lab } from "./lab.ts";

/** Tokens of prompts in one recording, and patched prompts in one batch; both bound the memory. */
const BATCH_TOKENS = 1024;
const BATCH_VARIANTS = 128;

export interface OwnPatches {
  /** Position of a token whose residual stream is wanted. */
  readonly read?: (index: number) => number;
  /** Sets of edits of a prompt, as many for each prompt. */
  readonly edits?: (index: number) => readonly (readonly Edit[])[];
}

export interface OwnPatched {
  /** `states[prompt][layer]`: the residual stream behind each layer at the token that was asked for. */
  readonly states: readonly (readonly Float32Array[])[];
  /** The next token of each prompt by itself. */
  readonly unpatched: readonly number[];
  /** `patched[set][prompt]` */
  readonly patched: readonly (readonly number[])[];
}

/**
 * Runs prompts under edits that differ from prompt to prompt, and reads a token of each. Costs one pass over the prompts
 * plus, for each set of edits, the rows that it can change.
 */
export async function patchOwn(
  lab: Lab,
  prompts: readonly Prompt[],
  { read, edits = () => [] }: OwnPatches,
): Promise<OwnPatched> {
  const states: Float32Array[][] = [];
  const unpatched: number[] = [];
  const patched: number[][] = [];
  for (const indices of batches(prompts)) {
    const found = await patchBatch(lab, indices, prompts, read, indices.map(edits));
    states.push(...found.states);
    unpatched.push(...found.tokens.slice(0, indices.length));
    for (let first = indices.length, set = 0; first < found.tokens.length; first += indices.length, set++) {
      patched[set] = [...(patched[set] ?? []), ...found.tokens.slice(first, first + indices.length)];
    }
  }
  return { states, unpatched, patched };
}

/** Tokens without edits, then those under each prompt's first set, second, … */
async function patchBatch(
  lab: Lab,
  indices: readonly number[],
  prompts: readonly Prompt[],
  read: OwnPatches["read"],
  edits: readonly (readonly (readonly Edit[])[])[],
): Promise<{ states: Float32Array[][]; tokens: number[] }> {
  const { model } = lab;
  const { layers, width } = lab;
  const batch = indices.map((index) => prompts[index]!);
  const sets = edits[0]!.length;
  let rowLayers = 0;
  const scope = model.device.openScope();
  try {
    const results = scope.enter(() => {
      using recording = record(model, batch);
      rowLayers += recording.rowLayers;
      const chosen = [mostProbable(recording.logits)];
      const variants = Array.from({ length: sets }, (_, set) =>
        batch.map((_, prompt) => ({ prompt, edits: edits[prompt]![set]! })),
      ).flat();
      for (let first = 0; first < variants.length; first += BATCH_VARIANTS) {
        chosen.push(
          model.device.scope(() => {
            const resumed = resume(recording, variants.slice(first, first + BATCH_VARIANTS));
            rowLayers += resumed.rowLayers;
            return mostProbable(resumed.logits);
          }),
        );
      }
      if (read && lab.options.stack === "encoder") {
        rowLayers += batch.reduce((sum, prompt) => sum + encoderRowLayers(model, prompt), 0); // read by passes of their own
      }
      const rows = read && model.device.scope(() => statesOf(lab, recording, (i) => read(indices[i]!)));
      return [...chosen, ...(rows ? [rows] : [])];
    });
    const values: ArrayLike<number>[] = [...(await model.device.read<readonly Tensor[]>(results))];
    const all = read ? (values.pop() as Float32Array) : new Float32Array();
    const states = batch.map((_, prompt) =>
      Array.from({ length: read ? layers : 0 }, (_, layer) => {
        const start = (prompt * layers + layer) * width;
        return all.slice(start, start + width);
      }),
    );
    const choices = values.map((chosen) => choicesOf(chosen as Uint32Array));
    choices
      .flatMap(({ logits }) => [...logits])
      .forEach((value, i) => {
        checkChoice(value, () => `prompt ${indices[i % batch.length]}`);
      });
    lab.spend({
      rowLayers,
      plainRowLayers: batch.reduce((sum, prompt) => sum + rowLayersOf(model, prompt), 0) * (sets + 1),
      plainPasses: batch.length * (sets + 1),
    });
    return { states, tokens: choices.flatMap(({ ids }) => [...ids]) };
  } finally {
    scope.dispose();
  }
}

/** The residual stream behind each layer at a token of each recorded prompt: [prompts * layers, 1, width]. */
function statesOf(lab: Lab, recording: Recording, read: (index: number) => number): Tensor {
  const { model, prompts } = recording;
  const layers = Array.from({ length: lab.layers }, (_, layer) => layer);
  if (lab.stream === "resid_post") {
    return stack(
      prompts.flatMap((_, i) => layers.map((layer) => recording.entering(layer + 1, i, [read(i)]))),
    );
  }
  // Of an encoder a recording keeps what leaves it alone.
  return concat(
    prompts.map((prompt, i) => {
      const activations = extractActivations(model, [prompt], { site: lab.stream, at: read(i) });
      return activations.reshape([lab.layers, 1, lab.width]);
    }),
  );
}

/** Indices of prompts that fit into a batch together. */
function batches(prompts: readonly Prompt[]): number[][] {
  const all: number[][] = [];
  let tokens = Number.POSITIVE_INFINITY;
  prompts.forEach(({ length }, index) => {
    tokens += length;
    if (tokens > BATCH_TOKENS) {
      all.push([]);
      tokens = length;
    }
    all.at(-1)!.push(index);
  });
  return all;
}
