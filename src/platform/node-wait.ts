const cell = new Int32Array(new SharedArrayBuffer(4));
/** Long enough to leave the cores to the driver, short enough to add nothing to a round trip that one would notice. */
const NAP_MILLISECONDS = 0.2;

/**
 * Waits for a promise that a software driver's work settles. dawn.node polls in a busy loop of immediates while one of
 * its promises is pending; that takes a core away from the driver, which computes on the same cores. So this thread naps
 * between the polls.
 */
export function waitForDriver<T>(promise: Promise<T>): Promise<T> {
  let waiting = true;
  const nap = () => {
    if (!waiting) return;
    Atomics.wait(cell, 0, 0, NAP_MILLISECONDS);
    setImmediate(nap);
  };
  setImmediate(nap);
  return promise.finally(() => {
    waiting = false;
  });
}
