import type { Place } from "../model/walk/place.ts";
import type { Device, DeviceCounters } from "../tensor/device.ts";
import { type ProfiledDispatch, Profiler, type TimingMethod } from "../tensor/profiler.ts";

/** A dispatch of a profiled piece of work. */
export type Dispatch = ProfiledDispatch<Place>;

export function msOf({ start, end }: Dispatch): number {
  return Math.max(0, end - start);
}

/** A part of the work, as whoever did it divided it up. */
export interface WorkPart {
  readonly name: string;
  readonly dispatches: readonly Dispatch[];
  /** What the device counted meanwhile. */
  readonly counters: DeviceCounters;
  /** From the beginning of the part to its end on the host, with the profiler at work. */
  readonly hostMs: number;
}

export interface ProfiledWork {
  readonly method: TimingMethod;
  readonly parts: readonly WorkPart[];
}

/**
 * Does some work and notes every dispatch of the device meanwhile. `work` is given a function to call at the end of each part,
 * with its name; what comes after the last call is a part called "rest" if it has dispatches.
 *
 * Throws DeviceError where the device is being profiled already.
 */
export async function profileParts(
  device: Device,
  work: (endPart: (name: string) => void) => unknown,
): Promise<ProfiledWork> {
  const profiler = await Profiler.start<Place>(device);
  const marks: { name: string; end: number; ms: number; counters: DeviceCounters }[] = [];
  const mark = (name: string) => {
    marks.push({ name, end: profiler.count, ms: performance.now(), counters: device.counters });
  };
  let dispatches: Dispatch[] = [];
  mark("start");
  try {
    await work(mark);
    await device.sync();
    if (profiler.count > marks.at(-1)!.end) mark("rest");
  } finally {
    dispatches = await profiler.end();
  }
  const parts = marks.slice(1).map(({ name, end, ms, counters }, i): WorkPart => {
    const before = marks[i]!;
    return {
      name,
      dispatches: dispatches.slice(before.end, end),
      counters: difference(before.counters, counters),
      hostMs: ms - before.ms,
    };
  });
  return { method: profiler.method, parts };
}

function difference(before: DeviceCounters, after: DeviceCounters): DeviceCounters {
  const entries = Object.entries(after) as [keyof DeviceCounters, number][];
  return Object.fromEntries(
    entries.map(([name, value]) => [name, value - before[name]]),
  ) as unknown as DeviceCounters;
}
