import { join } from "node:path";
import type { CellProgram } from "#experiments/grid/queue/cell-process";
import type { RedisAddress } from "#experiments/grid/queue/redis-address";
import { packageFolder } from "../../../platform/node-package.ts";
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

/** The program that computes cells of a store: as it is built, wherever this runs. */
export function cellProgram(store: string, adapter: AdapterChoice | undefined): CellProgram {
  const file = join(packageFolder(), "dist", "cli", "commands", "grid", "cells.js");
  return { file, args: [store, ...(adapter === undefined ? [] : [adapter])] };
}
