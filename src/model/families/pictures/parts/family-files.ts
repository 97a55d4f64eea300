import { CheckpointError } from "../../../../errors.ts";
import type { Checkpoint } from "../../../checkpoint/checkpoint.ts";
import { processorJson } from "../../../checkpoint/processor-file.ts";
import { createTokenizer, type Tokenizer } from "../../../prompt/tokenizer.ts";
import type { Family, FamilyFiles } from "../../family.ts";

/**
 * What a family needs beside config.json, where the model's own tokenizer has been read, or could not be, and the contents of
 * processor_config.json. Throws CheckpointError
 * for a tokenizer of the family's own that is missing or damaged.
 */
export async function familyFiles(
  checkpoint: Checkpoint,
  { tokenizers = [], modelType }: Family,
  tokenizer: Tokenizer | undefined,
  processor: unknown,
): Promise<FamilyFiles> {
  const beside: Record<string, Tokenizer> = {};
  for (const folder of tokenizers) {
    const json = await checkpoint.json(`${folder}/tokenizer.json`);
    if (json === undefined) {
      throw new CheckpointError(
        `${checkpoint.name}: there is no ${folder}/tokenizer.json, which a ${modelType} needs beside its tokenizer`,
      );
    }
    const config = (await checkpoint.json(`${folder}/tokenizer_config.json`)) ?? undefined;
    beside[folder] = createTokenizer(json, config);
  }
  return {
    preprocessor: await processorJson(checkpoint),
    processor,
    ...(tokenizer && { specialTokens: tokenizer.specialTokens }),
    tokenOf: (id) => tokenizer?.tokenOf(id) ?? `<#${id}>`,
    idOf: (token) => tokenizer?.idOf(token),
    eosId: tokenizer?.eosId,
    tokenizers: beside,
  };
}
