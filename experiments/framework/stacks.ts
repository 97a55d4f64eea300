import type { Lab } from "./lab.ts";

/** Of a model with two stacks of text: which of them task vectors are of, and where in it they are. */
export function stackNote({ model, options }: Lab): string | undefined {
  if (!model.config.encoder) return undefined;
  const two = "This model has an encoder, which reads prompts, and a decoder, which answers.";
  return options.stack === "encoder"
    ? `${two} Vectors are of the encoder: read in its residual stream at the last token of what it reads, the end token of the prompt, and put there; layers are the encoder's. It attends both ways, so that a patch changes what the other tokens of the prompt become in the layers behind it.`
    : `${two} Vectors are of the decoder: read in its residual stream at its last token, which is its start token, and put there; layers are the decoder's. The encoder is left as it is.`;
}

/** Why what happens at single tokens of prompts cannot be asked in the layers that task vectors are of, if it cannot. */
export function withoutPlaces(lab: Lab): string | undefined {
  return lab.readsPrompts
    ? undefined
    : "the decoder reads prompts by cross-attention, and its layers have no residual stream at their tokens, those of names and pictures; the encoder's have (--stack encoder)";
}

/** Why the residual stream that task vectors are of cannot be read through the unembedding, if it cannot. */
export function withoutUnembedding({ options }: Lab): string | undefined {
  return options.stack === "encoder"
    ? "the unembedding reads the decoder's residual stream, and was not made for the encoder's"
    : undefined;
}
