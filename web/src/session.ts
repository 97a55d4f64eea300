import { signal } from "@preact/signals";
import { DeviceLostError } from "../../src/errors.ts";
import { SessionClient } from "../../src/session/client.ts";
import type { AdapterSummary, ModelsResult } from "../../src/session/messages/results.ts";
import { connectSocket } from "../../src/session/ports/socket-port.ts";
import { connectTab, type Tab } from "./tab.ts";

/** Where it computes: in a worker of this tab, or behind a link that `xpatch serve` has printed. */
export type Target = { readonly kind: "tab" } | { readonly kind: "serve"; readonly link: string };

export type SessionState =
  | { readonly status: "connecting"; readonly target: Target }
  | {
      readonly status: "open";
      readonly target: Target;
      readonly client: SessionClient;
      readonly adapter: AdapterSummary;
      readonly models: ModelsResult;
    }
  /** It could not be opened. `webgpu` is false where that is for want of WebGPU. */
  | { readonly status: "failed"; readonly target: Target; readonly error: Error; readonly webgpu: boolean }
  /** It was open; the device or the connection is gone. */
  | { readonly status: "lost"; readonly target: Target; readonly error: Error };

/** The session of the page. There is one at a time. */
export const session = signal<SessionState>({ status: "connecting", target: { kind: "tab" } });

/** Whether there is a session, or will be: what is asked for until then is done as soon as it is there. */
export function isOpenOrOpening({ status }: SessionState): boolean {
  return status === "open" || status === "connecting";
}

/** Of this tab: a reload connects where it was connected. */
const KEY = "xpatch-explorer-session";

/**
 * Where the page begins: at the server whose link it was opened by (the token then leaves the address, which readers copy), else where
 * this tab was before it was reloaded, else in the tab.
 */
export function firstTarget(): Target {
  if (new URLSearchParams(location.hash.slice(1)).has("token")) {
    const link = location.href;
    history.replaceState(null, "", location.pathname + location.search);
    return { kind: "serve", link };
  }
  try {
    const link = sessionStorage.getItem(KEY);
    if (link) return { kind: "serve", link };
  } catch {
    // Storage is not allowed here.
  }
  return { kind: "tab" };
}

function keepTarget(target: Target): void {
  try {
    if (target.kind === "serve") sessionStorage.setItem(KEY, target.link);
    else sessionStorage.removeItem(KEY);
  } catch {
    // It lasts as long as the page, then.
  }
}

let close = () => {};

/** Ends the session that there is, and opens one there. How that went is what `session` says; it throws nothing. */
export async function connect(target: Target): Promise<void> {
  close();
  session.value = { status: "connecting", target };
  keepTarget(target);
  let ended = false;
  let client: SessionClient | undefined;
  let tab: Tab | undefined;
  close = () => {
    ended = true;
    client?.close();
    tab?.close();
  };
  const lose = (error: Error) => {
    if (ended) return;
    close();
    session.value = { status: "lost", target, error };
  };
  try {
    const lost = (reason: string) =>
      lose(new DeviceLostError(`the device is gone${reason ? `: ${reason}` : ""}`));
    if (target.kind === "tab") tab = connectTab(lost);
    const port = target.kind === "serve" ? await connectSocket(target.link) : tab!.port;
    client = await SessionClient.open(port, { client: "explorer" });
    const open = client;
    void open.ended.then((error) => lose(error ?? new Error("the connection has ended")));
    const [adapter, models] = [await open.adapters(), await open.models()];
    if (!ended) session.value = { status: "open", target, client: open, adapter, models };
  } catch (error) {
    if (ended) return;
    close();
    const webgpu = target.kind === "serve" || navigator.gpu !== undefined;
    session.value = { status: "failed", target, error: error as Error, webgpu };
  }
}

/** Asks again what the device has in use. */
export async function lookAtAdapter(): Promise<void> {
  const state = session.peek();
  if (state.status !== "open") return;
  const adapter = await state.client.adapters();
  // Whoever shows the session is drawn again, which the same number is not worth.
  if (session.peek() === state && adapter.bytes !== state.adapter.bytes)
    session.value = { ...state, adapter };
}

/** Told of errors of requests, since a lost device is noticed with the next of them at the latest. */
export function noteError(error: unknown): void {
  const { value } = session;
  if (value.status !== "open" || !(error instanceof DeviceLostError)) return;
  close();
  session.value = { status: "lost", target: value.target, error };
}

/** Opens the session anew where it was lost or could not be opened. */
export function reconnect(): void {
  void connect(session.peek().target);
}
