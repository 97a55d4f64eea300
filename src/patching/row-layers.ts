import type { ModelOutline } from "../model/language-model.ts";
import type { Prompt } from "../model/prompt/prompt.ts";

/**
 * Rows times layers of a full pass over a prompt, or over the sequence that a decoder reads beside an encoder: both stacks of
 * text are counted, those of pictures are not.
 */
export function rowLayersOf(model: ModelOutline, prompt: Prompt): number {
  const { layers, encoder } = model.config;
  // A decoder reads its start token, and then the answer.
  const decoded = !encoder || prompt.source ? prompt.length : 1 + (prompt.answer?.length ?? 0);
  return decoded * layers + encoderRowLayers(model, prompt);
}

/** Those of the encoder alone; 0 where there is none. */
export function encoderRowLayers({ config: { encoder } }: ModelOutline, prompt: Prompt): number {
  return encoder ? (prompt.source ?? prompt).length * encoder.layers : 0;
}
