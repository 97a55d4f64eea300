import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { connect, session } from "../../session.ts";
import { hostOf } from "../../shell/facts.tsx";
import { Notice } from "../../ui/notice.tsx";
import { Panel } from "../../ui/panel.tsx";
import { bytesInWords } from "../../ui/words.ts";

/** What computes, and how to let another machine do it. */
export function Elsewhere(): JSX.Element {
  const [link, setLink] = useState("");
  const { target } = session.value;
  return (
    <Panel title="Where it computes">
      <div class="stack">
        <Adapter />
        <form
          class="stack"
          onSubmit={(event) => {
            event.preventDefault();
            void connect({ kind: "serve", link: link.trim() });
          }}
        >
          <label for="serve-link">
            On another machine, or outside the browser: the link that <code>npx xpatch serve</code> prints
            there
          </label>
          <div class="row">
            <input
              id="serve-link"
              type="url"
              required
              placeholder="http://127.0.0.1:8265/#token=…"
              spellcheck={false}
              autocomplete="off"
              value={link}
              onInput={(event) => setLink(event.currentTarget.value)}
            />
            <button type="submit">Connect</button>
          </div>
        </form>
        {target.kind === "serve" && (
          <button type="button" onClick={() => void connect({ kind: "tab" })}>
            Compute in this tab
          </button>
        )}
      </div>
    </Panel>
  );
}

function Adapter(): JSX.Element | null {
  const state = session.value;
  if (state.status === "connecting") return <p class="soft">Looking for a device…</p>;
  if (state.status !== "open") return null; // said above the view
  const { adapter, client, target } = state;
  const facts: [string, string][] = [
    ["Adapter", adapter.name],
    [
      "Place",
      target.kind === "tab" ? "a worker of this tab, by WebGPU" : `${hostOf(target)}, ${client.host.host}`,
    ],
    ["In use", `${bytesInWords(adapter.bytes)} by tensors`],
  ];
  return (
    <>
      <dl class="pairs number">
        {facts.map(([name, value]) => (
          <>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </>
        ))}
      </dl>
      {adapter.software && (
        <Notice kind="warn" title="A software driver">
          <p>
            {adapter.name} computes on the processor's cores, not on a GPU. Its numbers are right, but it is
            slow: seconds where a GPU takes milliseconds.
          </p>
        </Notice>
      )}
    </>
  );
}
