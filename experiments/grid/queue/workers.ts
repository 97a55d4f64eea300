import type { Redis } from "ioredis";
import { PREFIX, queueName } from "./board.ts";

/** The name of who only watches a queue, among its workers. */
export const WATCHER = "watcher";

/**
 * Workers that have a queue of the grid open, by the names that BullMQ gives their connections: `prefix:queue in base64:w:name`.
 * Undefined where the server does not list its connections.
 */
export async function countWorkers(
  redis: Redis,
  grid: string,
  runs: readonly { readonly id: string }[],
): Promise<number | undefined> {
  const list = await redis.client("LIST").catch(() => undefined);
  if (typeof list !== "string") return undefined;
  const queues = runs.map(({ id }) => `${PREFIX}:${Buffer.from(queueName(grid, id)).toString("base64")}:w:`);
  const names = [...list.matchAll(/ name=(\S+)/g)].map(([, name]) => name!);
  return names.filter(
    (name) => queues.some((queue) => name.startsWith(queue)) && !name.endsWith(`:w:${WATCHER}`),
  ).length;
}
