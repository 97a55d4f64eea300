import type { RawData, WebSocket } from "ws";
import { decodeMessage, encodeMessage } from "../messages/message-codec.ts";
import type { HostMessage, HostPort } from "../messages/protocol.ts";
import { encodeError } from "../messages/wire-error.ts";

/** Bytes that may wait to be sent to a client that does not read. Then it is cut off. */
const MAX_BUFFERED = 2 ** 28;

/** The host's end of a WebSocket. What is no message is answered with an error, and ends the connection. */
export function socketEnd(socket: WebSocket): HostPort {
  const send = (message: HostMessage) => {
    if (socket.readyState !== socket.OPEN) return;
    if (socket.bufferedAmount > MAX_BUFFERED) socket.terminate();
    else socket.send(encodeMessage(message));
  };
  return {
    send,
    listen(onMessage, onEnd) {
      socket.on("message", (data, isBinary) => {
        try {
          onMessage(decodeMessage(isBinary ? bytesOf(data) : String(data)) as never);
        } catch (error) {
          send({ type: "error", error: encodeError(error) });
          socket.close(1003, "not a message of the session protocol");
        }
      });
      socket.on("close", () => onEnd());
      socket.on("error", () => socket.terminate());
    },
    close: () => socket.close(1000),
  };
}

function bytesOf(data: RawData): Uint8Array {
  if (Array.isArray(data)) return Buffer.concat(data);
  return data instanceof ArrayBuffer ? new Uint8Array(data) : data;
}
