/// <reference lib="esnext.disposable" preserve="true" />
/** The client's side of a session, and the messages: nothing of models or kernels. */
export { SessionError, XpatchError } from "../errors.ts";
export { type Call, type RequestOptions, SessionClient } from "./client.ts";
export * from "./messages/protocol.ts";
export type * from "./messages/requests.ts";
export type * from "./messages/results.ts";
export type * from "./messages/values.ts";
export { inProcess } from "./ports/in-process.ts";
export { connectSocket, type SocketOptions } from "./ports/socket-port.ts";
export { type Endpoint, pagePort, workerPort } from "./ports/worker-port.ts";
