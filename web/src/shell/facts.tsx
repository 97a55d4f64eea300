import type { ComponentChildren, JSX } from "preact";
import { model } from "../model.ts";
import { addressOf } from "../navigation.ts";
import { session } from "../session.ts";

/** Model, adapter and connection, in the header; each leads to where it can be changed. */
export function Facts(): JSX.Element {
  return (
    <div class="facts">
      <Fact name="Model">{modelInWords()}</Fact>
      <Fact name="Adapter" tag={software()}>
        {adapterInWords()}
      </Fact>
      <Fact name="Runs">{placeInWords()}</Fact>
    </div>
  );
}

interface FactProps {
  readonly name: string;
  readonly tag?: string | undefined;
  readonly children: ComponentChildren;
}

function Fact({ name, tag, children }: FactProps): JSX.Element {
  return (
    <a class="fact" href={addressOf("model")}>
      <span class="name">{name}</span> <span class="value">{children}</span>
      {tag && <span class="tag warn">{tag}</span>}
    </a>
  );
}

function modelInWords(): string {
  const state = model.value;
  switch (state.status) {
    case "none":
      return "none";
    case "fetching":
    case "loading":
      return "loading…";
    case "failed":
      return "not loaded";
    case "ready": {
      const { model: name, dtypes } = state.summary.setting;
      return `${name.split("/").at(-1)} · ${dtypes.join(", ")}`;
    }
  }
}

function adapterInWords(): string {
  const state = session.value;
  if (state.status === "open") return state.adapter.name;
  return state.status === "connecting" ? "…" : "none";
}

function software(): string | undefined {
  const state = session.value;
  return state.status === "open" && state.adapter.software ? "software" : undefined;
}

/** Of a link that may be none. */
export function hostOf({ link }: { link: string }): string {
  return URL.canParse(link) ? new URL(link).host : "another machine";
}

function placeInWords(): string {
  const { target, status } = session.value;
  const place = target.kind === "tab" ? "in this tab" : `on ${hostOf(target)}`;
  return status === "lost" ? "lost" : status === "failed" ? "not connected" : place;
}
