import type { PatchableModel } from "xpatch";
import { checkChoice } from "#src/model/walk/sampling";

/**
 * Throws GenerationError, with the model and what was read, where the greatest of the logits or probabilities that
 * something reads as is NaN: topK and argmax put it first, as a token like any other.
 */
export function checkReading(greatest: number, { name }: PatchableModel, read: string): void {
  checkChoice(greatest, () => `${name}, ${read} through the unembedding`);
}
