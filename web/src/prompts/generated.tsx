import type { JSX } from "preact";
import { Notice } from "../ui/notice.tsx";
import type { Generation } from "./generation.ts";

/** An answer as it comes. Read out when it has come to its end, not token by token. */
export function Generated({ generation }: { generation: Generation | undefined }): JSX.Element | null {
  if (!generation) return null;
  const { text, tokens, state, answer, error } = generation;
  if (state === "failed") {
    return (
      <Notice kind="bad" title="It could not be generated">
        <p>{error!.message}</p>
      </Notice>
    );
  }
  const ends: Record<string, string> = {
    running: `${tokens} tokens so far…`,
    stopped: `Stopped after ${tokens} tokens.`,
    done: answer?.ended ? `${tokens} tokens; it ended by itself.` : `${tokens} tokens.`,
  };
  return (
    <div class="generated" aria-busy={state === "running"}>
      <output class="mono" aria-live="off">
        {text}
        {state === "running" && <span class="caret" aria-hidden="true" />}
      </output>
      <p class="soft" role="status">
        {ends[state]}
      </p>
      {answer?.unfired.map(({ edit, label, positions }) => (
        <p key={edit} class="soft">
          {label}: the answer ended before position {positions.join(", ")}, so this edit did nothing there.
        </p>
      ))}
    </div>
  );
}
