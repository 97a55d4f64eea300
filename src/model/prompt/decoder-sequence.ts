import { Prompt, type Span } from "./prompt.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * What the decoder of an encoder-decoder reads: its start token and the answer so far. The encoder reads the prompt itself, which
 * becomes the `source`; images go with it.
 */
export function decoderSequence<Image>(
  prompt: Prompt<Image>,
  start: number,
  tokenizer: Pick<Tokenizer, "tokenOf">,
): Prompt<Image> {
  const { answer, images, instruction } = prompt;
  const moved = ([name, span]: [string, Span]) =>
    [name, { start: span.start + 1, end: span.end + 1 }] as const;
  return new Prompt<Image>({
    text: answer?.text ?? "",
    ids: [start, ...(answer?.ids ?? [])],
    tokens: [tokenizer.tokenOf(start), ...(answer?.tokens ?? [])],
    spans: Object.fromEntries(Object.entries(answer?.spans ?? {}).map(moved)),
    images,
    bos: false,
    instruction,
    source: prompt,
  });
}
