import { useEffect, useMemo } from "preact/hooks";
import type { EncodedPrompt } from "../../../src/session/messages/results.ts";
import { type Held, useHeld, useSettled } from "../hold.ts";
import { isEmpty, type PromptDoc } from "./prompt-doc.ts";
import { promptSpec } from "./prompt-spec.ts";

/** Milliseconds after the last key in which a prompt is read again. */
const PAUSE = 250;

/** A prompt of the document as the model reads it: tokens, pictures, and a handle to compute with. Nothing for an empty one. */
export function useEncoded(prompt: PromptDoc): Held<EncodedPrompt> {
  const settled = useSettled(prompt, PAUSE);
  return useHeld(
    isEmpty(settled) ? undefined : settled,
    async ({ client, model, signal }) =>
      client.encode({ model, prompt: await promptSpec(client, settled), views: true }, { signal }),
    ({ prompt: handle }, client) => void client.free([handle]).catch(() => {}),
  );
}

/** An address for bytes, for as long as they are shown. */
export function useAddress(bytes: Uint8Array | undefined, type = "image/png"): string | undefined {
  const address = useMemo(
    () => bytes && URL.createObjectURL(new Blob([bytes as Uint8Array<ArrayBuffer>], { type })),
    [bytes, type],
  );
  useEffect(() => () => void (address && URL.revokeObjectURL(address)), [address]);
  return address;
}
