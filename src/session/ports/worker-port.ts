import type { ErrorEvent, MessageEvent } from "../../platform/global-types.ts";
import type { ClientMessage, ClientPort, HostMessage, HostPort, Port } from "../messages/protocol.ts";

/** A worker as its page sees it, or the page as the worker does. */
export interface Endpoint {
  /** As of a `Worker`. */
  postMessage(message: unknown): void;
  /** As of a `Worker`: for `message`, `messageerror` and `error`. */
  addEventListener(type: string, listener: (event: MessageEvent & ErrorEvent) => void): void;
}

/**
 * A session with a host that runs in a Web Worker, at the page's end. Other messages may go the same way, as long as they have no
 * field `type`. Closing it ends the worker.
 */
export function workerPort(worker: Endpoint & { terminate(): void }): ClientPort {
  const port = postPort<ClientMessage, HostMessage>(worker, () => worker.terminate());
  return { ...port, carriesBlobs: true };
}

/**
 * The worker's end. Attach it to a host as the worker's module is run, before anything is waited for: messages that come earlier are
 * lost.
 *
 * @example
 * // worker.ts
 * const host = new SessionHost({ name: "my page", place: "tab" });
 * void host.attach(pagePort(globalThis));
 * // page.ts
 * const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
 * const session = await SessionClient.open(workerPort(worker));
 */
export function pagePort(scope: Endpoint): HostPort {
  return postPort<HostMessage, ClientMessage>(scope, () => {});
}

function postPort<Out, In>(endpoint: Endpoint, close: () => void): Port<Out, In> {
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
        if (!closed && typeof data === "object" && data !== null && "type" in data) onMessage(data as In);
      });
      endpoint.addEventListener("error", ({ message }) => end(new Error(message || "the worker has failed")));
      endpoint.addEventListener("messageerror", () => end(new Error("a message could not be read")));
    },
    close: () => end(),
  };
}
