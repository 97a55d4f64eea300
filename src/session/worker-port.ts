import { SessionError } from "../errors.ts";
import type { ClientPort, HostMessage, HostPort } from "./protocol.ts";

/** What of a worker, or of its global scope, a port uses. */
interface Messenger {
  postMessage(message: unknown): void;
  addEventListener(type: string, listener: (event: never) => void): void;
}

/** A session with a host that runs in a Web Worker: see `serveWorker`. Closing it ends the worker. */
export function workerPort(worker: Messenger & { terminate(): void }): ClientPort {
  let isOpen = true;
  let ended = (_error?: Error): void => {};
  const end = (error?: Error) => {
    if (!isOpen) return;
    isOpen = false;
    worker.terminate();
    ended(error);
  };
  return {
    send: (message) => worker.postMessage(message),
    listen(onMessage, onEnd) {
      ended = onEnd;
      worker.addEventListener("message", ({ data }: { data: HostMessage }) => {
        if (isOpen) onMessage(data);
      });
      worker.addEventListener("error", ({ message = "it did not start" }: { message?: string }) => {
        end(new SessionError(`the worker failed: ${message}`, { code: "closed" }));
      });
      worker.addEventListener("messageerror", () => {
        end(new SessionError("a message of the worker could not be read", { code: "message" }));
      });
    },
    close: () => end(),
  };
}

/** The other end, in the worker. */
export function pagePort(scope: Messenger & { close(): void }): HostPort {
  return {
    send: (message) => scope.postMessage(message),
    listen(onMessage) {
      scope.addEventListener("message", ({ data }: { data: never }) => onMessage(data));
    },
    close: () => scope.close(),
  };
}
