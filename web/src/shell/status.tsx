import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { model } from "../model.ts";
import { activity, rests } from "../rest.ts";
import { lookAtAdapter, noteError, session } from "../session.ts";
import { bytesInWords } from "../ui/words.ts";

/** The last line of the page: what is being done, in words that are read out when they change. */
export function Status(): JSX.Element {
  return (
    <footer class="status" aria-busy={!rests.value}>
      <span role="status">{doing()}</span>
      <Memory />
      <span class="end">
        Everything stays on this machine
        {session.value.target.kind === "serve" ? " and the one it is connected to" : ""}.
      </span>
    </footer>
  );
}

/** Bytes of tensors on the device, as they were when something was last computed. */
function Memory(): JSX.Element | null {
  const state = session.value;
  const isAtRest = rests.value;
  useEffect(() => {
    if (isAtRest) void lookAtAdapter().catch(noteError);
  }, [isAtRest]);
  if (state.status !== "open" || model.value.status !== "ready") return null;
  const { bytes } = state.adapter;
  return (
    <span class="number" title={`${bytes} bytes`}>
      {bytesInWords(bytes)} on the device
    </span>
  );
}

function doing(): string {
  const { status } = session.value;
  if (status === "connecting") return "Connecting…";
  if (status === "lost" || status === "failed") return "Nothing can be computed now.";
  const state = model.value;
  if (state.status === "fetching") return `Fetching ${state.choice.ref}…`;
  if (state.status === "loading") return `Loading ${state.choice.ref} onto the device…`;
  if (activity.value > 0) return "Computing…";
  return state.status === "ready" ? "Ready." : "No model is loaded.";
}
