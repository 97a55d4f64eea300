import type { Prompt } from "../../src/model/prompt/prompt.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import type { Variant } from "../../src/patching/resume.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { readAll } from "./model.ts";

/** Prompts of one batch. */
const MOST = 16;

/**
 * Logits [vocab] of the last token of each variant of `prompts`, by runs from the beginning. Several run as a batch, which gives what
 * each gives alone (rules.test.ts) in a fraction of the dispatches.
 */
export async function fullRuns(
  model: PatchableModel,
  prompts: readonly Prompt[],
  variants: readonly Variant[],
): Promise<Float32Array[]> {
  const found: Float32Array[] = [];
  for (let start = 0; start < variants.length; start += MOST) {
    const some = variants.slice(start, start + MOST);
    const edits = some.flatMap((variant, i) => variant.edits.map((edit) => ({ ...edit, prompt: i })));
    const batch = some.map(({ prompt = 0 }) => prompts[prompt]!);
    const run = model.run(batch, { edits });
    const { logits } = await readAll({ logits: run.logits as unknown as Tensor });
    const { vocab } = model.config;
    found.push(...some.map((_, i) => logits.slice(i * vocab, (i + 1) * vocab)));
  }
  return found;
}
