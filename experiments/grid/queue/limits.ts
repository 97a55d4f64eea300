/** How patient a queue is. Those who fill it decide, and all its workers go by it. Times are in milliseconds. */
export interface QueueLimits {
  /** A worker that has not been heard of for this long has lost its cell. */
  readonly lock: number;
  /** How often it says that it still computes. */
  readonly renew: number;
  /** How often somebody looks for cells whose workers have gone. */
  readonly stalled: number;
  /** Times that a cell's worker may go without a word before the cell is given up. */
  readonly stalls: number;
  /** Times that a cell may fail before it is given up. */
  readonly attempts: number;
  /** Pause after a cell has failed for the first time; each further one is twice as long. */
  readonly backoff: number;
  /** How long a worker waits for cells of the model that it has loaded before it loads another. */
  readonly patience: number;
  /** Cells of a run that are in the queue at a time. */
  readonly queued: number;
  /** Cells that may be given up before nothing more is handed out. */
  readonly givenUp: number;
  /** How long cells may be neither queued nor finished before they are queued again. */
  readonly lost: number;
  /** How often the queue is filled and looked at. */
  readonly tick: number;
}

export const QUEUE_LIMITS: QueueLimits = {
  // Longer than any pause of a machine that still lives: a swapped-out process, a network that comes back.
  lock: 5 * 60_000,
  renew: 60_000,
  stalled: 60_000,
  stalls: 3,
  attempts: 3,
  backoff: 2_000,
  patience: 5_000,
  queued: 2_000,
  givenUp: 1_000,
  lost: 10_000,
  tick: 1_000,
};
