const cell = new Int32Array(new SharedArrayBuffer(4));
/** Long enough to leave the cores to the driver, short enough to add nothing to a round trip that one would notice. */
const SHORTEST_NAP = 0.2; // ms
const LONGEST_NAP = 5;
/** Of the time waited so far, that a nap may add. */
const NAP_SHARE = 0.02;

/**
 * Waits for a promise that a software driver's work settles. dawn.node polls in a busy loop of immediates while one of
 * its promises is pending; that takes a core away from the driver, which computes on the same cores. So this thread naps
 * between the polls, the longer the longer it has waited: a poll takes a good part of the shortest nap.
 */
export function waitForDriver<T>(promise: Promise<T>): Promise<T> {
  let waiting = true;
  const start = performance.now();
  const nap = () => {
    if (!waiting) return;
    const share = (performance.now() - start) * NAP_SHARE;
    Atomics.wait(cell, 0, 0, Math.min(Math.max(share, SHORTEST_NAP), LONGEST_NAP));
    setImmediate(nap);
  };
  setImmediate(nap);
  return promise.finally(() => {
    waiting = false;
  });
}
