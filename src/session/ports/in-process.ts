import type { ClientPort, HostPort, Port } from "../messages/protocol.ts";

/**
 * The two ends of a connection within a process. What is sent is copied, as between threads, so neither side can change what the
 * other has.
 */
export function inProcess(): { readonly client: ClientPort; readonly host: HostPort } {
  const [client, host] = [new End(), new End()];
  client.other = host;
  host.other = client;
  return { client: client as ClientPort, host: host as HostPort };
}

class End implements Port<unknown, never> {
  readonly carriesBlobs = true;
  other: End | undefined;
  #onMessage: (message: never) => void = () => {};
  #onEnd: (error?: Error) => void = () => {};
  /** Nothing is sent any more. */
  #closed = false;
  /** Nothing arrives any more. */
  #ended = false;

  send(message: unknown): void {
    if (this.#closed) return;
    const copy = structuredClone(message);
    const { other } = this;
    queueMicrotask(() => {
      if (!other!.#ended) other!.#onMessage(copy as never);
    });
  }

  listen(onMessage: (message: never) => void, onEnd: (error?: Error) => void): void {
    this.#onMessage = onMessage;
    this.#onEnd = onEnd;
  }

  /** What has been sent before arrives. */
  close(): void {
    if (this.#closed) return;
    for (const end of [this, this.other!]) {
      end.#closed = true;
      queueMicrotask(() => {
        end.#ended = true;
        end.#onEnd();
      });
    }
  }
}
