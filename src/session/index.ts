/// <reference lib="esnext.disposable" preserve="true" />
/** The client's side of a session, and the messages: nothing of models or kernels. */
export { SessionError, XpatchError } from "../errors.ts";
export { type RequestOptions, SessionClient } from "./client.ts";
export { inProcess } from "./in-process.ts";
export * from "./protocol.ts";
export type * from "./requests.ts";
export type * from "./results.ts";
export { connectSocket } from "./socket-port.ts";
export type * from "./values.ts";
export { pagePort, workerPort } from "./worker-port.ts";
