import { PromptError } from "../../errors.ts";
import type { VisionSetup } from "../checkpoint/config/vision-setup.ts";
import { checkImagePlaces } from "./image-places.ts";
import type { Prompt } from "./prompt.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** What decides whether a prompt means on a model what it says. */
export interface PromptTaker {
  readonly tokenizer: Pick<Tokenizer, "tokenOf">;
  readonly config: {
    /** Rows of the embedding. */
    readonly vocab: number;
    readonly inputIds?: number | undefined;
    readonly vision?: VisionSetup | undefined;
    /** Set where an encoder reads the prompt, and a decoder answers. */
    readonly encoder?: object | undefined;
  };
}

/**
 * Checks that a prompt means on this model what it says, whichever model it was made by: each id has a row in the
 * embedding and is the same token here, and there are as many places for image features as its pictures fill.
 *
 * @throws PromptError with what was expected and found
 */
export function checkPrompt(prompt: Prompt, { tokenizer, config }: PromptTaker): void {
  const { vision, encoder } = config;
  const vocab = config.inputIds ?? config.vocab;
  const { ids, tokens, images, answer } = prompt;
  if (answer && !encoder) {
    throw new PromptError(
      `Expected no answer beside the prompt, for this model has no encoder: what it is to go on from belongs in the prompt; found ${JSON.stringify(answer.text)}.`,
    );
  }
  if (answer) checkPrompt(answer, { tokenizer, config: { vocab } });
  for (const [position, id] of ids.entries()) {
    if (id >= vocab) {
      throw new PromptError(
        `Expected token ids below ${vocab} (the rows of the model's embedding), found ${id} (${tokens[position]}) at position ${position}.`,
      );
    }
    const token = tokenizer.tokenOf(id);
    if (token !== tokens[position]) {
      throw new PromptError(
        `Expected a prompt for this model's tokenizer, in which ${id} is ${token}, found ${tokens[position]} for it at position ${position}.`,
      );
    }
  }
  if (vision) checkImagePlaces(prompt, vision);
  else if (images.length > 0) {
    throw new PromptError(`This model takes no images, found ${images.length} in the prompt.`);
  }
}
