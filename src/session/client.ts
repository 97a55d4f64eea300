import { SessionError } from "../errors.ts";
import type { AbortSignal } from "../platform/global-types.ts";
import {
  type ClientPort,
  type HostMessage,
  PROTOCOL_VERSION,
  type RequestMessage,
} from "./messages/protocol.ts";
import type { ParamsOf, Progress, RequestName, ResultOf } from "./messages/requests.ts";
import type { HelloResult } from "./messages/results.ts";
import type { Handle } from "./messages/values.ts";
import { decodeError } from "./messages/wire-error.ts";

/** How a request is followed and given up. */
export interface RequestOptions {
  /** Gives the request up: the promise is rejected with its reason at once, the host stops at the next step. */
  readonly signal?: AbortSignal | undefined;
  /** Told how far the request is. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

interface Pending {
  readonly resolve: (result: never) => void;
  readonly reject: (error: unknown) => void;
  readonly onProgress: ((progress: Progress) => void) | undefined;
  readonly done: () => void;
}

/** A request as a method. */
export type Call<Name extends RequestName> = (
  params: ParamsOf<Name>,
  options?: RequestOptions,
) => Promise<ResultOf<Name>>;

const HANDLE = /^(model|prompt|picture|recording|vector):/;

/**
 * One side of a session, over whatever carries its messages: within a process, to a worker of a page, to `xpatch serve`. A method
 * for each request; all of them reject with the error that the host threw, of the same class.
 *
 * @example
 * const session = await SessionClient.open(await connectSocket(link));
 * const { model } = await session.load({ ref: "xpatch:vlm" }, { onProgress: console.log });
 * const { top } = await session.run({ model, prompt: { parts: "Q: Greece\nA:" } });
 */
export class SessionClient {
  /** What the host said of itself. */
  readonly host: HelloResult;
  /** Resolves when the connection has ended, with the reason where that was an error. */
  readonly ended: Promise<Error | undefined>;
  readonly #connection: Connection;

  private constructor(connection: Connection, host: HelloResult) {
    this.#connection = connection;
    this.ended = connection.ended;
    this.host = host;
  }

  /** Says hello. Throws SessionError where the host speaks another version, and what the connection ended with. */
  static async open(port: ClientPort, { client }: { client?: string } = {}): Promise<SessionClient> {
    const connection = new Connection(port);
    try {
      const params = { version: PROTOCOL_VERSION, ...(client !== undefined && { client }) };
      const host = await connection.request("hello", params);
      port.maxBytes = host.bounds.messageBytes;
      return new SessionClient(connection, host);
    } catch (error) {
      port.close();
      throw error;
    }
  }

  /** Any request by its name. */
  request<Name extends RequestName>(
    name: Name,
    params: ParamsOf<Name>,
    options: RequestOptions = {},
  ): Promise<ResultOf<Name>> {
    return this.#connection.request(name, params, options);
  }

  /** What it computes on; opens the device. Throws DeviceError, saying what is missing, where there is none. */
  readonly adapters = (options?: RequestOptions) => this.request("adapters", {}, options);
  /** The models that can be loaded. */
  readonly models = (options?: RequestOptions) => this.request("models", {}, options);
  readonly load = this.#call("load");
  readonly unload = this.#call("unload");
  /** Gives handles back. */
  readonly free = (handles: readonly Handle[]) => this.request("free", { handles });
  readonly picture = this.#call("picture");
  readonly encode = this.#call("encode");
  readonly run = this.#call("run");
  readonly record = this.#call("record");
  readonly resume = this.#call("resume");
  readonly layers = this.#call("layers");
  readonly generate = this.#call("generate");
  readonly lens = this.#call("lens");
  readonly reach = this.#call("reach");
  readonly attention = this.#call("attention");
  readonly makeVector = this.#call("vector.make");
  readonly mixVectors = this.#call("vector.mix");
  readonly readVector = this.#call("vector.read");
  readonly saveVector = this.#call("vector.save");
  readonly loadVector = this.#call("vector.load");
  readonly freeVector = this.#call("vector.free");
  readonly project = this.#call("project");
  readonly activations = this.#call("activations");
  /** The tasks that come with xpatch. */
  readonly tasks = (options?: RequestOptions) => this.request("tasks", {}, options);
  readonly taskPicture = this.#call("task.picture");
  readonly sweep = this.#call("sweep");

  /** Ends the session; the host frees what it kept for it. Requests that wait are rejected. */
  close(): void {
    this.#connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #call<Name extends RequestName>(name: Name): Call<Name> {
    return (params, options) => this.request(name, params, options);
  }
}

/** Requests by their ids. */
class Connection {
  readonly ended: Promise<Error | undefined>;
  readonly #port: ClientPort;
  readonly #pending = new Map<number, Pending>();
  /** Given up, but not answered yet. */
  readonly #abandoned = new Set<number>();
  #closed: Error | undefined;
  #lastId = 0;

  constructor(port: ClientPort) {
    this.#port = port;
    this.ended = new Promise((resolve) => {
      port.listen(
        (message) => this.#receive(message),
        (error) => {
          this.#end(error);
          resolve(error);
        },
      );
    });
  }

  async request<Name extends RequestName>(
    name: Name,
    params: ParamsOf<Name>,
    options: RequestOptions = {},
  ): Promise<ResultOf<Name>> {
    // A folder of a model's files is too large to be read; the port refuses it by name.
    const reads = !this.#port.carriesBlobs && name !== "load" && hasBlob(params);
    return this.#ask(name, reads ? ((await withoutBlobs(params)) as ParamsOf<Name>) : params, options);
  }

  #ask<Name extends RequestName>(
    name: Name,
    params: ParamsOf<Name>,
    { signal, onProgress }: RequestOptions,
  ): Promise<ResultOf<Name>> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#closed) throw this.#closed;
      this.#lastId += 1;
      const id = this.#lastId;
      const give = () => {
        if (!this.#pending.delete(id)) return;
        this.#abandoned.add(id);
        this.#port.send({ type: "cancel", id });
        reject(signal!.reason);
      };
      this.#port.send({ type: "request", id, name, params } as RequestMessage);
      signal?.addEventListener("abort", give, { once: true });
      const done = () => signal?.removeEventListener("abort", give);
      this.#pending.set(id, { resolve: resolve as (result: never) => void, reject, onProgress, done });
    });
  }

  close(): void {
    this.#end(undefined);
    this.#port.close();
  }

  #receive(message: HostMessage): void {
    if (message.type === "error" && message.id === undefined) {
      // What could not be read cannot be told apart; nothing that waits will be answered.
      this.#end(decodeError(message.error));
      this.#port.close();
      return;
    }
    const id = message.id!;
    const pending = this.#pending.get(id);
    if (!pending) {
      if (message.type === "progress") return;
      if (this.#abandoned.delete(id) && message.type === "result") this.#freeAll(message.result);
      return;
    }
    if (message.type === "progress") {
      pending.onProgress?.(message.progress);
      return;
    }
    this.#pending.delete(id);
    pending.done();
    if (message.type === "result") pending.resolve(message.result as never);
    else pending.reject(decodeError(message.error));
  }

  /** What came of a request that was given up is kept for nobody. */
  #freeAll(result: unknown): void {
    const handles = Object.values(result ?? {}).filter(
      (value): value is Handle => typeof value === "string" && HANDLE.test(value),
    );
    if (handles.length > 0 && !this.#closed) this.request("free", { handles }).catch(() => {});
  }

  #end(error: Error | undefined): void {
    if (this.#closed) return;
    this.#closed =
      error instanceof SessionError
        ? error
        : new SessionError(`the session has ended${error ? `: ${error.message}` : ""}`, {
            code: "closed",
            ...(error && { cause: error }),
          });
    for (const { reject, done } of this.#pending.values()) {
      done();
      reject(this.#closed);
    }
    this.#pending.clear();
  }
}

function hasBlob(value: unknown): boolean {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return false;
  return value instanceof Blob || Object.values(value).some(hasBlob);
}

/** The same with the bytes of Blobs in their places. */
async function withoutBlobs(value: unknown): Promise<unknown> {
  if (!hasBlob(value)) return value;
  if (value instanceof Blob) return new Uint8Array(await value.arrayBuffer());
  if (Array.isArray(value)) return Promise.all(value.map(withoutBlobs));
  const entries = Object.entries(value as object).map(async ([key, each]) => [key, await withoutBlobs(each)]);
  return Object.fromEntries(await Promise.all(entries));
}
