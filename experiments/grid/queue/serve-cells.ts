import type { CellMessage, CellOrder, CellOutcome } from "./cell-process.ts";

/**
 * The other end of a `CellProcess`: computes the cells that come by messages of the parent process, and ends with it.
 *
 * @param compute - Of a cell by its name; has to give it up when the signal says so. What it throws ends the process, unless it is
 * `isUnfit`: then the parent is told that nothing can be computed here.
 * @param close - Called before the process ends in peace.
 */
export function serveCells(
  compute: (cell: string, doing: (what: string) => void, signal: AbortSignal) => Promise<CellOutcome>,
  isUnfit: (error: unknown) => error is Error,
  close: () => Promise<void>,
): void {
  const stop = new AbortController();
  const send = (message: CellMessage) => process.send?.(message);
  let computing: Promise<void> = Promise.resolve();
  // The parent says when to end; schedulers send these to all processes of a job.
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => {});
  process.on("disconnect", () => process.exit());
  process.on("message", (order: CellOrder) => {
    if ("stop" in order) {
      stop.abort(new Error("stopped"));
      void computing.then(close).finally(() => process.exit());
    } else {
      computing = answer(order.compute);
    }
  });

  async function answer(cell: string): Promise<void> {
    try {
      send({ outcome: await compute(cell, (doing) => send({ doing }), stop.signal) });
    } catch (error) {
      if (stop.signal.aborted) return;
      if (isUnfit(error)) {
        send({ unfit: error.message });
        return;
      }
      console.error(error);
      process.exit(1);
    }
  }
}
