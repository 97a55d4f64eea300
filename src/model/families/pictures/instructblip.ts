import { PromptError } from "../../../errors.ts";
import type { Family, FamilyFiles } from "../family.ts";
import {
  type BlipConfig,
  type BlipSetup,
  blipImageRules,
  buildBlip,
  readBlipConfig,
} from "./parts/blip-parts.ts";

interface InstructBlipConfig extends BlipConfig {
  /** What the Q-Former reads of a text: ids, [CLS] and [SEP] included. */
  instruct(text: string): readonly number[];
}

const TOKENIZER = "qformer_tokenizer";

/** The setup with what the Q-Former reads of prompts, and a check of that. */
function withText(setup: BlipSetup): BlipSetup {
  const { context } = setup.qformer.text!;
  return {
    ...setup,
    textOf: ({ instruction = [] }) => instruction,
    check({ images, instruction }) {
      if (images.length === 0) return;
      if (!instruction) {
        throw new PromptError(
          "Expected a prompt made by this model, whose Q-Former reads its text too, found one without that.",
        );
      }
      if (instruction.length > context) {
        throw new PromptError(
          `Expected a prompt of at most ${context} tokens for the Q-Former (max_position_embeddings), found ${instruction.length}.`,
        );
      }
    },
  };
}

/**
 * InstructBLIP (Dai et al. 2023, arXiv 2305.06500): BLIP-2 whose Q-Former also reads the prompt, over Vicuna or Flan-T5. Each
 * picture of a prompt has all of its text read beside it, without the placeholders; transformers has one picture a prompt.
 */
export const instructblip: Family<InstructBlipConfig> = {
  modelType: "instructblip",
  tokenizers: [TOKENIZER],
  readConfig(config, where, files: FamilyFiles) {
    const read = readBlipConfig(config, where, files, true);
    const tokenizer = files.tokenizers![TOKENIZER]!;
    return { ...read, vision: withText(read.vision), instruct: (text) => tokenizer.encode(text) };
  },
  imageRules: ({ vision, instruct }) => ({ ...blipImageRules(vision), instruct }),
  build: buildBlip,
};
