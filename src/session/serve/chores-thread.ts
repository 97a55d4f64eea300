import { parentPort } from "node:worker_threads";
import { encodeError } from "../messages/wire-error.ts";
import { OWN_CHORES } from "../state/chores.ts";
import type { ChoreAnswer, ChoreOrder } from "./thread-chores.ts";

/* A thread that does the chores of a server. */

parentPort!.on("message", async ({ id, name, args }: ChoreOrder) => {
  const answer = (message: ChoreAnswer) => parentPort!.postMessage(message);
  try {
    answer({ id, result: await (OWN_CHORES[name] as (...args: unknown[]) => Promise<unknown>)(...args) });
  } catch (error) {
    answer({ id, error: encodeError(error) });
  }
});
