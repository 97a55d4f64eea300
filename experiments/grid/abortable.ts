/** What a promise gives, or the reason of a signal if that comes first. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  let onAbort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** Throws the reason of a signal that comes first. */
export function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return abortable(new Promise((done) => setTimeout(done, milliseconds)), signal);
}
