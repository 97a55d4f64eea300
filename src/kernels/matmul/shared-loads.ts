import type { Device } from "../../tensor/device.ts";

/**
 * WGSL of values that all invocations of a workgroup need, such as some rows of a matrix. A driver on CPU cores makes a
 * load one lane at a time, even if all lanes load the same, which takes as long as a dozen sums; passing a value on takes
 * no time. So where there are subgroups, each invocation loads another of the values: `width` of them come with a load.
 * Without subgroups `width` is 1, and each value is loaded by itself.
 */
export class SharedLoads {
  readonly width: number;

  constructor(width: number) {
    this.width = width;
  }

  /** How many values a load can bring in a workgroup of `lanes` invocations. */
  static widthOn(device: Device, lanes: number): number {
    return Math.min(device.info.subgroupSize ?? 1, lanes);
  }

  /** Goes before everything else. */
  get enable(): string {
    return this.width > 1 ? "enable subgroups;" : "";
  }

  /** A parameter of the entry point. */
  get parameter(): string {
    return this.width > 1 ? "@builtin(subgroup_invocation_id) subgroup_lane: u32," : "";
  }

  /** A line for each load that `count` values take. */
  perLoad(count: number, line: (load: number) => string): string {
    return Array.from({ length: Math.ceil(count / this.width) }, (_, load) => line(load)).join("\n");
  }

  /** Which value this invocation loads: a number that may be past the last one. */
  index(load: number): string {
    return this.width > 1 ? `(${load * this.width}u + subgroup_lane)` : `${load}u`;
  }

  /** Value `n` of those loaded as `<name>0`, `<name>1`, …; only where control flow is uniform. */
  value(name: string, n: number): string {
    return this.width > 1
      ? `subgroupBroadcast(${name}${Math.floor(n / this.width)}, ${n % this.width}u)`
      : `${name}${n}`;
  }
}
