import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

let collect: (() => void) | undefined;

/**
 * Collects garbage now. dawn.node frees bind groups and the like only when their JavaScript objects are collected, and
 * those are so small that it may not happen before the driver has run out of memory maps.
 */
export function collectGarbage(): void {
  const { Bun } = globalThis as { Bun?: { gc(now: boolean): void } };
  if (Bun) {
    Bun.gc(true);
    return;
  }
  if (!collect) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as () => void; // only contexts made from here on have it: nothing leaks out
    setFlagsFromString("--no-expose-gc");
  }
  collect();
}
