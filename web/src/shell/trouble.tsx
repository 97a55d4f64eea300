import type { JSX } from "preact";
import { addressOf } from "../navigation.ts";
import { reconnect, session } from "../session.ts";
import { Notice } from "../ui/notice.tsx";

/** Above the view when there is no session: why, and how to go on. */
export function Trouble(): JSX.Element | null {
  const state = session.value;
  if (state.status === "lost") {
    return (
      <Notice
        kind="bad"
        title={state.target.kind === "tab" ? "The device was lost" : "The connection was lost"}
      >
        <p>
          {state.error.message}. What you made is still here; the model has to be loaded again,{" "}
          {state.target.kind === "tab" ? "from what this browser keeps" : "by the server"}.
        </p>
        <button type="button" class="primary" onClick={reconnect}>
          Start again
        </button>
      </Notice>
    );
  }
  if (state.status !== "failed") return null;
  if (!state.webgpu) {
    return (
      <Notice kind="warn" title="This browser has no WebGPU">
        <p>
          Models are computed with WebGPU, which this browser does not offer to this page. Current versions of
          Chrome, Edge, Safari and Firefox have it; on Linux it may have to be switched on. Or let another
          machine compute: run <code>npx xpatch serve</code> there, and{" "}
          <a href={addressOf("model")}>connect to the link</a> that it prints.
        </p>
      </Notice>
    );
  }
  return (
    <Notice kind="bad" title={state.target.kind === "tab" ? "No device could be opened" : "No connection"}>
      <p>{state.error.message}</p>
      <div class="row">
        <button type="button" class="primary" onClick={reconnect}>
          Try again
        </button>
        <a class="button" href={addressOf("model")}>
          Compute elsewhere
        </a>
      </div>
    </Notice>
  );
}
