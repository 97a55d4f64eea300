import { readCount, readFields, readNumber } from "../../document/read.ts";
import { defineSlice } from "../../document/slice.ts";
import { type PromptDoc, readPromptDoc, written } from "../../prompts/prompt-doc.ts";

export type PromptSlice = {
  readonly prompt: PromptDoc;
  readonly maxNewTokens: number;
  /** 0 is greedy. */
  readonly temperature: number;
  readonly seed: number;
};

export const MOST_NEW_TOKENS = 512;

/** What the view Prompt keeps in the document. */
export const promptSlice = defineSlice<PromptSlice>({
  name: "prompt",
  initial: { prompt: written(""), maxNewTokens: 16, temperature: 0, seed: 0 },
  read(value, at) {
    const fields = readFields(value, at, ["prompt", "maxNewTokens", "temperature", "seed"]);
    return {
      prompt: readPromptDoc(fields["prompt"], `${at}.prompt`),
      maxNewTokens: Math.max(1, readCount(fields["maxNewTokens"], `${at}.maxNewTokens`, MOST_NEW_TOKENS)),
      temperature: readNumber(fields["temperature"], `${at}.temperature`, [0, 10]),
      seed: readCount(fields["seed"], `${at}.seed`, 2 ** 31),
    };
  },
});
