import { argmax } from "#src/kernels/reduction/reduce";
import type { PatchableModel } from "#src/patching/model";
import type { Device } from "#src/tensor/device";
import { apply, type OperationRecord } from "#src/tensor/operation";
import type { Scope } from "#src/tensor/scope";
import { showShape } from "#src/tensor/shape";
import { type Effort, rounded, timeRounds } from "./harness.ts";

export interface ProfileRow {
  operation: string;
  /** Of the inputs, with their dtypes. */
  inputs: string;
  count: number;
  dispatches: number;
  /** Of all `count` together. */
  ms: number;
  percent: number;
}

export interface Profile {
  name: string;
  /** Sum of the rows. The job itself also has what goes on between operations, and can overlap them. */
  ms: number;
  rows: readonly ProfileRow[];
}

/** Where the time of a pass over 128 tokens goes, and that of one decoding step. */
export async function profileModel(model: PatchableModel, effort: Effort): Promise<Profile[]> {
  const { device } = model;
  const ids = Array.from({ length: 128 }, (_, i) => (i * 379) % model.config.vocab);
  const prefill = await profile(device, "prefill of 128 tokens", effort, async (recorder) => {
    recorder.start();
    device.scope(() => {
      argmax(model.run(model.promptFromIds(ids)).logits!, -1);
    });
    recorder.stop();
  });
  const decode = await profile(device, "decoding the 18th token", effort, async (recorder) => {
    let tokens = 0;
    await model.generate(model.promptFromIds(ids.slice(0, 16)), {
      maxNewTokens: 3,
      stopIds: [],
      onToken() {
        tokens++;
        if (tokens === 1) recorder.start();
        else recorder.stop();
      },
    });
  });
  return [prefill, decode];
}

/** Collects the operations of a job, inputs kept alive, and times those of each kind and shape by running them again. */
async function profile(
  device: Device,
  name: string,
  effort: Effort,
  job: (recorder: Recorder) => Promise<void>,
): Promise<Profile> {
  const scope = device.openScope();
  try {
    const recorder = new Recorder(device, scope);
    await job(recorder);
    const rows: ProfileRow[] = [];
    for (const [key, records] of recorder.groups) {
      const run = () => {
        for (const { operation, inputs, attributes } of records) {
          const output = apply(operation, inputs, attributes, device);
          if (output !== inputs[0]) output.dispose();
        }
      };
      run();
      const before = device.counters.dispatches;
      run();
      const dispatches = device.counters.dispatches - before;
      const { bestMs } = await timeRounds(run, () => device.sync(), effort);
      const [operation, inputs] = key.split("\n") as [string, string];
      rows.push({ operation, inputs, count: records.length, dispatches, ms: bestMs, percent: 0 });
    }
    const ms = rows.reduce((sum, row) => sum + row.ms, 0);
    rows.sort((a, b) => b.ms - a.ms);
    const shares = rows.map((row) => ({
      ...row,
      ms: rounded(row.ms),
      percent: rounded((100 * row.ms) / ms),
    }));
    return { name, ms: rounded(ms), rows: shares };
  } finally {
    scope.dispose();
  }
}

class Recorder {
  readonly groups = new Map<string, OperationRecord[]>();
  readonly #device: Device;
  readonly #scope: Scope;
  #stop = () => {};

  constructor(device: Device, scope: Scope) {
    this.#device = device;
    this.#scope = scope;
  }

  start(): void {
    this.#stop = this.#device.observe((record) => {
      if (record.operation.memory) return;
      const inputs = this.#scope.enter(() => record.inputs.map((input) => input.alias()));
      const shapes = inputs.map(({ shape, dtype }) => `${dtype}${showShape(shape)}`).join(" ");
      const key = `${record.operation.name}\n${shapes}`;
      const group = this.groups.get(key) ?? [];
      group.push({ ...record, inputs });
      this.groups.set(key, group);
    });
  }

  stop(): void {
    this.#stop();
  }
}
