import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { CellProgram } from "#experiments/grid/queue/cell-process";
import type { RedisAddress } from "#experiments/grid/queue/redis-address";
import type { AdapterChoice } from "../../../platform/platform.ts";

/** Of `grid serve` and `grid work`. A password in arguments can be read by everybody on the machine. */
export const REDIS_OPTION = [
  "--redis <url>",
  "the server of the queue: redis://, rediss:// or unix: (default: XPATCH_REDIS, else one of the store's own on this machine)",
] as const;

/** The server that the arguments or XPATCH_REDIS name; undefined where none is named. Throws XpatchError for what is no address. */
export async function givenAddress({
  redis,
}: {
  readonly redis?: string;
}): Promise<RedisAddress | undefined> {
  const url = redis ?? (process.env.XPATCH_REDIS || undefined);
  if (url === undefined) return undefined;
  const { redisAddress } = await import("#experiments/grid/queue/redis-address");
  return redisAddress(url);
}

/** The program that computes cells of a store; it is built, or run on its sources by whatever runs this. */
export function cellProgram(store: string, adapter: AdapterChoice | undefined): CellProgram {
  const built = new URL("cells.js", import.meta.url);
  const file = existsSync(built) ? built : new URL("cells.ts", import.meta.url);
  return { file: fileURLToPath(file), args: [store, ...(adapter === undefined ? [] : [adapter])] };
}
