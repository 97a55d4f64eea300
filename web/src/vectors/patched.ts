import type { Setting } from "../../../src/patching/setting.ts";
import type { Answer, LayersAnswer, VectorSummary } from "../../../src/session/messages/results.ts";
import type { EditSpec } from "../../../src/session/messages/values.ts";
import type { Asking } from "../ask.ts";
import type { PromptDoc } from "../prompts/prompt-doc.ts";
import { promptSpec } from "../prompts/prompt-spec.ts";
import { vectorOf } from "./make-vector.ts";
import type { Recipe } from "./recipe.ts";

/** A vector in place of what a layer has at the last token. */
export type Patch = { readonly recipe: Recipe; readonly layer: number };

/** What a question is answered with: as it is, and with each vector in turn. */
export interface PatchedAnswers {
  readonly setting: Setting;
  readonly plain: Answer;
  readonly patched: readonly Answer[];
}

const TOP = 5;

export async function patchEdit(asking: Asking, { recipe, layer }: Patch): Promise<EditSpec> {
  const summary = await vectorOf(asking, recipe);
  const { site, ...part } = targetOf(summary);
  const value = { vector: summary.vector, layer };
  return { operation: "set", site: `${site}.${layer}`, at: -1, ...part, value };
}

/** What of a layer a vector replaces: the site, without a layer, and the head that it was read at. Throws where it is no one row. */
function targetOf({ site, layers, head, positions, origin }: VectorSummary) {
  if (positions !== undefined)
    throw new Error(`${origin} holds ${positions} positions; a question's last token takes one`);
  const bare = layers.length > 0 ? site : site.replace(/\.\d+$/, "");
  return { site: bare, ...(head !== undefined && { head }) };
}

/** One pass over the question, and of each patched one what the vector can change. */
export async function askPatched(
  asking: Asking,
  prompt: PromptDoc,
  patches: readonly Patch[],
): Promise<PatchedAnswers> {
  const { client, model, signal } = asking;
  const variants: EditSpec[][] = [];
  for (const patch of patches) variants.push([await patchEdit(asking, patch)]);
  const spec = await promptSpec(client, prompt);
  const { recording, setting, top, tracked } = await client.record(
    { model, prompt: spec, top: TOP },
    { signal },
  );
  try {
    const plain = { top, tracked };
    if (variants.length === 0) return { setting, plain, patched: [] };
    const { variants: patched } = await client.resume({ recording, variants, top: TOP }, { signal });
    return { setting, plain, patched };
  } finally {
    client.free([recording]).catch(() => {});
  }
}

/** The answers with the vector in each layer in turn. */
export interface ByLayer extends LayersAnswer {
  readonly plain: Answer;
}

/** Asks in every layer; `track` are ids to tell the probability of. */
export async function askLayers(
  asking: Asking,
  prompt: PromptDoc,
  recipe: Recipe,
  track: readonly number[],
): Promise<ByLayer> {
  const { client, model, signal, onProgress } = asking;
  const summary = await vectorOf(asking, recipe);
  const options = { track, top: TOP };
  const spec = await promptSpec(client, prompt);
  const { recording, top, tracked } = await client.record({ model, prompt: spec, ...options }, { signal });
  try {
    const { vector } = summary;
    const edit = { operation: "set" as const, ...targetOf(summary), at: -1, value: { vector } };
    const answer = await client.layers({ recording, edit, ...options }, { signal, onProgress });
    return { ...answer, plain: { top, tracked } };
  } finally {
    client.free([recording]).catch(() => {});
  }
}

/** The id of the token that an answer begins with behind a question: what the text gains by it first. */
export async function firstTokenOf(
  { client, model, signal }: Asking,
  answer: string,
): Promise<number | undefined> {
  const read = async (text: string) => {
    const { ids, prompt } = await client.encode({ model, prompt: { parts: text } }, { signal });
    client.free([prompt]).catch(() => {});
    return ids;
  };
  const cue = await read("A:");
  const answered = await read(`A: ${answer}`);
  return answered.find((id, i) => id !== cue[i]);
}
