import { likeNode } from "./node-native.ts";

const cell = new Int32Array(new SharedArrayBuffer(4));
/** Long enough to leave the cores to the driver, short enough to add nothing to a round trip that one would notice. */
const SHORTEST_NAP = 0.2; // ms
const LONGEST_NAP = 5;
/** Where somebody may be waiting for an answer over a socket. */
const LONGEST_NAP_OF_A_SERVER = 0.5;
/** Of the time waited so far, that a nap may add. */
const NAP_SHARE = 0.02;

/** When each of the waits that go on began. */
const waits = new Set<{ readonly start: number }>();
let napping = false;

/**
 * Waits for a promise that a software driver's work settles. dawn.node polls in a busy loop of immediates while one of
 * its promises is pending; that takes a core away from the driver, which computes on the same cores. So this thread naps
 * between the polls, the longer the longer it has waited: a poll takes a good part of the shortest nap. However many
 * wait, there is one nap a turn of the event loop, and in a process with sockets it is a short one.
 */
export function waitForDriver<T>(promise: Promise<T>): Promise<T> {
  const wait = { start: performance.now() };
  waits.add(wait);
  if (!napping) setImmediate(nap);
  napping = true;
  return promise.finally(() => waits.delete(wait));
}

function nap(): void {
  if (waits.size === 0) {
    napping = false;
    return;
  }
  // The latest wait decides: a short one may be about to end.
  const start = [...waits].at(-1)!.start;
  const share = (performance.now() - start) * NAP_SHARE;
  const longest = hasSockets() ? LONGEST_NAP_OF_A_SERVER : LONGEST_NAP;
  Atomics.wait(cell, 0, 0, Math.min(Math.max(share, SHORTEST_NAP), longest));
  setImmediate(nap);
}

/** What keeps a server's process alive; pipes are left out, since standard output may be one. */
const SOCKETS: ReadonlySet<string> = new Set(["TCPServerWrap", "TCPSocketWrap", "PipeServerWrap"]);

function hasSockets(): boolean {
  if (likeNode) return true; // they do not tell
  return process.getActiveResourcesInfo().some((kind) => SOCKETS.has(kind));
}
