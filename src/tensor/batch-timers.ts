import type { GPUBuffer, GPUDevice, GPUQuerySet } from "../platform/global-types.ts";
import type { Batch, BatchTimer } from "./recorder.ts";

const MAP_READ = 1;
const STAGING_USAGE = 0x01 | 0x08; // MAP_READ | COPY_DST
const RESOLVE_USAGE = 0x200 | 0x04; // QUERY_RESOLVE | COPY_SRC

/** When a dispatch ran, in milliseconds from the first one, and the bind groups that were made for it. */
export interface DispatchTime {
  readonly start: number;
  readonly end: number;
  readonly bindGroups: number;
}

/** A timer with what it found out. */
export interface DispatchTimer extends BatchTimer {
  /** The times of all dispatches in the order in which they were recorded. Call it when the device is done. */
  times(): Promise<DispatchTime[]>;
}

/** Has the GPU note when each dispatch begins and ends, by `timestamp-query`. */
export class TimestampTimer implements DispatchTimer {
  readonly #gpu: GPUDevice;
  readonly #bindGroups: () => number;
  readonly #batches: { querySet: GPUQuerySet; resolved: GPUBuffer; staging: GPUBuffer; made: number[] }[] =
    [];

  /** `bindGroups` says how many the device has made so far. */
  constructor(gpu: GPUDevice, bindGroups: () => number) {
    this.#gpu = gpu;
    this.#bindGroups = bindGroups;
  }

  submit(batch: Batch): void {
    const count = batch.commands.filter(({ kind }) => kind === "dispatch").length;
    if (count === 0) {
      batch.submit();
      return;
    }
    const gpu = this.#gpu;
    const size = count * 16;
    const querySet = gpu.createQuerySet({ type: "timestamp", count: 2 * count });
    const resolved = gpu.createBuffer({ label: "timestamps", size, usage: RESOLVE_USAGE });
    const staging = gpu.createBuffer({ label: "timestamps", size, usage: STAGING_USAGE });
    const made: number[] = [];
    let next = 0;
    batch.submit({
      begin: (encoder) => {
        made.push(this.#bindGroups());
        const timestampWrites = {
          querySet,
          beginningOfPassWriteIndex: next++,
          endOfPassWriteIndex: next++,
        };
        return encoder.beginComputePass({ timestampWrites });
      },
      end: (encoder) => {
        made.push(this.#bindGroups());
        encoder.resolveQuerySet(querySet, 0, 2 * count, resolved, 0);
        encoder.copyBufferToBuffer(resolved, 0, staging, 0, size);
      },
    });
    this.#batches.push({ querySet, resolved, staging, made });
  }

  afterwards(work: () => void): void {
    work();
  }

  async drain(): Promise<void> {}

  async times(): Promise<DispatchTime[]> {
    const found: { start: bigint; end: bigint; bindGroups: number }[] = [];
    for (const { querySet, resolved, staging, made } of this.#batches.splice(0)) {
      await staging.mapAsync(MAP_READ);
      const ticks = new BigUint64Array(staging.getMappedRange());
      for (let i = 0; 2 * i < ticks.length; i++) {
        found.push({
          start: ticks[2 * i]!,
          end: ticks[2 * i + 1]!,
          bindGroups: made[i + 1]! - made[i]!,
        });
      }
      for (const buffer of [staging, resolved]) buffer.destroy();
      querySet.destroy();
    }
    const first = found.reduce((least, { start }) => (start < least ? start : least), found[0]?.start ?? 0n);
    const ms = (nanoseconds: bigint) => Number(nanoseconds - first) / 1e6;
    return found.map(({ start, end, bindGroups }) => ({ start: ms(start), end: ms(end), bindGroups }));
  }
}

type Job = { readonly batch: Batch } | { readonly work: () => void };

/**
 * Submits one dispatch after the other and waits for each. What the recorder gives to it is kept until somebody waits, since
 * nobody can wait while commands are recorded.
 */
export class OneByOneTimer implements DispatchTimer {
  readonly #bindGroups: () => number;
  readonly #done: () => Promise<unknown>;
  readonly #jobs: Job[] = [];
  readonly #times: DispatchTime[] = [];
  #draining: Promise<void> | undefined;

  /** `done` waits for all that has been submitted. */
  constructor(bindGroups: () => number, done: () => Promise<unknown>) {
    this.#bindGroups = bindGroups;
    this.#done = done;
  }

  submit(batch: Batch): void {
    this.#jobs.push({ batch });
  }

  afterwards(work: () => void): void {
    if (this.#jobs.length === 0 && !this.#draining) work();
    else this.#jobs.push({ work });
  }

  drain(): Promise<void> {
    this.#draining ??= this.#run().finally(() => {
      this.#draining = undefined;
    });
    return this.#draining;
  }

  async times(): Promise<DispatchTime[]> {
    const times = this.#times.splice(0);
    const first = times[0]?.start ?? 0;
    return times.map((time) => ({ ...time, start: time.start - first, end: time.end - first }));
  }

  async #run(): Promise<void> {
    for (let job = this.#jobs.shift(); job; job = this.#jobs.shift()) {
      if ("work" in job) job.work();
      else await this.#runBatch(job.batch);
    }
  }

  async #runBatch(batch: Batch): Promise<void> {
    const begin = (encoder: GPUCommandEncoder) => encoder.beginComputePass();
    for (const command of batch.commands) {
      const made = this.#bindGroups();
      await this.#done(); // of copies before it
      const start = performance.now();
      batch.submit({ begin }, [command]);
      if (command.kind !== "dispatch") continue;
      await this.#done();
      this.#times.push({ start, end: performance.now(), bindGroups: this.#bindGroups() - made });
    }
  }
}
