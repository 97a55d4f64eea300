import type { ParamsOf, Progress, RequestName, ResultOf } from "./requests.ts";

/*
 * A session is an exchange of messages that are plain data: numbers, strings, lists, objects, typed arrays (and Blobs, where the
 * transport carries them). A client sends requests, the host answers each by its id, in any order.
 */

/** Raised by whatever a client of before would get wrong. Both sides have to have the same. */
export const PROTOCOL_VERSION = 1;

/** Asks the host for something. */
export interface RequestMessage<Name extends RequestName = RequestName> {
  readonly type: "request";
  /** Chosen by the client, its own, ascending. */
  readonly id: number;
  readonly name: Name;
  readonly params: ParamsOf<Name>;
}

/** The request is to be given up; it is answered with an error of code `cancelled` if it was not done yet. */
export interface CancelMessage {
  readonly type: "cancel";
  readonly id: number;
}

/** Answers a request. */
export interface ResultMessage<Name extends RequestName = RequestName> {
  readonly type: "result";
  readonly id: number;
  readonly result: ResultOf<Name>;
}

/** Says why a request failed. */
export interface ErrorMessage {
  readonly type: "error";
  /** Of the request; absent where a message could not be read. */
  readonly id?: number;
  readonly error: WireError;
}

/** Tells how far a request is. */
export interface ProgressMessage {
  readonly type: "progress";
  readonly id: number;
  readonly progress: Progress;
}

/** An error of src/errors.ts, or one of the runtime: by its class, message and own fields, its causes by their messages. */
export interface WireError {
  readonly name: string;
  readonly message: string;
  readonly fields?: Readonly<Record<string, string | number | boolean>>;
  readonly causes?: readonly string[];
}

/** What a client sends. */
export type ClientMessage = RequestMessage | CancelMessage;
/** What a host sends. */
export type HostMessage = ResultMessage | ErrorMessage | ProgressMessage;

/** Carries messages both ways, in order. */
export interface Port<Out, In> {
  /** Sends a message; does nothing after the end. Throws SessionError for one of more bytes than the other side takes. */
  send(message: Out): void;
  /** Told of each message, and once of the end, with what ended it where that was an error. Set at once, before anything comes. */
  listen(onMessage: (message: In) => void, onEnd: (error?: Error) => void): void;
  /** Ends the connection. */
  close(): void;
}

/** The client's end of a connection. */
export interface ClientPort extends Port<ClientMessage, HostMessage> {
  /** Most bytes of a message that the host takes; set once it has said so, and heeded where messages have bytes. */
  maxBytes?: number;
  /** Whether Blobs go through as they are. Else the client reads them first. */
  readonly carriesBlobs: boolean;
}
/** The host's end of a connection. */
export type HostPort = Port<HostMessage, ClientMessage>;
