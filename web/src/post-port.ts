import type { Port } from "../../src/session/protocol.ts";

/** A worker as its page sees it, or the page as the worker does. */
interface Endpoint {
  postMessage(message: unknown): void;
  addEventListener(type: string, listener: (event: MessageEvent & ErrorEvent) => void): void;
}

/** Messages of a session by `postMessage`, beside others: those of the page to its worker have a field `tab`. */
export function postPort<Out, In>(endpoint: Endpoint, close: () => void = () => {}): Port<Out, In> {
  let closed = false;
  let onEnd: (error?: Error) => void = () => {};
  const end = (error?: Error) => {
    if (closed) return;
    closed = true;
    close();
    onEnd(error);
  };
  return {
    send(message) {
      if (!closed) endpoint.postMessage(message);
    },
    listen(onMessage, ended) {
      onEnd = ended;
      endpoint.addEventListener("message", ({ data }) => {
        if (!closed && typeof data === "object" && data !== null && !("tab" in data)) onMessage(data as In);
      });
      endpoint.addEventListener("error", ({ message }) => end(new Error(message || "the worker has failed")));
      endpoint.addEventListener("messageerror", () => end(new Error("a message could not be read")));
    },
    close: () => end(),
  };
}
