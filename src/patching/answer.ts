import { aListOf, checkArgument } from "../arguments.ts";
import { SiteError } from "../errors.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import type { Tokenizer } from "../model/prompt/tokenizer.ts";
import { checkEdits, checkModelAndPrompts } from "./arguments.ts";
import type { Edit } from "./edit.ts";
import type { Generated, GenerateOptions } from "./generate.ts";
import type { PatchableModel } from "./model.ts";

/**
 * Greedy answers to each query under each set of edits: `answers[e][q]` is that of query q with `edits[e]`, all in one
 * batch. An empty set changes nothing; an edit with a `prompt` is of that query alone.
 *
 * @param options - `stopIds`: what ends an answer, in place of the checkpoint's own.
 */
export async function answerEach(
  model: PatchableModel,
  queries: readonly Prompt[],
  edits: readonly (readonly Edit[])[],
  maxNewTokens: number,
  options: Pick<GenerateOptions, "stopIds"> = {},
): Promise<Generated[][]> {
  checkModelAndPrompts("answerEach", model, "queries", queries);
  checkArgument("answerEach", "edits", edits, aListOf({ words: "a list of edits", holds: Array.isArray }));
  for (const [e, set] of edits.entries()) checkEdits(`answerEach, edits[${e}]`, set);
  const { length } = queries;
  const placed = edits.flatMap((set, e) =>
    queries.flatMap((_, q) =>
      set.flatMap((edit): Edit[] => {
        const { prompt = q } = edit;
        if (!(Number.isInteger(prompt) && prompt >= 0 && prompt < length)) {
          throw new SiteError(`answerEach: edits[${e}] names query ${prompt} of ${length}`);
        }
        return prompt === q ? [{ ...edit, prompt: e * length + q }] : [];
      }),
    ),
  );
  const prompts = edits.flatMap(() => queries);
  const answers = await model.generate(prompts, { ...options, edits: placed, maxNewTokens });
  return edits.map((_, e) => answers.slice(e * length, (e + 1) * length));
}

/**
 * The first line of an answer: models go on with questions of their own. Without the last character of an answer that was
 * cut off within it.
 */
export function firstLine(tokenizer: Tokenizer, { ids }: Generated): string {
  const { text } = tokenizer.decodePrefix(ids, { skipSpecial: true });
  return text.trim().split("\n")[0]!;
}
