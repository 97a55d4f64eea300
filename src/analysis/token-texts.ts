import type { Tokenizer } from "../model/prompt/tokenizer.ts";

/** What each token reads as; its name in the vocabulary where a decoder leaves nothing of it, as of a lone blank. */
export function tokenTexts(
  tokenizer: Pick<Tokenizer, "decode">,
  { ids, tokens }: { readonly ids: readonly number[]; readonly tokens: readonly string[] },
): string[] {
  return ids.map((id, i) => tokenizer.decode([id]) || tokens[i]!);
}
