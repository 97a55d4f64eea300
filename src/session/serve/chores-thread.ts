import { parentPort } from "node:worker_threads";
import { encodeError } from "../messages/wire-error.ts";
import { OWN_CHORES } from "../state/chores.ts";
import type { ChoreAnswer, ChoreOrder } from "./thread-chores.ts";

/* A thread that does the chores of a server. */

parentPort!.on("message", async ({ id, name, args }: ChoreOrder) => {
  const answer = (message: ChoreAnswer, own: ArrayBuffer[] = []) => parentPort!.postMessage(message, own);
  try {
    const result = await (OWN_CHORES[name] as (...args: unknown[]) => Promise<object>)(...args);
    // Pixels go over as they are, and are not copied.
    const arrays = Object.values(result).filter((value) => ArrayBuffer.isView(value));
    answer({ id, result }, [...new Set(arrays.map(({ buffer }) => buffer as ArrayBuffer))]);
  } catch (error) {
    answer({ id, error: encodeError(error) });
  }
});
