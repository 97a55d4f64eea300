import type { JSX } from "preact";
import { session } from "../../session.ts";
import { Notice } from "../../ui/notice.tsx";
import { Panel } from "../../ui/panel.tsx";
import { bytesInWords } from "../../ui/words.ts";

/** What computes. */
export function Elsewhere(): JSX.Element {
  return (
    <Panel title="Where it computes">
      <div class="stack">
        <Adapter />
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
      target.kind === "tab"
        ? "a worker of this tab, by WebGPU"
        : `${new URL(target.link).host}, ${client.host.host}`,
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
