import { checkOptions } from "../arguments.ts";
import { SessionError, XpatchError } from "../errors.ts";
import { isObject } from "../model/checkpoint/json/config-reader.ts";
import { HANDLERS } from "./handle/handlers.ts";
import { type HostPort, PROTOCOL_VERSION } from "./messages/protocol.ts";
import type { ParamsOf, Progress, RequestName } from "./messages/requests.ts";
import type { HelloResult } from "./messages/results.ts";
import type { Handle } from "./messages/values.ts";
import { encodeError } from "./messages/wire-error.ts";
import type { TaskShelf } from "./read/task-shelf.ts";
import type { Offer, Work } from "./read/work.ts";
import type { Chores } from "./state/chores.ts";
import type { Engine } from "./state/engine.ts";
import type { FairQueue } from "./state/fair-queue.ts";
import { Kept } from "./state/kept.ts";

/** What all clients of a host share. */
export interface House {
  readonly hello: Omit<HelloResult, "version">;
  readonly engine: Engine;
  readonly queue: FairQueue<Guest>;
  readonly tasks: TaskShelf;
  readonly offer: Offer;
  readonly chores: Chores;
  readonly onUnexpected: (error: unknown) => void;
}

/** Messages of the largest size that may wait. */
const MESSAGES = 4;

const GIVEN_UP = () => new SessionError("the request has been given up", { code: "cancelled" });

/** A client as the host sees it: what it has asked for, and what is kept for it. */
export class Guest {
  /** Resolves when the connection has ended and all is free. */
  readonly gone: Promise<void>;
  readonly #house: House;
  readonly #port: HostPort;
  readonly #kept: Kept;
  /** What has been asked and not been answered, by id. */
  readonly #asked = new Map<number, AbortController>();
  readonly #running = new Set<Promise<void>>();
  /** Of the typed arrays in what has been asked. */
  #waitingBytes = 0;
  #greeted = false;
  #ended = false;
  #leave: () => void = () => {};

  constructor(house: House, port: HostPort) {
    this.#house = house;
    this.#port = port;
    this.#kept = new Kept(house.hello.bounds);
    const ended = new Promise<void>((resolve) => {
      this.#leave = resolve;
    });
    this.gone = ended.then(() => this.#end());
    port.listen(
      (message) => this.#receive(message),
      () => this.#leave(),
    );
  }

  /** Ends the session from this side. */
  leave(): Promise<void> {
    this.#port.close();
    this.#leave();
    return this.gone;
  }

  async #end(): Promise<void> {
    this.#ended = true;
    const reason = new SessionError("the client has gone away", { code: "closed" });
    for (const controller of this.#asked.values()) controller.abort(reason);
    await Promise.all(this.#running);
    this.#kept.end();
  }

  #receive(message: unknown): void {
    if (this.#ended) return;
    const { type, id, name, params } = isObject(message) ? message : {};
    if (typeof id !== "number" || !Number.isSafeInteger(id) || id < 1)
      this.#refuse("an object with an id from 1");
    else if (type === "cancel") this.#asked.get(id)?.abort(GIVEN_UP());
    else if (type === "request") this.#begin(id, name, params);
    else this.#refuse("a request or a cancel");
  }

  #begin(id: number, name: unknown, params: unknown): void {
    const request = this.#answer(id, name, params).finally(() => this.#running.delete(request));
    this.#running.add(request);
  }

  /** Of what cannot be answered by its id; whoever sends such things speaks something else. */
  #refuse(expected: string): void {
    const error = new SessionError(`expected a message of the session protocol: ${expected}`, {
      code: "message",
    });
    this.#port.send({ type: "error", error: encodeError(error) });
    this.#port.close();
    this.#leave();
  }

  async #answer(id: number, name: unknown, params: unknown): Promise<void> {
    const controller = new AbortController();
    const { signal } = controller;
    const isNew = !this.#asked.has(id);
    const bytes = bytesIn(params);
    this.#waitingBytes += bytes;
    try {
      if (!isNew) throw new SessionError(`the request ${id} is not answered yet`, { code: "message" });
      this.#check(name, params);
      this.#asked.set(id, controller);
      const result = await this.#carryOut(name, params as never, signal, (progress) => {
        signal.throwIfAborted();
        this.#port.send({ type: "progress", id, progress });
      });
      if (signal.aborted) {
        this.#freeAll(result);
        throw signal.reason;
      }
      this.#port.send({ type: "result", id, result: result as never });
      if (name === "hello") this.#greeted = true;
    } catch (error) {
      // Whatever an aborted request failed with, it failed because of that.
      const why = signal.aborted ? signal.reason : error;
      if (!(why instanceof XpatchError)) this.#house.onUnexpected(why);
      if (!this.#ended) this.#port.send({ type: "error", id, error: encodeError(why) });
      // Nothing can be made of one that speaks another version, or another language.
      if (!this.#greeted) {
        this.#port.close();
        this.#leave();
      }
    } finally {
      if (isNew) this.#asked.delete(id);
      this.#waitingBytes -= bytes;
    }
  }

  #check(name: unknown, params: unknown): asserts name is RequestName {
    if (name !== "hello" && !this.#greeted) {
      throw new SessionError(
        `expected "hello" as the first request, found ${JSON.stringify(name)?.slice(0, 60)}`,
        {
          code: "message",
        },
      );
    }
    if (typeof name !== "string" || (name !== "hello" && !Object.hasOwn(HANDLERS, name))) {
      const found = JSON.stringify(name)?.slice(0, 60);
      throw new SessionError(`there is no request ${found}; is the host older than the client?`, {
        code: "message",
      });
    }
    const { waiting, messageBytes } = this.#house.hello.bounds;
    if (this.#waitingBytes > MESSAGES * messageBytes) {
      throw new SessionError(`expected requests of at most ${MESSAGES * messageBytes} bytes at a time`, {
        code: "bounds",
      });
    }
    if (this.#asked.size >= waiting) {
      throw new SessionError(`expected at most ${waiting} requests at a time`, { code: "bounds" });
    }
    if (!isObject(params)) throw new SessionError("expected params to be an object", { code: "message" });
  }

  async #carryOut(
    name: RequestName,
    params: ParamsOf<RequestName>,
    signal: AbortSignal,
    progress: (progress: Progress) => void,
  ): Promise<unknown> {
    if (name === "hello") return this.#hello(params as ParamsOf<"hello">);
    const { lane, carryOut, known, required = [] } = HANDLERS[name];
    if (known) checkOptions<object>(name, params, known, { name: "params", required: required as never[] });
    const { engine, tasks, offer, chores, queue, hello } = this.#house;
    const { bounds } = hello;
    const work: Work = { engine, tasks, offer, chores, bounds, kept: this.#kept, signal, progress };
    if (lane === "now") return carryOut(work, params as never);
    const onPlace = (done: number) => {
      if (!signal.aborted) progress({ phase: "queue", done });
    };
    return queue.add(this, async () => carryOut(work, params as never), { signal, onPlace });
  }

  #hello(params: ParamsOf<"hello">): HelloResult {
    const { version } = params;
    if (this.#greeted) throw new SessionError("hello has been said", { code: "message" });
    if (version === PROTOCOL_VERSION) return { version, ...this.#house.hello };
    throw new SessionError(
      `this host (${this.#house.hello.host}) speaks version ${PROTOCOL_VERSION} of the session protocol, the client version ` +
        `${JSON.stringify(version)?.slice(0, 20)}; take both from one release`,
      { code: "version" },
    );
  }

  /** What came of a request that nobody waits for any more. */
  #freeAll(result: unknown): void {
    for (const value of Object.values(result ?? {})) {
      if (typeof value === "string" && this.#kept.has(value)) this.#kept.free(value as Handle);
    }
  }
}

/** Of what lies deeper no message is made. */
const MAX_DEPTH = 64;

function bytesIn(value: unknown, depth = 0): number {
  if (typeof value !== "object" || value === null || depth > MAX_DEPTH) return 0;
  if (ArrayBuffer.isView(value)) return value.byteLength;
  return Object.values(value).reduce((sum: number, each) => sum + bytesIn(each, depth + 1), 0);
}
