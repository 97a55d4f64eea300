import type { Redis } from "ioredis";
import { XpatchError } from "xpatch";
import type { RedisAddress } from "./redis-address.ts";

/** Longest pause between two tries to reach a server that has gone. */
const RETRY_MS = 2000;

/** What says that a server will not let us in, however often we ask. */
const REFUSED = /^(NOAUTH|WRONGPASS|NOPERM|ERR (AUTH|Client sent AUTH|invalid password|DB index))/;

/**
 * A connection that outlasts the server: commands wait until it is back. `disconnect` ends those that BullMQ makes after its pattern,
 * too: one that still tries to come back would keep the process from ending.
 *
 * @param wait - Seconds to wait for a server that is not there yet.
 * @throws XpatchError where nothing answers in that time, or the server refuses us
 */
export async function connect({ shown, options }: RedisAddress, wait = 0): Promise<Redis> {
  const { Redis } = await import("ioredis");
  const redis = new Redis({
    ...options,
    lazyConnect: true,
    // BullMQ's condition: a command is never given up.
    maxRetriesPerRequest: null,
    retryStrategy: (times) => Math.min(50 * 2 ** Math.min(times, 10), RETRY_MS),
  });
  const duplicates: Redis[] = [];
  const { duplicate, disconnect } = redis;
  redis.duplicate = (override) => {
    const made = duplicate.call(redis, override);
    duplicates.push(made);
    return made;
  };
  redis.disconnect = (reconnect = false) => {
    if (!reconnect) for (const made of duplicates) made.disconnect();
    disconnect.call(redis, reconnect);
  };
  let reason = "no answer";
  const because = ({ message, code }: Error & { code?: string }) => {
    // What becomes of commands in between says nothing of the cause.
    if (message !== "Connection is closed.") reason = message || code || reason;
  };
  redis.on("error", because);
  const begin = performance.now();
  for (;;) {
    const answered = await within(RETRY_MS, async () => {
      if (redis.status === "wait" || redis.status === "end") await redis.connect();
      await redis.ping();
    }).catch((error: Error) => {
      because(error);
      return false;
    });
    if (answered) return redis;
    const isRefused = REFUSED.test(reason);
    if (isRefused || performance.now() - begin > wait * 1000) {
      redis.disconnect();
      throw new XpatchError(`cannot use the queue at ${shown}: ${reason}`);
    }
    await new Promise((settle) => setTimeout(settle, 200));
  }
}

/** Whether work ends in that time; throws what it throws. */
async function within(ms: number, work: () => Promise<void>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((settle) => {
    timer = setTimeout(() => settle(false), ms);
  });
  try {
    return await Promise.race([work().then(() => true as const), late]);
  } finally {
    clearTimeout(timer);
  }
}
