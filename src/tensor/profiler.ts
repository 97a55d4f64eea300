import { DeviceError } from "../errors.ts";
import { type DispatchTime, type DispatchTimer, OneByOneTimer, TimestampTimer } from "./batch-timers.ts";
import type { Storage } from "./buffer-pool.ts";
import type { Device } from "./device.ts";
import type { Arithmetic, OperationRecord } from "./operation.ts";
import { showShape } from "./shape.ts";
import type { Tensor } from "./tensor.ts";

/** How the time of a dispatch was taken. */
export type TimingMethod = "timestamps" | "one by one";

/** What its launch says of a dispatch. */
export interface DispatchNote {
  readonly kernel: string;
  /** The kernel with dtypes and constants: what one compiled pipeline is of. */
  readonly variant: string;
  /** Of the elements bound, each counted once. */
  readonly readBytes: number;
  readonly writtenBytes: number;
}

/** An operation as profiles show it. */
export interface ProfiledOperation {
  readonly name: string;
  /** Of the inputs, with their dtypes. */
  readonly inputs: string;
  /** Floating-point operations, where the operation says so; of all its dispatches together. */
  readonly flops: number | undefined;
}

/** What was going on when a dispatch was recorded: that of `P` where a model says, and the operation that it is part of. */
export interface ProfiledDispatch<P> extends DispatchNote, DispatchTime {
  readonly place: P | undefined;
  /** The same object for all dispatches of one. */
  readonly operation: ProfiledOperation | undefined;
}

/**
 * Notes every dispatch of a device while it is at work, with its time. A pass of its own for each dispatch costs some
 * microseconds; without the feature `timestamp-query` they are submitted and waited for one by one.
 */
export class Profiler<P = unknown> {
  readonly method: TimingMethod;
  /** Of what is recorded now. */
  place: P | undefined;
  readonly #device: Device;
  readonly #timer: DispatchTimer;
  readonly #stop: () => void;
  readonly #notes: {
    note: DispatchNote;
    place: P | undefined;
    operation: ProfiledOperation | undefined;
  }[] = [];
  /** Of those notes whose operation has been told. */
  #told = 0;
  /** Key tables as the host wrote them, and how often their buffer had been written then. */
  readonly #tables = new WeakMap<Storage, { values: Uint32Array; writes: number }>();

  private constructor(device: Device) {
    this.#device = device;
    const bindGroups = () => device.counters.bindGroups;
    const done = () => device.wait(device.gpu.queue.onSubmittedWorkDone());
    this.method = device.has("timestamp-query") ? "timestamps" : "one by one";
    this.#timer =
      this.method === "timestamps"
        ? new TimestampTimer(device.gpu, bindGroups)
        : new OneByOneTimer(bindGroups, done);
    this.#stop = device.observe((record) => this.#tell(record));
  }

  /** Throws DeviceError where somebody profiles the device already. */
  static async start<P>(device: Device): Promise<Profiler<P>> {
    await device.sync();
    if (device.profiler) throw new DeviceError("this device is being profiled already");
    const profiler = new Profiler<P>(device);
    device.profiler = profiler;
    device.recorder.timer = profiler.#timer;
    return profiler;
  }

  /** Dispatches noted so far. */
  get count(): number {
    return this.#notes.length;
  }

  /** Notes a dispatch that has just been recorded. */
  note(note: DispatchNote): void {
    this.#notes.push({ note, place: this.place, operation: undefined });
  }

  /** Waits for the device, goes back to how it was, and returns the dispatches in order. */
  async end(): Promise<ProfiledDispatch<P>[]> {
    try {
      await this.#device.sync();
    } finally {
      this.#stop();
      this.#device.profiler = undefined;
      this.#device.recorder.timer = undefined;
    }
    const times = await this.#timer.times();
    if (times.length !== this.#notes.length) {
      throw new DeviceError(
        `profile: ${this.#notes.length} dispatches were recorded and ${times.length} were timed`,
      );
    }
    return times.map((time, i) => {
      const { note, place, operation } = this.#notes[i]!;
      return { ...note, ...time, place, operation };
    });
  }

  /** All that was launched since the last operation is part of this one. */
  #tell({ operation, inputs, attributes, output }: OperationRecord): void {
    if (operation.name === "write") this.#remember(output, attributes as { bytes: Uint8Array });
    if (this.#told === this.#notes.length) return;
    const found: ProfiledOperation = {
      name: operation.name,
      inputs: inputs.map(({ shape, dtype }) => `${dtype}${showShape(shape)}`).join(" "),
      flops: this.#flops(operation.arithmetic?.(inputs, attributes, output)),
    };
    while (this.#told < this.#notes.length) this.#notes[this.#told++]!.operation = found;
  }

  #remember({ dtype, shape, storage }: Tensor, { bytes }: { bytes: Uint8Array }): void {
    if (dtype !== "u32" || shape.length !== 2 || shape[1] !== 4) return;
    const values = new Uint32Array(bytes.slice().buffer);
    this.#tables.set(storage, { values, writes: storage.writes });
  }

  #flops(arithmetic: Arithmetic | undefined): number | undefined {
    if (typeof arithmetic !== "object") return arithmetic;
    const { each, segments, keys } = arithmetic;
    const table = this.#tables.get(segments.storage);
    if (table?.writes !== segments.storage.writes || !segments.contiguous) return undefined;
    let pairs = 0;
    for (let at = segments.offset; at < segments.offset + segments.size; at += 4) {
      keys.forEach((count, source) => {
        const [start, end] = table.values.subarray(at + 2 * source) as unknown as [number, number];
        pairs += Math.max(0, Math.min(end, count) - start);
      });
    }
    return each * pairs;
  }
}
